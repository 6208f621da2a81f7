"""Guidance: from denoisers to a denoiser. Each function is one method; they compose."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ldm_jax.core.typing import Denoise, Level, Prediction
from ldm_jax.sampling.scales import Scale, scale_at


def classifier_free(
    denoise_of: Callable[[Float[Array, "b ..."], Level, PyTree], Prediction],
    cond: PyTree[Array],
    uncond: PyTree[Array],
    scale: Scale,
    rescale: float | Float[Array, ""] | None = None,
) -> Denoise:
    """Classifier-free guidance, Ho & Salimans 2022 (arXiv:2207.12598), eq. 6.

    eps = eps_u + scale (eps_c - eps_u), so scale 0 is unconditional, 1 conditional (callers who
    know it beforehand save half the work by using the conditional denoiser itself), and the
    paper's w is scale - 1. It may be traced, or depend on the level (see `scales`). x0 is combined
    alike, which keeps x0 and eps consistent, both being affine in each other at a given x. A
    learned variance is the conditional one. With `rescale`, 0 to 1, see `rescaled`.

    `denoise_of(x, level, cond)` is called once with 2b examples, ordered [uncond, cond]. The
    leaves of `cond` and `uncond` have one row per example, [b, ...]. Raises ValueError if the two
    differ in structure, shape or dtype.
    """
    _require_alike(cond, uncond)
    both = jax.tree.map(lambda u, c: jnp.concatenate([u, c]), uncond, cond)

    def denoise(x: Float[Array, "b *d"], level: Level) -> Prediction:
        halves = jax.tree.map(
            lambda values: jnp.split(values, 2), denoise_of(jnp.concatenate([x, x]), level, both)
        )
        without, given = (
            Prediction(*(None if pair is None else pair[i] for pair in halves)) for i in (0, 1)
        )
        guided = extrapolate(without, given, scale_at(scale, level))
        return guided if rescale is None else rescaled(guided, given, x, level, rescale)

    return denoise


def autoguidance(denoise: Denoise, weak: Denoise, scale: Scale) -> Denoise:
    """Guidance by a weaker model of the same task, Karras 2024 (arXiv:2406.02507), eq. 3.

    D = D_weak + scale (D - D_weak): 1 is the model alone. `weak` is a smaller, or shorter
    trained, model under the same condition; it costs a call of its own. The variance is the
    model's.
    """

    def guided(x: Float[Array, "b *d"], level: Level) -> Prediction:
        return extrapolate(weak(x, level), denoise(x, level), scale_at(scale, level))

    return guided


def extrapolate(
    base: Prediction, given: Prediction, scale: float | int | Float[Array, ""]
) -> Prediction:
    """base + scale (given - base), of x0 and of eps; the variance is `given`'s."""
    return Prediction(
        x0=base.x0 + scale * (given.x0 - base.x0),
        eps=base.eps + scale * (given.eps - base.eps),
        variance=given.variance,
    )


def rescaled(
    guided: Prediction,
    given: Prediction,
    x: Float[Array, "b *d"],
    level: Level,
    share: float | Float[Array, ""],
) -> Prediction:
    """`guided` with a part `share` of the excess of its spread over `given`'s taken away.

    Lin 2024 (arXiv:2305.08891), eq. 15 and 16, phi being `share`; the paper uses 0.7. As there it
    is v = alpha eps - sigma x0 whose standard deviation over an example is compared, whatever the
    network predicts; v stays meaningful at all levels, also where alpha is 0.
    """
    alpha, sigma = level.alpha, level.sigma
    v_guided, v_given = (alpha * p.eps - sigma * p.x0 for p in (guided, given))
    ratio = _spread(v_given) / jnp.maximum(_spread(v_guided), 1e-12)
    v = v_guided * (share * ratio + (1 - share))
    power = alpha**2 + sigma**2
    return Prediction(
        x0=(alpha * x - sigma * v) / power,
        eps=(sigma * x + alpha * v) / power,
        variance=guided.variance,
    )


def threshold(
    denoise: Denoise,
    quantile: float | Float[Array, ""],
    bound: float | int | Float[Array, ""] = 1.0,
) -> Denoise:
    """Dynamic thresholding, Saharia 2022 (arXiv:2205.11487), section 2.3.

    An example whose `quantile` (0 to 1) of |x0|, s, is above `bound` has x0 clipped to [-s, s] and
    divided by s / bound; others are clipped to [-bound, bound]. Pixels have bound 1; latents have
    no range, and those scaled to unit variance rarely leave -3 to 3. eps follows from x0.
    """

    def thresholded(x: Float[Array, "b *d"], level: Level) -> Prediction:
        prediction = denoise(x, level)
        flat = jnp.abs(prediction.x0).reshape(x.shape[0], -1)
        limit = jnp.maximum(jnp.quantile(flat, quantile, axis=1), bound)
        limit = limit.reshape(-1, *(1,) * (x.ndim - 1))
        x0 = jnp.clip(prediction.x0, -limit, limit) * (bound / limit)
        return prediction._replace(x0=x0, eps=(x - level.alpha * x0) / level.sigma)

    return thresholded


def _spread(values: Float[Array, "b *d"]) -> Float[Array, "b ..."]:
    """Standard deviation of each example, with axes of length 1."""
    return jnp.std(values, axis=tuple(range(1, values.ndim)), keepdims=True)


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
