"""LoKr: a Kronecker product (Edalati 2022, KronA; LyCORIS)."""

import math
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ldm_jax.adapters import weights
from ldm_jax.adapters.kind import Factors, kind


@kind
class LoKr:
    """ΔW = c · kron(w1, w2), where w1 is whole or w1_a·w1_b, and w2 whole, w2_a·w2_b or, with `t2`,
    Σ w2_a[m, i] t2[m, n, ··] w2_b[n, j].

    c is α/r, with r the rows of w2_b or else of w1_b; it is 1 where both are whole, whatever alpha
    says.
    """

    name: ClassVar[str] = "lokr"
    w1: Factors | None = None
    """[a, b] of a weight [a·c, b·d, height, width]."""
    w1_a: Factors | None = None
    """[a, r]."""
    w1_b: Factors | None = None
    """[r, b]."""
    w2: Factors | None = None
    """[c, d, height, width]."""
    w2_a: Factors | None = None
    """[c, r]; with `t2` [r, c]."""
    w2_b: Factors | None = None
    """[r, d · height · width]; with `t2` [r, d]."""
    t2: Factors | None = None
    """[r, r, height, width]."""
    alpha: Factors | None = None
    """A number."""

    @property
    def rank(self) -> int | None:
        """r; None where there is none."""
        factor = self.w1_b if self.w2_b is None else self.w2_b
        return None if factor is None else factor.shape[0]

    def delta(self, weight: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        """What is added to `weight`, in float32."""
        whole = self.w1 is not None
        first = weights.float32(self.w1) if whole else weights.product(self.w1_a, self.w1_b)
        if self.w2 is not None:
            second = weights.float32(self.w2)
        elif self.t2 is None:
            second = weights.product(self.w2_a, self.w2_b)
        else:
            second = weights.tucker(self.t2, self.w2_a, self.w2_b)
        # The last axis of the flat second factor runs over inputs and, within each, over pixels,
        # so that the product's does as well.
        change = jnp.kron(weights.flat(first), weights.flat(second))
        if self.rank is not None:
            change = weights.scaled(self.alpha, self.rank, change)
        return weights.placed(change, weight.shape)

    def misfit(self, shape: Sequence[int]) -> str | None:
        """Why it cannot change a weight of `shape`; None if it can."""
        for n in "12":
            whole, a, b = (getattr(self, f"w{n}{end}") for end in ("", "_a", "_b"))
            if (whole is None) != (a is not None and b is not None) or (a is None) != (b is None):
                return f"w{n} must be there either whole or as w{n}_a and w{n}_b"
        if self.t2 is not None and self.w2_a is None:
            return "t2 is there without w2_a and w2_b"
        out, width, *sides = shape
        pixels = math.prod(sides)
        first, second = self._first(), self._second(pixels)
        for problem in (first, second):
            if isinstance(problem, str):
                return problem
        if first[0] * second[0] != out or first[1] * second[1] != width * pixels:
            return (
                f"its factors {list(first)} and {list(second)} make a weight of "
                f"[{first[0] * second[0]}, {first[1] * second[1]}], wanted [{out}, "
                f"{width * pixels}]"
            )
        return None

    def _first(self) -> tuple[int, int] | str:
        if self.w1 is not None:
            return self.w1.shape if self.w1.ndim == 2 else _no_matrix("w1", self.w1)
        return _joined("w1", self.w1_a, self.w1_b)

    def _second(self, pixels: int) -> tuple[int, int] | str:
        """Rows and columns of the second factor, pixels among these."""
        if self.w2 is not None:
            if self.w2.ndim not in (2, 4):
                return _no_matrix("w2", self.w2)
            return self.w2.shape[0], math.prod(self.w2.shape[1:])
        if self.t2 is None:
            return _joined("w2", self.w2_a, self.w2_b)
        a, b, t = (one.shape for one in (self.w2_a, self.w2_b, self.t2))
        if len(a) != 2 or len(b) != 2 or len(t) != 4 or t[:2] != (a[0], b[0]):
            return f"t2 {list(t)}, w2_a {list(a)} and w2_b {list(b)} do not fit each other"
        if math.prod(t[2:]) != pixels:
            return f"t2 is {list(t)}, of another number of pixels than the convolution, {pixels}"
        return a[1], b[1] * pixels


def _joined(name: str, a: Factors, b: Factors) -> tuple[int, int] | str:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        return f"{name}_a {list(a.shape)} and {name}_b {list(b.shape)} do not fit each other"
    return a.shape[0], b.shape[1]


def _no_matrix(name: str, factor: Factors) -> str:
    return f"{name} is {list(factor.shape)}, which is no factor of a weight"
