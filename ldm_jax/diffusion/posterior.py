"""The steps of the discrete chain as Gaussians, and the variational bound that they add up to.

Everything that needs care is a table, made once on the host in float64; what is left for float32
are differences that do not cancel. Bounds are in bits per dimension.
"""

from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float, Float32, Float64, Int

from ldm_jax.core.names import FixedVariance
from ldm_jax.core.typing import Prediction
from ldm_jax.diffusion.arrays import per_example

"""The variance of a step where the network does not say it: Ho 2020, section 3.2."""

_NARROW = 0.05  # bins of fewer standard deviations are integrated by their middle


class Posterior(NamedTuple):
    """q(x_{t-1} | x_t, x0) = N(x0_coefficient x0 + x_coefficient x_t, beta_tilde), by timestep.

    Ho 2020 (arXiv:2006.11239), eqs. 6 and 7. At t = 0 it is x0 itself, of variance 0; so that it
    has a logarithm, log_beta_tilde repeats there what it is at t = 1 (Nichol & Dhariwal 2021).
    """

    x0_coefficient: Float[Array, "*t"] | Float[np.ndarray, "*t"]
    x_coefficient: Float[Array, "*t"] | Float[np.ndarray, "*t"]
    log_beta: Float[Array, "*t"] | Float[np.ndarray, "*t"]
    log_beta_tilde: Float[Array, "*t"] | Float[np.ndarray, "*t"]
    log_ratio: Float[Array, "*t"] | Float[np.ndarray, "*t"]
    """log_beta - log_beta_tilde: as little as 1e-6, which float32 cannot tell from the two."""

    def at(self, t: Int[Array, "b"]) -> "Posterior":
        """The entries of each example's timestep, in float32. They must lie in 0..T-1."""
        return jax.tree.map(lambda values: jnp.asarray(values, jnp.float32)[t], self)


def posterior_tables(alpha_bar: Float64[np.ndarray, "t"]) -> Posterior:
    """The posteriors of a chain with these products of (1 - beta), in float64.

    The products of a part of a chain's timesteps make the posteriors of the respaced chain. The
    last may be 0 (Lin 2024, arXiv:2305.08891). A chain of one step has beta for beta_tilde.
    """
    before = np.append(1.0, alpha_bar[:-1])
    beta = 1 - alpha_bar / before
    beta_tilde = beta * (1 - before) / (1 - alpha_bar)
    beta_tilde[0] = beta_tilde[1] if len(beta) > 1 else beta[0]
    return Posterior(
        x0_coefficient=beta * np.sqrt(before) / (1 - alpha_bar),
        x_coefficient=(1 - before) * np.sqrt(1 - beta) / (1 - alpha_bar),
        log_beta=np.log(beta),
        log_beta_tilde=np.log(beta_tilde),
        log_ratio=np.log(beta / beta_tilde),
    )


def posterior_mean(
    at: Posterior, x0: Float[Array, "b *d"], x: Float[Array, "b *d"]
) -> Float32[Array, "b *d"]:
    """Mean of q(x_{t-1} | x_t = x, x0) (Ho 2020, eq. 7); `at` holds each example's entries."""
    x0_coefficient, x_coefficient = (per_example(v, x.ndim) for v in at[:2])
    return x0_coefficient * x0.astype(jnp.float32) + x_coefficient * x.astype(jnp.float32)


def log_variance(at: Posterior, share: Float[Array, "b *d"]) -> Float32[Array, "b *d"]:
    """`share` log beta + (1 - share) log beta_tilde: the log-variance of the model's step
    (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 15)."""
    log_beta_tilde, log_ratio = (per_example(v, share.ndim) for v in at[3:])
    return log_beta_tilde + share.astype(jnp.float32) * log_ratio


def fixed_share(t: Int[Array, "b"], fixed: FixedVariance) -> Float32[Array, "b"]:
    """The share of log beta where the network does not say it: all or nothing.

    At t = 0, where x0 is decoded and nothing is added, it is nothing for both, as in Ho's program.
    Raises ValueError for an unknown name.
    """
    match fixed:
        case "beta":
            return (t > 0).astype(jnp.float32)
        case "beta_tilde":
            return jnp.zeros(t.shape, jnp.float32)
    raise ValueError(f"fixed variance is {fixed!r}; it must be one of {get_args(FixedVariance)}")


def gaussian_kl(
    mean_difference: Float[Array, "..."],
    log_variance1: Float[Array, "..."],
    log_variance2: Float[Array, "..."],
) -> Float[Array, "..."]:
    """KL(N(m1, exp(log_variance1)) || N(m2, exp(log_variance2))) in nats, elementwise.

    The means enter by their difference, either way round: callers often know it better than
    float32 knows the means.
    """
    return _kl(mean_difference, log_variance1 - log_variance2, log_variance2)


def _kl(
    mean_difference: Float[Array, "..."],
    log_ratio: Float[Array, "..."],
    log_variance2: Float[Array, "..."],
) -> Float[Array, "..."]:
    """`gaussian_kl` where the log-ratio of the variances is known better than either of them."""
    small = jnp.abs(log_ratio) < 0.01
    near, far = jnp.where(small, log_ratio, 0), jnp.where(small, 1, log_ratio)
    series = near**2 / 2 * (1 + near / 3 * (1 + near / 4))
    widths = jnp.where(small, series, jnp.expm1(far) - far)
    return 0.5 * (widths + mean_difference**2 * jnp.exp(-log_variance2))


def gaussian_log_density(
    x: Float[Array, "..."], mean: Float[Array, "..."], log_variance: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Log of the density of N(mean, exp(log_variance)) at x in nats, elementwise."""
    return -0.5 * (np.log(2 * np.pi) + log_variance + (x - mean) ** 2 * jnp.exp(-log_variance))


def discretized_log_likelihood(
    x: Float[Array, "b *d"],
    mean: Float[Array, "b *d"],
    log_scale: Float[Array, "..."],
    bins: int = 256,
) -> Float32[Array, "b *d"]:
    """Log of the mass of N(mean, exp(log_scale)^2) in the bin of each value, in nats.

    Ho 2020, eq. 13: the range [-1, 1] has `bins` values, evenly spaced, and the bins of the first
    and the last reach to infinity. `log_scale` has the axes of `x`, of its size or of 1.

    The distribution function is the exact one. In its logarithm the mass far from the mean keeps
    its slope, and bins that are narrow for the Gaussian are integrated by their middle, so that
    neither underflows nor cancels.
    """
    x, mean, log_scale = (value.astype(jnp.float32) for value in (x, mean, log_scale))
    half = jnp.exp(-log_scale) / (bins - 1)  # half a bin, in standard deviations
    middle = (x - mean) * jnp.exp(-log_scale)
    inside = _log_mass(-jnp.abs(middle), half)
    first, last = x < -1 + 1 / (bins - 1), x > 1 - 1 / (bins - 1)
    side = jnp.where(last, -middle, middle) + half
    return jnp.where(first | last, log_ndtr(jnp.where(first | last, side, 0)), inside)


def _log_mass(middle: Float[Array, "..."], half: Float[Array, "..."]) -> Float[Array, "..."]:
    """log(Phi(middle + half) - Phi(middle - half)), for middle <= 0."""
    width = 2 * half
    narrow = jnp.broadcast_to(width < _NARROW, middle.shape)
    # Either formula is kept off the other's ground, where its gradient is not finite.
    wide = jnp.where(narrow, 1.0, half)
    upper, lower = log_ndtr(middle + wide), log_ndtr(middle - wide)
    by_difference = upper + jnp.log1p(-jnp.exp(jnp.minimum(lower - upper, -1e-7)))
    # The integral of exp(-middle u - u^2 / 2) over the bin, without its terms of order width^4.
    bend = jnp.where(narrow, middle * half, 0.0)
    by_middle = (
        -0.5 * (middle**2 + np.log(2 * np.pi)) + jnp.log(width) - width**2 / 24 + _log_sinhc(bend)
    )
    return jnp.where(narrow, by_middle, by_difference)


def _log_sinhc(y: Float[Array, "..."]) -> Float[Array, "..."]:
    """log(sinh(y) / y)."""
    small = jnp.abs(y) < 0.3
    far = jnp.where(small, 1.0, jnp.abs(y))
    near = jnp.where(small, y, 0.0) ** 2
    series = near / 6 - near**2 / 180 + near**3 / 2835
    return jnp.where(small, series, far + jnp.log1p(-jnp.exp(-2 * far)) - jnp.log(2 * far))


def vlb_terms(
    posterior: Posterior,
    prediction: Prediction,
    x0: Float[Array, "b *d"],
    t: Int[Array, "b"],
    *,
    fixed: FixedVariance = "beta_tilde",
    bins: int | None = 256,
) -> Float32[Array, "b"]:
    """Each example's term of the variational bound at its own timestep, in bits per dimension.

    L_t = KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)) for t >= 1 and L_0 = -log p(x0 | x_1), the
    timesteps being 0..T-1 (Ho 2020, eq. 5); T times the mean over uniform t, plus
    `prior_bits`, is the bound. The variance is the prediction's where it has one, else `fixed`.

    `bins`: the values that x0 can take in [-1, 1], 256 for 8-bit pixels. None is for x0 that is
    not discrete, such as latents: L_0 is then of a density, and may be negative.
    """
    at = posterior.at(t)
    x0, guess = x0.astype(jnp.float32), prediction.x0.astype(jnp.float32)
    share = prediction.variance
    if share is None:
        share = per_example(fixed_share(t, fixed), x0.ndim)
    model, excess = log_variance(at, share), share * per_example(at.log_ratio, x0.ndim)
    # Both means have the same multiple of x_t.
    difference = per_example(at.x0_coefficient, x0.ndim) * (guess - x0)
    kl = _kl(difference, -excess, model)
    if bins is None:
        decoded = gaussian_log_density(x0, guess, model)
    else:
        decoded = discretized_log_likelihood(x0, guess, 0.5 * model, bins)
    return _bits(jnp.where(per_example(t, x0.ndim) == 0, -decoded, kl))


def prior_bits(
    x0: Float[Array, "b *d"], alpha_bar: float | Float[Array, ""] | np.float64
) -> Float32[Array, "b"]:
    """L_T = KL(q(x_T | x0) || N(0, 1)) in bits per dimension; `alpha_bar` is the chain's last."""
    last = jnp.asarray(alpha_bar, jnp.float32)
    return _bits(gaussian_kl(jnp.sqrt(last) * x0.astype(jnp.float32), jnp.log1p(-last), 0 * last))


def _bits(nats: Float[Array, "b *d"]) -> Float32[Array, "b"]:
    return jnp.mean(nats, axis=tuple(range(1, nats.ndim))) / np.log(2).astype(np.float32)
