"""What a network predicts, turned into the one form that solvers and guidance know.

x = alpha * x0 + sigma * eps is the only relation used, so all of it holds for every process.
Arithmetic is float32 whatever the network computes in.
"""

from collections.abc import Callable
from typing import get_args

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from ldm_jax.core.names import PredictionKind
from ldm_jax.core.typing import Denoise, Level, Prediction, Process
from ldm_jax.diffusion.arrays import per_example


def q_sample(
    x0: Float[Array, "b *d"],
    eps: Float[Array, "b *d"],
    alpha: Float[Array, "b"],
    sigma: Float[Array, "b"],
) -> Float32[Array, "b *d"]:
    """A sample of q(x_t | x0), given its noise (Ho 2020, arXiv:2006.11239, eq. 4)."""
    alpha, sigma = (per_example(_float32(value), x0.ndim) for value in (alpha, sigma))
    return alpha * _float32(x0) + sigma * _float32(eps)


def target(
    x0: Float[Array, "b *d"],
    eps: Float[Array, "b *d"],
    alpha: Float[Array, "b"],
    sigma: Float[Array, "b"],
    kind: PredictionKind,
    sigma_data: float | int = 1.0,
) -> Float32[Array, "b *d"]:
    """What a network of `kind` should say of `q_sample(x0, eps, alpha, sigma)`.

    eps: Ho 2020, eq. 14. v = alpha eps - sigma x0: Salimans & Ho 2022 (arXiv:2202.00512),
    section 4. score = -eps / sigma: Song 2021 (arXiv:2011.13456), eq. 7; sigma must not be 0.
    velocity = eps - x0, dx/dt of rectified flow: Liu 2022 (arXiv:2209.03003), eq. 1, whose time
    goes the other way.

    edm: F of Karras 2022 (arXiv:2206.00364), eq. 7 and 8, for data of standard deviation
    `sigma_data`, of which a plain squared error is eq. 2 with the weight 1 / c_out^2 of table 1.
    In terms of x, where theirs is x / alpha, nothing is divided by alpha or sigma.

    Raises ValueError for an unknown kind.
    """
    alpha, sigma = (per_example(_float32(value), x0.ndim) for value in (alpha, sigma))
    x0, eps = _float32(x0), _float32(eps)
    match kind:
        case "eps":
            return eps
        case "x0":
            return x0
        case "v":
            return alpha * eps - sigma * x0
        case "score":
            return -eps / sigma
        case "velocity":
            return eps - x0
        case "edm":
            std = jnp.sqrt((sigma_data * alpha) ** 2 + sigma**2)
            return (sigma * x0 - sigma_data**2 * alpha * eps) / (sigma_data * std)
    raise ValueError(_unknown(kind))


def to_prediction(
    output: Float[Array, "b *d"],
    x: Float[Array, "b *d"],
    alpha: Float[Array, "b"],
    sigma: Float[Array, "b"],
    kind: PredictionKind,
    sigma_data: float | int = 1.0,
) -> Prediction:
    """Both x0 and eps from a network's output at x; the inverse of `target`.

    alpha must not be 0 for eps and score, nor sigma for x0. v: Salimans & Ho 2022, appendix D;
    dividing by alpha^2 + sigma^2 (1 where variance is preserved) keeps it exact for any process.
    Raises ValueError for an unknown kind.
    """
    alpha, sigma = (per_example(_float32(value), x.ndim) for value in (alpha, sigma))
    output, x = _float32(output), _float32(x)
    match kind:
        case "eps":
            return Prediction(x0=(x - sigma * output) / alpha, eps=output)
        case "score":
            return Prediction(x0=(x + sigma**2 * output) / alpha, eps=-sigma * output)
        case "x0":
            return Prediction(x0=output, eps=(x - alpha * output) / sigma)
        case "v":
            power = alpha**2 + sigma**2
            return Prediction(
                x0=(alpha * x - sigma * output) / power, eps=(sigma * x + alpha * output) / power
            )
        case "velocity":
            total = alpha + sigma
            return Prediction(x0=(x - sigma * output) / total, eps=(x + alpha * output) / total)
        case "edm":
            std = jnp.sqrt((sigma_data * alpha) ** 2 + sigma**2)
            data, change = x / std**2, sigma_data * output / std
            return Prediction(
                x0=sigma_data**2 * alpha * data + sigma * change, eps=sigma * data - alpha * change
            )
    raise ValueError(_unknown(kind))


def network_input(
    x: Float[Array, "b *d"],
    alpha: Float[Array, "b"],
    sigma: Float[Array, "b"],
    kind: PredictionKind,
    sigma_data: float | int = 1.0,
) -> Float32[Array, "b *d"]:
    """x as a network of `kind` takes it: of unit variance for edm (Karras 2022, c_in), else x."""
    if kind != "edm":
        return _float32(x)
    std = jnp.sqrt((sigma_data * _float32(alpha)) ** 2 + _float32(sigma) ** 2)
    return _float32(x) / per_example(std, x.ndim)


def split_variance(
    output: Float[Array, "b *d c2"],
) -> tuple[Float[Array, "b *d c"], Float32[Array, "b *d c"]]:
    """A network's prediction, and the share of log beta that the second half of channels holds.

    The network's -1 is all of beta_tilde and its 1 all of beta: Nichol & Dhariwal 2021
    (arXiv:2102.09672), eq. 15, as their code scales it. Raises ValueError for an odd number of
    channels.
    """
    if output.shape[-1] % 2:
        raise ValueError(
            f"the output has {output.shape[-1]} channels; a learned variance needs an even number"
        )
    prediction, variance = jnp.split(output, 2, axis=-1)
    return prediction, (_float32(variance) + 1) / 2


def make_denoiser(
    network: Callable[[Float[Array, "b ..."], Float32[Array, "b"]], Float[Array, "b ..."]],
    kind: PredictionKind,
    process: Process,
    *,
    learned_variance: bool = False,
    sigma_data: float | int = 1.0,
) -> Denoise:
    """`denoise(x, level)` from `network(x, t)`, t what `process` tells networks of the level.

    With `learned_variance` the network's output has twice the channels of x (`split_variance`).
    Raises ValueError at once for an unknown kind.
    """
    if kind not in get_args(PredictionKind):
        raise ValueError(_unknown(kind))

    def denoise(x: Float[Array, "b *d"], level: Level) -> Prediction:
        t, alpha, sigma = (jnp.broadcast_to(value, x.shape[:1]) for value in level[:3])
        output = network(network_input(x, alpha, sigma, kind, sigma_data), process.network_time(t))
        variance = None
        if learned_variance:
            output, variance = split_variance(output)
        prediction = to_prediction(output, x, alpha, sigma, kind, sigma_data)
        return prediction._replace(variance=variance)

    return denoise


def _float32(x: Float[Array, "..."]) -> Float32[Array, "..."]:
    return x.astype(jnp.float32)


def _unknown(kind: str) -> str:
    return f"prediction is {kind!r}; it must be one of {get_args(PredictionKind)}"
