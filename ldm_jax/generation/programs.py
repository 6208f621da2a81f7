"""Compiled functions of a model, each made once, whose results must be finite."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ldm_jax.core.command import FAILED

ADVICE = {
    "float16": "; try --dtype=bfloat16 or --dtype=float32",
    "bfloat16": "; try --dtype=float32",
}


class NonFiniteError(ValueError):
    """A network gave infinity or no number."""

    status = FAILED


class Programs:
    """Programs by their keys, traced within the context that `around` makes.

    `dtype` is what the networks compute in, for advice.
    """

    def __init__(self, dtype: str, around: Callable[[], AbstractContextManager]) -> None:
        self._dtype, self._around = dtype, around
        self.made: dict[Any, Callable[..., Any]] = {}

    def get(self, key: Any, make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        """The function that `make` makes, compiled, with whether all its results are finite."""
        if key not in self.made:
            function = make()

            @jax.jit
            def program(*arguments: Any) -> tuple[Any, Array]:
                with self._around():
                    result = function(*arguments)
                return result, _finite(result)

            self.made[key] = program
        return self.made[key]

    def run(self, stage: str, program: Callable[..., Any], *arguments: Any) -> Any:
        """The program's result.

        Raises:
            NonFiniteError: it has infinities or NaNs; `stage` says whose they are.
        """
        result, finite = program(*arguments)
        if not bool(finite):
            raise NonFiniteError(
                f"{stage} gave values that are not finite, computing in {self._dtype}"
                + ADVICE.get(self._dtype, "; are the weights damaged, or a guidance scale huge?")
            )
        return result


def _finite(tree: Any) -> Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in leaves], bool))
