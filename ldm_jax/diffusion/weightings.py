"""What each noise level counts for, as a weight on the squared error of x0.

At a given x the errors of eps, v and all other outputs are multiples of the error of x0. So an
objective is one function of the level, whatever the network predicts:

    weight on the output's squared error = weight on x0's / output_factor(kind)
"""

from typing import get_args

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from ldm_jax.core.names import PredictionKind
from ldm_jax.diffusion.posterior import Posterior


def snr(alpha: Float[Array, "b"], sigma: Float[Array, "b"]) -> Float[Array, "b"]:
    """Signal-to-noise ratio alpha^2 / sigma^2 (Kingma 2021, arXiv:2107.00630, eq. 2)."""
    return (alpha / sigma) ** 2


def output_factor(
    kind: PredictionKind,
    alpha: Float[Array, "b"],
    sigma: Float[Array, "b"],
    sigma_data: float = 1.0,
) -> Float32[Array, "b"]:
    """Squared error of an output of `kind` for each squared error of x0, at the same x.

    As a weight on x0 it is the plain loss of such a network: eps is Ho 2020's simple loss, and the
    sigma^2-weighted score matching of Song 2021 (arXiv:2011.13456); edm is 1 / c_out^2, the weight
    of Karras 2022 (arXiv:2206.00364), table 1. sigma must not be 0, but for x0. Raises ValueError
    for an unknown kind.
    """
    alpha, sigma = alpha.astype(jnp.float32), sigma.astype(jnp.float32)
    match kind:
        case "x0":
            return jnp.ones_like(alpha)
        case "eps":
            return snr(alpha, sigma)
        case "score":
            return snr(alpha, sigma) / sigma**2
        case "v":
            return ((alpha**2 + sigma**2) / sigma) ** 2
        case "velocity":
            return ((alpha + sigma) / sigma) ** 2
        case "edm":
            return ((sigma_data * alpha) ** 2 + sigma**2) / (sigma_data * sigma) ** 2
    raise ValueError(f"prediction is {kind!r}; it must be one of {get_args(PredictionKind)}")


def min_snr(snr: Float[Array, "b"], gamma: float) -> Float[Array, "b"]:
    """min(snr, gamma): easy levels count no more than that of `gamma` (Hang 2023,
    arXiv:2303.09556, eq. 8)."""
    return jnp.minimum(snr, gamma)


def p2(snr: Float[Array, "b"], k: float, gamma: float) -> Float[Array, "b"]:
    """The loss on eps over (k + snr)^gamma: less for levels that only clean up (Choi 2022,
    arXiv:2204.00227, eq. 8)."""
    return snr / (k + snr) ** gamma


def debiased(snr: Float[Array, "b"]) -> Float[Array, "b"]:
    """The loss on eps over sqrt(snr) (Yu 2023, arXiv:2310.08442)."""
    return jnp.sqrt(snr)


def posterior_mean(at: Posterior) -> Float[Array, "b"]:
    """The squared error of the posterior's mean (Ho 2020, section 3.2 and table 2)."""
    return at.x0_coefficient**2


def posterior_kl(at: Posterior, log_variance: Float[Array, "b"]) -> Float[Array, "b"]:
    """L_{t-1} of a step of fixed variance: the means' squared error over 2 variance, in nats per
    dimension (Ho 2020, eq. 8 and, in terms of eps, 12)."""
    return 0.5 * at.x0_coefficient**2 * jnp.exp(-log_variance)


def likelihood(
    alpha: Float[Array, "b"], sigma: Float[Array, "b"], diffusion: Float[Array, "b"]
) -> Float[Array, "b"]:
    """1/2 g(t)^2 on the score: a bound of the likelihood in continuous time, in nats per dimension
    and unit of time (Song 2021, arXiv:2101.09258, theorem 1).

    Where alpha is 0 and g has no bound it is 0, its limit: g^2 grows as 1 / alpha.
    """
    weight = 0.5 * (diffusion * alpha / sigma**2) ** 2
    return jnp.where(alpha > 0, weight, 0.0)
