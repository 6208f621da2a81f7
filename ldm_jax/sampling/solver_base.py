"""What solvers are written with: one exact update, its coefficients, fresh noise, and memory.

In y = x / alpha and r = sigma / alpha the probability flow is dy/dr = eps (Song 2020,
arXiv:2010.02502, eq. 14; Karras 2022, arXiv:2206.00364, eq. 1). In lambda = log(alpha / sigma) it
is linear up to eps or x0, and a step of h = lambda' - lambda is (Lu 2022, arXiv:2206.00927,
eq. 3.4; Lu 2022b, arXiv:2211.01095, eq. 8)

    x' = alpha' / alpha x - sigma' (e^h - 1) mean(eps)    the mean over the step under e^-lambda,
    x' = sigma' / sigma x + alpha' (1 - e^-h) mean(x0)    under e^lambda.

With eps and x0 as they are where the step begins, both are `ddim_update`. All solvers add to it one
of the coefficients times what they know of how far the mean is from there:

    x' = ddim_update + eps_coefficient (mean(eps) - eps)
    x' = ddim_update + x0_coefficient (mean(x0) - x0)

`mean_change` is that difference for a polynomial through the values a solver remembers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Float64, Int

from ldm_jax.core.typing import Level, Prediction, Solver

# ------------------------------------------------------------------- what solvers have in common


class Carry(NamedTuple):
    """The examples at the level reached, and the last prediction of the clean ones."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]


class BaseSolver:
    """What a solver is unless it says otherwise: deterministic, with one evaluation a step."""

    stochastic = False

    def visits(self, steps: int) -> Int[np.ndarray, "e"]:
        """Every level once."""
        return np.arange(steps + 1)

    def evaluations(self, steps: int) -> int:
        """One for each visit but that of the final level."""
        return self.visits(steps).size - 1

    def inner_ratios(
        self, ratio: Float64[np.ndarray, "s"], next_ratio: Float64[np.ndarray, "s"]
    ) -> Float64[np.ndarray, "k s"]:
        """None."""
        return np.empty((0, ratio.size))


class MemorylessSolver(BaseSolver):
    """A solver that knows nothing of earlier steps."""

    def init(self, x: Float32[Array, "b *d"]) -> Carry:
        """The carry before the first step; nothing is predicted yet."""
        return Carry(x=x, x0=jnp.zeros_like(x))


@dataclass(frozen=True, eq=False)
class WrappedSolver:
    """A solver that does more in a step of `solver`, which it is in all else."""

    solver: Solver

    @property
    def order(self) -> int | None:
        """As the solver's."""
        return self.solver.order

    @property
    def stochastic(self) -> bool:
        """As the solver is."""
        return self.solver.stochastic

    def visits(self, steps: int) -> Int[np.ndarray, "e"]:
        """As the solver's."""
        return self.solver.visits(steps)

    def evaluations(self, steps: int) -> int:
        """As the solver's."""
        return self.solver.evaluations(steps)

    def inner_ratios(
        self, ratio: Float64[np.ndarray, "s"], next_ratio: Float64[np.ndarray, "s"]
    ) -> Float64[np.ndarray, "k s"]:
        """As the solver's."""
        return self.solver.inner_ratios(ratio, next_ratio)

    def init(self, x: Float[Array, "b ..."]) -> Any:
        """As the solver's."""
        return self.solver.init(x)


def evaluates_once(solver: Solver) -> bool:
    """Whether each step of `solver` is one evaluation."""
    return solver.evaluations(2) == 2


# ------------------------------------------------------------------- the update and its parts


def ddim_update(
    x: Float32[Array, "b *d"], prediction: Prediction, level: Level, next_level: Level
) -> Float32[Array, "b *d"]:
    """alpha' x0 + sigma' eps, for the prediction of x at `level` (Song 2020, eq. 12 for eta 0).

    Exact if the prediction does not change on the way. Written as a change of x, which is x0 and
    eps at `level`'s own scales: rounding then acts on the change alone, and a thousand steps in
    float32 agree with float64 to some 1e-6. Exactly alpha' x0 for sigma' 0.
    """
    x0, eps, *_ = prediction
    alpha, sigma = next_level.alpha, next_level.sigma
    updated = x + (alpha - level.alpha) * x0 + (sigma - level.sigma) * eps
    return jnp.where(sigma == 0, alpha * x0, updated)


def log_snr(level: Level) -> Float32[Array, ""]:
    """lambda = log(alpha / sigma); infinite where there is no noise, or no signal."""
    return jnp.log(level.alpha) - jnp.log(level.sigma)


def eps_coefficient(level: Level, next_level: Level) -> Float32[Array, ""]:
    """-sigma' (e^h - 1) = alpha' (r' - r), of eps over the step.

    Exactly 0 from a level to itself, and where `level` has no signal, whose r has no end: what
    leaves it is of first order.
    """
    alpha, sigma = next_level.alpha, next_level.sigma
    here = jnp.where(level.alpha == 0, 1.0, level.alpha)
    change = sigma - level.sigma - (alpha - level.alpha) / here * level.sigma
    return jnp.where(level.alpha == 0, 0.0, change)


def x0_coefficient(level: Level, next_level: Level) -> Float32[Array, ""]:
    """alpha' (1 - e^-h) = sigma' (1 / r' - 1 / r), of x0 over the step."""
    alpha, sigma = next_level.alpha, next_level.sigma
    return alpha - level.alpha - (sigma - level.sigma) / level.sigma * level.alpha


def is_first_order(level: Level, next_level: Level) -> Bool[Array, ""]:
    """Whether lambda is infinite at an end of the step, which must then be of first order."""
    return (level.alpha == 0) | (next_level.sigma == 0)


# ------------------------------------------------------------------- fresh noise

Eta = float | int | Float[Array, ""]
"""The share of fresh noise; it may be traced."""


def is_noisy(eta: Eta) -> bool:
    """False only where eta is known to be 0 before tracing."""
    return not (isinstance(eta, float | int) and eta == 0)


def check_eta(eta: Eta) -> None:
    """Raises ValueError for a negative eta, if it is known."""
    if isinstance(eta, float | int) and not eta >= 0:
        raise ValueError(f"eta is {eta}; it must be 0 or more")


def forward_step(level: Level, next_level: Level) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """alpha and sigma^2 of the forward step next_level → level, x_t = alpha x_s + sigma eps.

    Kingma 2021 (arXiv:2107.00630), eq. 22 and 23. Where noise is preserved sigma^2 is the beta
    of the stride; written with sigma it keeps its precision in float32 at low noise, where
    1 - alpha^2 would cancel.
    """
    ratio = level.alpha / next_level.alpha
    return ratio, jnp.maximum(level.sigma**2 - (ratio * next_level.sigma) ** 2, 0.0)


def ancestral_step(level: Level, next_level: Level, eta: Eta) -> tuple[Level, Float32[Array, ""]]:
    """The less noisy level that a step goes down to, and the std of the noise that leads up again.

    Song 2020, eq. 16, times alpha: std = eta (r' / r) sqrt(r^2 - r'^2), never more than all the
    noise that the next level holds (eta > 1 could ask it), and none on the way to the final one.
    Together they make `next_level`: sigma_down^2 + std^2 = sigma'^2.
    """
    if not is_noisy(eta):  # all is kept, also from a level without noise, as inversion leaves
        return next_level, jnp.zeros_like(next_level.sigma)
    _, variance = forward_step(level, next_level)
    std = eta * jnp.sqrt(variance) * next_level.sigma / level.sigma
    # sigma'^2 - std^2, which would cancel where nearly all of the noise is fresh.
    ratio = _noise_ratio(level, next_level)
    down = next_level.sigma * jnp.sqrt(jnp.maximum(1 - eta**2 + (eta * ratio) ** 2, 0.0))
    return _quiet_end(next_level, down, jnp.minimum(std, next_level.sigma))


def sde_step(level: Level, next_level: Level, eta: Eta) -> tuple[Level, Float32[Array, ""]]:
    """As `ancestral_step`, of the SDE whose noise fades as e^(-eta lambda).

    std = sigma' sqrt(1 - (r' / r)^(2 eta)): for eta 1 the SDE of Lu 2022b, section 5, and then
    the same as `ancestral_step`; for other eta k-diffusion's.
    """
    # A share of 0 leaves a level without signal, for any eta but 0, where all is kept.
    ratio = jnp.clip(_noise_ratio(level, next_level), jnp.finfo(jnp.float32).tiny, 1.0)
    log_ratio = jnp.log(ratio)
    std = next_level.sigma * jnp.sqrt(-jnp.expm1(2 * eta * log_ratio))
    return _quiet_end(next_level, next_level.sigma * jnp.exp(eta * log_ratio), std)


def _noise_ratio(level: Level, next_level: Level) -> Float32[Array, ""]:
    """r' / r."""
    return level.alpha * next_level.sigma / (level.sigma * next_level.alpha)


def _quiet_end(
    next_level: Level, down: Float32[Array, ""], std: Float32[Array, ""]
) -> tuple[Level, Float32[Array, ""]]:
    """No noise on the way to the final level."""
    final = next_level.final
    down = next_level._replace(sigma=jnp.where(final, next_level.sigma, down))
    return down, jnp.where(final, 0.0, std)


# ------------------------------------------------------------------- memory of earlier steps


class History(NamedTuple):
    """The examples at the level reached, and what was predicted on the way there."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]
    values: tuple[Float32[Array, "b ..."], ...]
    """eps or x0 of the last evaluations, newest first."""
    nodes: tuple[Float32[Array, ""], ...]
    """The solver's coordinate of each of them."""
    num_values: Int[Array, ""]
    """How many of them there are."""


def empty_history(x: Float32[Array, "b *d"], length: int) -> History:
    """Nothing remembered yet, of at most `length` evaluations."""
    zeros, zero = jnp.zeros_like(x), jnp.zeros((), jnp.float32)
    return History(x, zeros, (zeros,) * length, (zero,) * length, jnp.zeros((), jnp.int32))


def remember(
    history: History,
    x: Float32[Array, "b *d"],
    x0: Float32[Array, "b *d"],
    value: Float32[Array, "b *d"],
    node: Float32[Array, ""],
    level: Level,
) -> History:
    """The history with one more evaluation, at x of the next level; the oldest is forgotten.

    One at a level without signal, whose coordinate has no end, does not count.
    """
    values = (value, *history.values)[: len(history.values)]
    nodes = (node, *history.nodes)[: len(history.nodes)]
    num_values = jnp.minimum(history.num_values + 1, len(values))
    return History(x, x0, values, nodes, jnp.where(level.alpha == 0, 0, num_values))


_POINTS, _MASS = np.polynomial.legendre.leggauss(16)
# Exact for polynomials to degree 31, and to 1e-9 times e^(20 u).
POINTS = ((_POINTS + 1) / 2).astype(np.float32)
MASS = (_MASS / 2).astype(np.float32)


def polynomial_weights(
    nodes: Sequence[Float32[Array, ""]], rate: float | Float32[Array, ""]
) -> Float32[Array, "n"]:
    """w with sum_k w_k f(nodes_k) = the mean of p over [0, 1] under the density e^(rate u).

    p is the polynomial through f at the nodes, which lie anywhere but on each other; u = 0 is
    where the step begins and u = 1 where it ends. Linear multistep methods of every kind are this
    integral: Adams-Bashforth and LMS with rate 0, DEIS and DPM-Solver with the exponential that
    the linear part of the flow brings. By Gauss' rule, which unlike closed forms does not cancel
    for short steps.
    """
    density = MASS * jnp.exp(rate * POINTS - jnp.maximum(rate, 0.0))
    density = density / density.sum()
    found = []
    for k, node in enumerate(nodes):
        basis = density
        for j, other in enumerate(nodes):
            if j != k:
                basis = basis * (POINTS - other) / (node - other)
        found.append(basis.sum())
    return jnp.stack(found)


def mean_change(
    values: Sequence[Float32[Array, "b *d"]],
    nodes: Sequence[Float32[Array, ""]],
    rate: float | Float32[Array, ""],
    count: Int[Array, ""],
) -> Float32[Array, "b *d"]:
    """How far the mean of `polynomial_weights` is from values[0], by the first `count` (1 or more)
    values: sum_k w_k (values_k - values_0).

    The others, and their nodes, may be anything.
    """
    most = len(values)
    table = [
        jnp.pad(polynomial_weights(nodes[:some], rate), (0, most - some))
        for some in range(1, most + 1)
    ]
    share = jnp.stack(table)[jnp.clip(count, 1, most) - 1]
    total = jnp.zeros_like(values[0])
    for k in range(1, most):
        total = total + share[k] * (values[k] - values[0])
    return total
