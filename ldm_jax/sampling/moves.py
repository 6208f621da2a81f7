"""What every solver is made of: moves of x = alpha x0 + sigma eps from one level to another.

In y = x / alpha and r = sigma / alpha the probability flow is dy/dr = eps (Song 2020,
arXiv:2010.02502, eq. 14; Karras 2022, arXiv:2206.00364, eq. 1), and lambda = -log r is the time in
which it is linear up to eps or x0 (Lu 2022, arXiv:2206.00927, eq. 3.4). A solver moves along the
latest prediction (`move`, exact if the prediction does not change), and adds what it knows of the
change of eps or x0 times `gain` or `gain_of_x0`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from ldm_jax.core.typing import Level, Prediction

Eta = float | int | Float[Array, ""]
"""The share of fresh noise; it may be traced."""


def move(
    x: Float32[Array, "b *d"],
    prediction: Prediction,
    level: Level,
    alpha: Float32[Array, ""],
    sigma: Float32[Array, ""],
) -> Float32[Array, "b *d"]:
    """alpha x0 + sigma eps, for the prediction of x at `level`.

    Written as a change of x, which is x0 and eps at `level`'s own scales: rounding then acts on
    the change alone, and a thousand steps in float32 agree with float64 to some 1e-6. Exactly
    alpha x0 for sigma 0.
    """
    x0, eps, *_ = prediction
    moved = x + (alpha - level.alpha) * x0 + (sigma - level.sigma) * eps
    return jnp.where(sigma == 0, alpha * x0, moved)


def gain(level: Level, alpha: Float32[Array, ""], sigma: Float32[Array, ""]) -> Float32[Array, ""]:
    """What a move to (alpha, sigma) multiplies a change of eps by: alpha (r' - r).

    Exactly 0 from a level to itself, and where `level` has no signal, whose r has no end: what
    leaves it is of first order.
    """
    known = jnp.where(level.alpha == 0, 1.0, level.alpha)
    change = sigma - level.sigma - (alpha - level.alpha) / known * level.sigma
    return jnp.where(level.alpha == 0, 0.0, change)


def gain_of_x0(
    level: Level, alpha: Float32[Array, ""], sigma: Float32[Array, ""]
) -> Float32[Array, ""]:
    """What a move to (alpha, sigma) multiplies a change of x0 by: sigma (1 / r' - 1 / r)."""
    return alpha - level.alpha - (sigma - level.sigma) / level.sigma * level.alpha


def log_snr(alpha: Float32[Array, ""], sigma: Float32[Array, ""]) -> Float32[Array, ""]:
    """lambda = log(alpha / sigma); infinite where there is no noise, or no signal."""
    return jnp.log(alpha) - jnp.log(sigma)


def bare(level: Level, next_level: Level) -> Bool[Array, ""]:
    """Whether lambda is infinite at an end of the step, which must then be of first order."""
    return (level.alpha == 0) | (next_level.sigma == 0)


def transition(level: Level, next_level: Level) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """alpha and sigma^2 of the forward step next_level → level, x_t = alpha x_s + sigma eps.

    Kingma 2021 (arXiv:2107.00630), eq. 22 and 23. Where noise is preserved sigma^2 is the beta
    of the stride; written with sigma it keeps its precision in float32 at low noise, where
    1 - alpha^2 would cancel.
    """
    ratio = level.alpha / next_level.alpha
    return ratio, jnp.maximum(level.sigma**2 - (ratio * next_level.sigma) ** 2, 0.0)


def ancestral(
    level: Level, next_level: Level, eta: Eta
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """The noise of a step to `next_level`: sigma of what is kept, and std of what is fresh.

    Song 2020, eq. 16, times alpha: std = eta (r' / r) sqrt(r^2 - r'^2), never more than all the
    noise that the next level holds (eta > 1 could ask it), and none on the way to the final one.
    """
    if not is_noisy(eta):  # all is kept, also from a level without noise, as inversion leaves
        return next_level.sigma, jnp.zeros_like(next_level.sigma)
    _, variance = transition(level, next_level)
    std = eta * jnp.sqrt(variance) * next_level.sigma / level.sigma
    # sigma'^2 - std^2, which would cancel where nearly all of the noise is fresh.
    ratio = _ratio(level, next_level)
    kept = next_level.sigma * jnp.sqrt(jnp.maximum(1 - eta**2 + (eta * ratio) ** 2, 0.0))
    return _quiet_end(next_level, kept, jnp.minimum(std, next_level.sigma))


def decayed(
    level: Level, next_level: Level, eta: Eta
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """As `ancestral`, of the SDE whose noise fades as e^(-eta lambda).

    std = sigma' sqrt(1 - (r' / r)^(2 eta)): for eta 1 the SDE of Lu 2022b (arXiv:2211.01095),
    section 5, and then the same as `ancestral`; for other eta k-diffusion's.
    """
    # A share of 0 leaves a level without signal, for any eta but 0, where all is kept.
    log_ratio = jnp.log(jnp.clip(_ratio(level, next_level), jnp.finfo(jnp.float32).tiny, 1.0))
    std = next_level.sigma * jnp.sqrt(-jnp.expm1(2 * eta * log_ratio))
    return _quiet_end(next_level, next_level.sigma * jnp.exp(eta * log_ratio), std)


def _ratio(level: Level, next_level: Level) -> Float32[Array, ""]:
    """r' / r."""
    return level.alpha * next_level.sigma / (level.sigma * next_level.alpha)


def _quiet_end(
    next_level: Level, kept: Float32[Array, ""], std: Float32[Array, ""]
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """No noise on the way to the final level."""
    final = next_level.final
    return jnp.where(final, next_level.sigma, kept), jnp.where(final, 0.0, std)


def is_noisy(eta: Eta) -> bool:
    """False only where eta is known to be 0 before tracing."""
    return not (isinstance(eta, float | int) and eta == 0)


def check_eta(eta: Eta) -> None:
    """Raises ValueError for a negative eta, if it is known."""
    if isinstance(eta, float | int) and not eta >= 0:
        raise ValueError(f"eta is {eta}; it must be 0 or more")
