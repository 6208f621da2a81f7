"""DPM-Solver++ over its last predictions, 2M and 3M, as ODE and as SDE; one evaluation a step."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float32

from ldm_jax.core.typing import Denoise, Level
from ldm_jax.sampling.solver_base import (
    BaseSolver,
    Eta,
    History,
    check_eta,
    ddim_update,
    empty_history,
    is_first_order,
    is_noisy,
    log_snr,
    mean_change,
    remember,
    sde_step,
    x0_coefficient,
)


@dataclasses.dataclass(frozen=True)
class _OverX0(BaseSolver):
    """x0 followed in lambda, with `eta` of fresh noise. Raises ValueError for a negative eta."""

    eta: Eta = 0.0

    def __post_init__(self) -> None:
        check_eta(self.eta)

    @property
    def stochastic(self) -> bool:
        """False only where eta is known to be 0 before tracing."""
        return is_noisy(self.eta)


@dataclasses.dataclass(frozen=True)
class DPMSolverPP2M(_OverX0):
    """DPM-Solver++(2M), Lu 2022b (arXiv:2211.01095), algorithm 2: x0 extrapolated in lambda.

    The first step, having nothing to extrapolate from, and a step to sigma = 0, where lambda has
    no end, are of first order, which is DDIM. With `lower_order_final` so is the step to any final
    level; diffusers does that for fewer than 15 steps. It is k-diffusion's "DPM++ 2M" and
    diffusers' "midpoint"; with eta 1 it is SDE-DPM-Solver++(2M), their section 5 and "2M SDE".
    """

    lower_order_final: bool = False
    order = 2

    def init(self, x: Float32[Array, "b *d"]) -> History:
        """The carry before the first step."""
        return empty_history(x, self.order - 1)

    def step(
        self,
        carry: History,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> History:
        """Algorithm 2, lines 8 to 10: x0 as it would be half a step ahead,
        D = x0 + h / (2 h_before) (x0 - x0_before), and x' = sigma' / sigma x + alpha' (1 - e^-h) D.
        """
        prediction = denoise(carry.x, level)
        x0 = prediction.x0
        lam = log_snr(level)
        h = log_snr(next_level) - lam
        first_order = is_first_order(level, next_level) | (carry.num_values == 0)
        if self.lower_order_final:
            first_order = first_order | next_level.final
        share = jnp.where(first_order, 0.0, h / (2 * (lam - carry.nodes[0])))
        down, std = sde_step(level, next_level, self.eta)
        x = ddim_update(carry.x, prediction, level, down)
        x = x + x0_coefficient(level, down) * share * (x0 - carry.values[0])
        x = x if noise is None else x + std * noise
        return remember(carry, x, x0, x0, lam, level)


@dataclasses.dataclass(frozen=True)
class DPMSolverPP3M(_OverX0):
    """SDE-DPM-Solver++(3M): x0 is the polynomial in lambda through its last three values.

    The variation of constants of Lu 2022b, eq. 9 and for eta 1 section 5, integrated exactly. The
    multistep formulas of third order in Lu's code, diffusers and k-diffusion take half of the
    second derivative, which makes them of second order; this one is of third for eta 0.
    """

    order = 3

    def init(self, x: Float32[Array, "b *d"]) -> History:
        """The carry before the first step."""
        return empty_history(x, self.order - 1)

    def step(
        self,
        carry: History,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> History:
        """x' = sigma' / sigma x + alpha' (1 - e^-h) sum_k w_k x0_k, the w_k under e^lambda; with
        noise sigma' is what is kept of it, and the weight e^((1 + eta) lambda)."""
        prediction = denoise(carry.x, level)
        x0 = prediction.x0
        lam = log_snr(level)
        h = log_snr(next_level) - lam
        values, nodes = (x0, *carry.values), (lam, *carry.nodes)
        u = [(node - lam) / h for node in nodes]
        first_order = is_first_order(level, next_level) | (h == 0)
        count = jnp.where(first_order, 1, carry.num_values + 1)
        down, std = sde_step(level, next_level, self.eta)
        x = ddim_update(carry.x, prediction, level, down)
        change = mean_change(values, u, (1 + self.eta) * h, count)
        x = x + x0_coefficient(level, down) * change
        x = x if noise is None else x + std * noise
        return remember(carry, x, x0, x0, lam, level)
