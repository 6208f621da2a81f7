"""The training state: one pytree of everything that a step changes."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


@flax.struct.dataclass
class TrainState:
    """Step counter (also the parameter average's), parameters, their average, optimiser, and what
    the stage alone has.

    The leaves are arrays, or what stands for them: shapes, shardings, checkpoint entries.
    """

    step: Any
    params: Any
    ema_params: Any
    """The average, or an empty dict where the run keeps none."""
    opt_state: optax.OptState
    own: Any = flax.struct.field(default_factory=dict)
    """What the stage keeps beside: stage one its discriminator and what its codebook has gathered
    (`autoencoder_step.Own`), stage two the losses that times are drawn by
    (`timesteps.SecondMoment`); an empty dict for nothing."""

    @property
    def eval_params(self) -> Any:
        """The parameters to sample and evaluate with: the average where there is one."""
        return self.ema_params if self.ema_params else self.params


def create_state(
    params: Any, optimizer: optax.GradientTransformation, ema_decay: float | None
) -> TrainState:
    """The state before the first step; the average starts as a copy of `params`."""
    ema_params = {} if ema_decay is None else jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema_params, optimizer.init(params))


def ema_decay_at(step: Int[Array, ""], decay: float) -> Float[Array, ""]:
    """Decay of the parameter average after `step` updates: min(decay, (1 + n) / (10 + n)).

    The warm-up of CompVis' LitEma: early averages forget the initialisation.
    """
    n = step.astype(jnp.float32)
    return jnp.minimum(jnp.float32(decay), (1 + n) / (10 + n))


def update_ema(ema_params: Any, params: Any, step: Int[Array, ""], decay: float) -> Any:
    """Moves the average towards `params` by `1 - ema_decay_at(step, decay)`."""
    keep = ema_decay_at(step, decay)
    return jax.tree.map(lambda ema, new: ema + (1 - keep) * (new - ema), ema_params, params)
