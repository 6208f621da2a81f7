"""UniPC: a multistep predictor whose next evaluation also corrects the step that led to it."""

import dataclasses
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int

from ldm_jax.core.typing import Denoise, Level
from ldm_jax.sampling.history import History, remember, start
from ldm_jax.sampling.interpolation import change
from ldm_jax.sampling.moves import bare, gain_of_x0, log_snr, move
from ldm_jax.sampling.once import Once

Scale = Literal["bh1", "bh2"]


class Carry(NamedTuple):
    """The predicted examples, what was evaluated, and how the step there began."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]
    history: History
    ahead: Float32[Array, "b ..."]
    """What the predictor added to x for the change of x0."""
    gain: Float32[Array, ""]
    """What the step multiplies a change of x0 by; 0 where there is nothing to correct."""
    scaled: Float32[Array, ""]
    """The same as `bh1` or `bh2` approximates it, where one difference is all there is."""
    order: Int[Array, ""]
    """Of the step that led here."""


@dataclasses.dataclass(frozen=True)
class UniPC(Once):
    """Zhao 2023 (arXiv:2302.04867), algorithms 1 and 2, over x0: UniPC-p with p = `order`, 2 or 3.

    The correction at a level needs no evaluation but the one for the step ahead, and the final
    level has none. Where the weights follow from the orders alone (section 3.3) the correction
    and the prediction are polynomials in lambda integrated exactly; `scale` is B(h) of the two
    cases of one difference, whose weight 1/2 the paper fixes: h or e^h - 1, by their names in its
    code. Raises ValueError for another order or scale.
    """

    order: int = 2
    scale: Scale = "bh2"

    def __post_init__(self) -> None:
        if self.order not in (2, 3):
            raise ValueError(f"order is {self.order}; it must be 2 or 3")
        if self.scale not in get_args(Scale):
            raise ValueError(f"scale is {self.scale!r}; it must be one of {get_args(Scale)}")

    def init(self, x: Float32[Array, "b *d"]) -> Carry:
        """The carry before the first step."""
        none = jnp.zeros((), jnp.float32)
        history = start(x, self.order)
        return Carry(x, history.x0, history, history.x0, none, none, jnp.ones((), jnp.int32))

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
        here = log_snr(level.alpha, level.sigma)
        x = self._corrected(carry, x0, here)
        # At the corrected x the same x0 leaves another eps.
        eps = prediction.eps + (x - carry.x) / level.sigma
        along = prediction._replace(eps=eps)
        x = move(x, along, level, next_level.alpha, next_level.sigma)

        h = log_snr(next_level.alpha, next_level.sigma) - here
        past, alone = carry.history, bare(level, next_level) | (h == 0)
        order = jnp.where(alone, 1, jnp.minimum(past.known + 1, self.order))
        gain = gain_of_x0(level, next_level.alpha, next_level.sigma)
        gain = jnp.where(alone, 0.0, gain)
        scaled = jnp.where(alone, 0.0, next_level.alpha * h) if self.scale == "bh1" else gain
        values, nodes = (x0, *past.values)[: self.order], (here, *past.nodes)[: self.order]
        at = [(node - here) / h for node in nodes]
        half = jnp.where(order == 2, -scaled / (2 * at[1]), 0.0) * (x0 - values[1])
        ahead = half + gain * change(values, at, h, jnp.where(order > 2, order, 1))
        history = remember(past, x + ahead, x0, x0, here, level)
        return Carry(history.x, x0, history, ahead, gain, scaled, order)

    def _corrected(
        self, carry: Carry, x0: Float32[Array, "b *d"], here: Float32[Array, ""]
    ) -> Float32[Array, "b *d"]:
        """Algorithm 1: the step again, with x0 as it turned out at its end."""
        past = carry.history
        began = past.nodes[0]
        h = here - began
        # The end comes second, so that `change` takes it before the older ones.
        values = (past.values[0], x0, *past.values[1:])
        at = [(node - began) / h for node in (began, here, *past.nodes[1:])]
        exact = change(values, at, h, jnp.where(carry.order == 1, 1, carry.order + 1))
        half = jnp.where(carry.order == 1, carry.scaled / 2, 0.0) * (x0 - past.values[0])
        corrected = carry.x - carry.ahead + half + carry.gain * exact
        return jnp.where(carry.gain == 0, carry.x, corrected)
