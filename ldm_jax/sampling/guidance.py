"""Guidance: from denoisers to a denoiser."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ldm_jax.typing import Denoise, Level, Prediction


def classifier_free(
    denoise_of: Callable[[Float[Array, "b ..."], Level, PyTree], Prediction],
    cond: PyTree[Array],
    uncond: PyTree[Array],
    scale: float | int | Float[Array, ""],
) -> Denoise:
    """Classifier-free guidance, Ho & Salimans 2022 (arXiv:2207.12598), eq. 6.

    eps = eps_u + scale (eps_c - eps_u), so scale 0 is unconditional, 1 conditional (callers who
    know it beforehand save half the work by using the conditional denoiser itself), and the
    paper's w is scale - 1. It may be traced. x0 is combined alike, which keeps x0 and eps
    consistent, both being affine in each other at a given x.

    `denoise_of(x, level, cond)` is called once with 2b examples, ordered [uncond, cond]. The
    leaves of `cond` and `uncond` have one row per example, [b, ...]. Raises ValueError if the two
    differ in structure, shape or dtype.
    """
    _require_alike(cond, uncond)
    both = jax.tree.map(lambda u, c: jnp.concatenate([u, c]), uncond, cond)

    def denoise(x: Float[Array, "b *d"], level: Level) -> Prediction:
        prediction = denoise_of(jnp.concatenate([x, x]), level, both)

        def guide(values: Float[Array, "b2 *d"]) -> Float[Array, "b *d"]:
            without, given = jnp.split(values, 2)
            return without + scale * (given - without)

        return Prediction(x0=guide(prediction.x0), eps=guide(prediction.eps))

    return denoise


def _require_alike(cond: PyTree[Array], uncond: PyTree[Array]) -> None:
    if jax.tree.structure(cond) != jax.tree.structure(uncond):
        raise ValueError(
            f"cond and uncond differ in structure: {jax.tree.structure(cond)} and "
            f"{jax.tree.structure(uncond)}; give both the same fields"
        )
    for (path, c), u in zip(
        jax.tree_util.tree_leaves_with_path(cond), jax.tree.leaves(uncond), strict=True
    ):
        if c.shape != u.shape or c.dtype != u.dtype:
            raise ValueError(
                f"cond{jax.tree_util.keystr(path)} is {c.dtype}{list(c.shape)} but uncond has "
                f"{u.dtype}{list(u.shape)}; repeat the unconditional row for every example"
            )
