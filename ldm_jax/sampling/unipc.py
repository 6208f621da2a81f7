"""UniPC: a multistep predictor whose next evaluation also corrects the step that led to it."""

import dataclasses
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int

from ldm_jax.core.typing import Denoise, Level
from ldm_jax.sampling.solver_base import (
    BaseSolver,
    History,
    ddim_update,
    empty_history,
    is_first_order,
    log_snr,
    mean_change,
    remember,
    x0_coefficient,
)

Scale = Literal["bh1", "bh2"]


class Carry(NamedTuple):
    """The predicted examples, what was evaluated, and how the step there began."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]
    history: History
    predicted: Float32[Array, "b ..."]
    """What the predictor added to `ddim_update` for the change of x0."""
    coefficient: Float32[Array, ""]
    """`x0_coefficient` of the step; 0 where there is nothing to correct."""
    scaled: Float32[Array, ""]
    """The same as `bh1` or `bh2` approximates it, where one difference is all there is."""
    order: Int[Array, ""]
    """Of the predictor's step that led here."""


@dataclasses.dataclass(frozen=True)
class UniPC(BaseSolver):
    """Zhao 2023 (arXiv:2302.04867), algorithms 1 and 2, over x0: UniPC-p with p = 2 or 3.

    The correction at a level needs no evaluation but the one for the step ahead, and the final
    level has none. Where the weights follow from the orders alone (section 3.3) the correction
    and the prediction are polynomials in lambda integrated exactly; `scale` is B(h) of the two
    cases of one difference, whose weight 1/2 the paper fixes: h or e^h - 1, by their names in its
    code. p is `predictor_order`; the correction makes one more of it. Raises ValueError for
    another p or scale.
    """

    predictor_order: int = 2
    scale: Scale = "bh2"

    def __post_init__(self) -> None:
        if self.predictor_order not in (2, 3):
            raise ValueError(f"predictor_order is {self.predictor_order}; it must be 2 or 3")
        if self.scale not in get_args(Scale):
            raise ValueError(f"scale is {self.scale!r}; it must be one of {get_args(Scale)}")

    @property
    def order(self) -> int:
        """p + 1."""
        return self.predictor_order + 1

    def init(self, x: Float32[Array, "b *d"]) -> Carry:
        """The carry before the first step."""
        zero = jnp.zeros((), jnp.float32)
        history = empty_history(x, self.predictor_order)
        return Carry(x, history.x0, history, history.x0, zero, zero, jnp.ones((), jnp.int32))

    def step(
        self,
        carry: Carry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> Carry:
        """Corrects the step that led here (UniC), then predicts the next x (UniP)."""
        prediction = denoise(carry.x, level)
        x0 = prediction.x0
        lam = log_snr(level)
        x = self._corrected(carry, x0, lam)
        # At the corrected x the same x0 leaves another eps.
        eps = prediction.eps + (x - carry.x) / level.sigma
        along = prediction._replace(eps=eps)
        x = ddim_update(x, along, level, next_level)

        h = log_snr(next_level) - lam
        most, past = self.predictor_order, carry.history
        first_order = is_first_order(level, next_level) | (h == 0)
        order = jnp.where(first_order, 1, jnp.minimum(past.num_values + 1, most))
        coefficient = jnp.where(first_order, 0.0, x0_coefficient(level, next_level))
        scaled = coefficient
        if self.scale == "bh1":
            scaled = jnp.where(first_order, 0.0, next_level.alpha * h)
        values, nodes = (x0, *past.values)[:most], (lam, *past.nodes)[:most]
        u = [(node - lam) / h for node in nodes]
        half = jnp.where(order == 2, -scaled / (2 * u[1]), 0.0) * (x0 - values[1])
        exact = mean_change(values, u, h, jnp.where(order > 2, order, 1))
        predicted = half + coefficient * exact
        history = remember(past, x + predicted, x0, x0, lam, level)
        return Carry(history.x, x0, history, predicted, coefficient, scaled, order)

    def _corrected(
        self, carry: Carry, x0: Float32[Array, "b *d"], lam: Float32[Array, ""]
    ) -> Float32[Array, "b *d"]:
        """Algorithm 1: the step again, with x0 as it turned out at its end."""
        past = carry.history
        began = past.nodes[0]
        h = lam - began
        # The end comes second, so that `mean_change` takes it before the older ones.
        values = (past.values[0], x0, *past.values[1:])
        u = [(node - began) / h for node in (began, lam, *past.nodes[1:])]
        exact = mean_change(values, u, h, jnp.where(carry.order == 1, 1, carry.order + 1))
        half = jnp.where(carry.order == 1, carry.scaled / 2, 0.0) * (x0 - past.values[0])
        corrected = carry.x - carry.predicted + half + carry.coefficient * exact
        return jnp.where(carry.coefficient == 0, carry.x, corrected)
