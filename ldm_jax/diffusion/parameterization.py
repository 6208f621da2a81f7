"""What a network predicts, turned into the one form that solvers and guidance know.

x = alpha * x0 + sigma * eps is the only relation used, so all of it holds for variance preserving
and variance exploding schedules. Arithmetic is float32 whatever the network computes in.
"""

from collections.abc import Callable
from typing import get_args

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from ldm_jax.typing import Denoise, Level, Prediction, PredictionKind


def q_sample(
    x0: Float[Array, "b *d"],
    eps: Float[Array, "b *d"],
    alpha: Float[Array, "b"],
    sigma: Float[Array, "b"],
) -> Float32[Array, "b *d"]:
    """A sample of q(x_t | x0), given its noise (Ho 2020, arXiv:2006.11239, eq. 4)."""
    alpha, sigma = _per_example(alpha, x0.ndim), _per_example(sigma, x0.ndim)
    return alpha * _float32(x0) + sigma * _float32(eps)


def target(
    x0: Float[Array, "b *d"],
    eps: Float[Array, "b *d"],
    alpha: Float[Array, "b"],
    sigma: Float[Array, "b"],
    kind: PredictionKind,
) -> Float32[Array, "b *d"]:
    """What a network of `kind` should say of `q_sample(x0, eps, alpha, sigma)`.

    eps: Ho 2020, eq. 14. v = alpha eps - sigma x0: Salimans & Ho 2022 (arXiv:2202.00512),
    section 4. Raises ValueError for an unknown kind.
    """
    alpha, sigma = _per_example(alpha, x0.ndim), _per_example(sigma, x0.ndim)
    match kind:
        case "eps":
            return _float32(eps)
        case "x0":
            return _float32(x0)
        case "v":
            return alpha * _float32(eps) - sigma * _float32(x0)
    raise ValueError(_unknown(kind))


def to_prediction(
    output: Float[Array, "b *d"],
    x: Float[Array, "b *d"],
    alpha: Float[Array, "b"],
    sigma: Float[Array, "b"],
    kind: PredictionKind,
) -> Prediction:
    """Both x0 and eps from a network's output at x; the inverse of `target`.

    alpha must not be 0 for eps, nor sigma for x0. v: Salimans & Ho 2022, appendix D; dividing by
    alpha^2 + sigma^2 (1 where variance is preserved) keeps it exact for any schedule.
    Raises ValueError for an unknown kind.
    """
    alpha, sigma = _per_example(alpha, x.ndim), _per_example(sigma, x.ndim)
    output, x = _float32(output), _float32(x)
    match kind:
        case "eps":
            return Prediction(x0=(x - sigma * output) / alpha, eps=output)
        case "x0":
            return Prediction(x0=output, eps=(x - alpha * output) / sigma)
        case "v":
            power = alpha**2 + sigma**2
            return Prediction(
                x0=(alpha * x - sigma * output) / power, eps=(sigma * x + alpha * output) / power
            )
    raise ValueError(_unknown(kind))


def make_denoiser(
    network: Callable[[Float[Array, "b ..."], Float32[Array, "b"]], Float[Array, "b ..."]],
    kind: PredictionKind,
) -> Denoise:
    """`denoise(x, level)` from `network(x, t)`, t the level's timestep for each example.

    Raises ValueError at once for an unknown kind.
    """
    if kind not in get_args(PredictionKind):
        raise ValueError(_unknown(kind))

    def denoise(x: Float[Array, "b *d"], level: Level) -> Prediction:
        t, alpha, sigma = (jnp.broadcast_to(value, x.shape[:1]) for value in level[:3])
        return to_prediction(network(x, t), x, alpha, sigma, kind)

    return denoise


def _per_example(values: Float[Array, "b"], ndim: int) -> Float32[Array, "b ..."]:
    """[b] as [b, 1, ..., 1] of `ndim` axes."""
    return _float32(values).reshape(values.shape + (1,) * (ndim - 1))


def _float32(x: Float[Array, "..."]) -> Float32[Array, "..."]:
    return x.astype(jnp.float32)


def _unknown(kind: str) -> str:
    return f"prediction is {kind!r}; it must be one of {get_args(PredictionKind)}"
