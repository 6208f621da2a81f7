"""Exact likelihoods by the probability flow: the density of data under a denoiser.

The flow dx/dt = f x - g^2 / 2 score carries data to noise without randomness, and along it
d log p(x_t) / dt = -div (Song 2021, arXiv:2011.13456, section 4.3 and appendix D.2). Densities are
in nats; `bits_per_dim` has the units of the literature.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Key

from ldm_jax.core import rngs
from ldm_jax.core.typing import Denoise, Level, Process

Field = Callable[[Float[Array, "b ..."], Float[Array, ""]], Float[Array, "b ..."]]
"""dx/dt at examples x and one time t."""
Divergence = Callable[
    [Float[Array, "b ..."], Float[Array, ""]], tuple[Float[Array, "b ..."], Float[Array, "b"]]
]
"""dx/dt, and its divergence for each example."""
Probe = Literal["rademacher", "gaussian"]


RUNGE_KUTTA = ((0.0, 1 / 6), (0.5, 1 / 3), (0.5, 1 / 3), (1.0, 1 / 6))
"""The classical method of fourth order: how far each slope lies into the step, and its weight."""


class Likelihood(NamedTuple):
    """What the flow says of each example."""

    log_prob: Float32[Array, "b"]
    """Log of the density at t_min, in nats."""
    noise: Float32[Array, "b ..."]
    """Where the example comes to lie at t_max."""


def probability_flow(denoise: Denoise, process: Process) -> Field:
    """dx/dt = f x + g^2 / (2 sigma) eps (Song 2021, eq. 13), the score being -eps / sigma."""

    def field(x: Float[Array, "b *d"], t: Float[Array, ""]) -> Float[Array, "b *d"]:
        sigma = process.sigma_at(t)
        level = Level(t, process.alpha_at(t), sigma, jnp.zeros((), bool))
        weight = process.diffusion_at(t) ** 2 / (2 * sigma)
        return process.drift_at(t) * x + weight * denoise(x, level).eps

    return field


def probes(
    keys: Key[Array, "b"], shape: tuple[int, ...], kind: Probe = "rademacher"
) -> Float32[Array, "b ..."]:
    """Random vectors of mean 0 and covariance 1: signs, or Gaussian. Raises for another kind."""
    match kind:
        case "rademacher":
            return jnp.where(rngs.uniform(keys, shape) < 0.5, -1.0, 1.0)
        case "gaussian":
            return rngs.normal(keys, shape)
    raise ValueError(f"probe is {kind!r}; it must be 'rademacher' or 'gaussian'")


def hutchinson(field: Field, probe: Float[Array, "b *d"]) -> Divergence:
    """The unbiased estimate v^T J v of the divergence (Hutchinson 1990; Song 2021, eq. 40)."""

    def estimate(
        x: Float[Array, "b *d"], t: Float[Array, ""]
    ) -> tuple[Float[Array, "b *d"], Float[Array, "b"]]:
        value, along = jax.jvp(lambda x: field(x, t), (x,), (probe,))
        return value, _dot(along, probe)

    return estimate


def exact_divergence(field: Field) -> Divergence:
    """The trace of the Jacobian, entry by entry: as many derivatives as an example has numbers.

    Examples must not depend on each other.
    """

    def trace(
        x: Float[Array, "b *d"], t: Float[Array, ""]
    ) -> tuple[Float[Array, "b *d"], Float[Array, "b"]]:
        value, derivative = jax.linearize(lambda x: field(x, t), x)
        axes = jnp.eye(math.prod(x.shape[1:]), dtype=x.dtype).reshape(-1, *x.shape[1:])

        def entry(axis: Float[Array, "*d"]) -> Float[Array, "b"]:
            direction = jnp.broadcast_to(axis, x.shape)
            return _dot(derivative(direction), direction)

        return value, jnp.sum(jax.lax.map(entry, axes), axis=0)

    return trace


def flow_times(process: Process, steps: int, points: int = 20001) -> Float64[np.ndarray, "s"]:
    """steps + 1 times from t_min to t_max, at even steps of log(sigma / alpha).

    A flow changes as fast as that. Where alpha or sigma are 0 at an end the next of `points`
    times stands in for spacing, and the end itself is kept.
    """
    share = np.linspace(0, 1, points) ** 2
    times = process.t_min + (process.t_max - process.t_min) * share
    alpha, sigma = (np.asarray(at(times)) for at in (process.alpha_at, process.sigma_at))
    inside = (alpha > 0) & (sigma > 0)
    ratio = np.log(sigma[inside] / alpha[inside])
    grid = np.interp(np.linspace(ratio[0], ratio[-1], steps + 1), ratio, times[inside])
    grid[0], grid[-1] = times[0], times[-1]
    return grid


def log_likelihood(
    divergence: Divergence,
    x: Float32[Array, "b *d"],
    times: Float[np.ndarray, "s"] | Float[Array, "s"],
    log_prior: Callable[[Float[Array, "b ..."]], Float[Array, "b"]],
) -> Likelihood:
    """Log density of `x`, which lies at times[0], by Runge and Kutta's fourth-order steps.

    `times` rise; the program does not grow with them. `log_prior` is the log density at the last:
    `normal_prior` for what sampling starts from.
    """

    def body(
        carry: tuple[Float[Array, "b *d"], Float[Array, "b"]],
        ends: tuple[Float[Array, ""], Float[Array, ""]],
    ):
        t, step = ends[0], ends[1] - ends[0]

        def stage(so_far, coefficients: Float[Array, "2"]):
            slope, mean = so_far
            share, weight = coefficients
            slope = divergence(carry[0] + share * step * slope[0], t + share * step)
            return (slope, jax.tree.map(lambda m, s: m + weight * s, mean, slope)), None

        # Under a scan, so that the program holds the network and its gradient once, not four times.
        none = jax.tree.map(jnp.zeros_like, carry)
        (_, mean), _ = jax.lax.scan(stage, (none, none), jnp.asarray(RUNGE_KUTTA, jnp.float32))
        return jax.tree.map(lambda value, m: value + step * m, carry, mean), None

    times = jnp.asarray(times, jnp.float32)
    start = (x, jnp.zeros(x.shape[0], jnp.float32))
    (noise, total), _ = jax.lax.scan(body, start, (times[:-1], times[1:]))
    return Likelihood(log_prior(noise) + total, noise)


def adaptive_log_likelihood(
    divergence: Divergence,
    x: Float32[Array, "b *d"],
    process: Process,
    log_prior: Callable[[Float[Array, "b ..."]], Float[Array, "b"]],
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 4096,
) -> Likelihood:
    """As `log_likelihood` from t_min to t_max, with steps that keep the error below a tolerance.

    Dormand and Prince's pair of orders 5 and 4 (Song 2021, appendix D.2), one step size for the
    whole batch; by diffrax. Raises
    eqx.EquinoxRuntimeError where `max_steps` are not enough.
    """
    import diffrax

    def vector(t: Float[Array, ""], state, _):
        return divergence(state[0], t)

    # The library mixes the types of its own counters.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(vector), diffrax.Dopri5(),
            jnp.float32(process.t_min), jnp.float32(process.t_max), None,
            (x, jnp.zeros(x.shape[0], jnp.float32)),
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol), max_steps=max_steps,
        )  # fmt: skip
    noise, total = (values[-1] for values in solution.ys)
    return Likelihood(log_prior(noise) + total, noise)


def normal_prior(
    process: Process, data_std: float | int = 1.0
) -> Callable[[Float[Array, "b ..."]], Float[Array, "b"]]:
    """Log density of N(0, alpha^2 data_std^2 + sigma^2) at t_max, with which sampling starts.

    0 for `data_std` is the prior N(0, sigma^2) of variance exploding processes (Song 2021).
    """
    alpha, sigma = process.alpha_at(process.t_max), process.sigma_at(process.t_max)
    variance = float((alpha * data_std) ** 2 + sigma**2)

    def log_prob(x: Float[Array, "b *d"]) -> Float[Array, "b"]:
        size = math.prod(x.shape[1:])
        return -0.5 * (_dot(x, x) / variance + size * math.log(2 * math.pi * variance))

    return log_prob


PIXEL_BITS = math.log2(127.5)
"""Bits per dimension between the density of pixels in [-1, 1] and that of grey levels 0 to 255,
which are 127.5 times as far apart (Theis 2016, arXiv:1511.01844, section 3.1)."""


def bits_per_dim(
    log_prob: Float[Array, "b"], size: int, offset: float = 0.0
) -> Float32[Array, "b"]:
    """-log2 of the density for each of an example's `size` numbers, plus `offset`.

    With PIXEL_BITS as `offset`, for pixels that `dequantized` made: an upper bound, in the mean,
    of the bits that a lossless code of the 8-bit picture needs. Without it: of densities of other
    numbers, such as latents, which are not comparable with those of pixels.
    """
    return -log_prob / (size * math.log(2)) + offset


def dequantized(
    images: Float[Array, "b *d"], noise: Float[Array, "b *d"]
) -> Float32[Array, "b *d"]:
    """Grey levels 0 to 255 with uniform `noise` in [0, 1), as pixels about [-1, 1].

    Level v fills the bin from v - 1/2 to v + 1/2, around the pixel that a model is trained on.
    """
    return (images + noise - 0.5) / 127.5 - 1


def _dot(a: Float[Array, "b *d"], b: Float[Array, "b *d"]) -> Float[Array, "b"]:
    return jnp.sum((a * b).reshape(a.shape[0], -1), axis=1)
