"""Gradients over micro-batches, and the optimiser update that both stages share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ldm_jax.training.state import TrainState, update_ema

Metrics = dict[str, Float[Array, ""]]
LossFunction = Callable[[Any, Any], tuple[Float[Array, ""], Metrics]]


def accumulated_gradients(
    loss: LossFunction, params: Any, batch: Any, accumulation: int
) -> tuple[Any, Metrics]:
    """Gradients and metrics of `loss(params, batch)`, averaged over micro-batches.

    The batch's leading axis is split into `accumulation` equal parts, which run one after the
    other under `lax.scan`; example i goes to part `i % accumulation`, so that each part stays
    spread over all devices. Draws are keyed by example, so the split changes no number drawn.
    """
    gradient = jax.grad(loss, has_aux=True)
    if accumulation == 1:
        return gradient(params, batch)

    def split(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(-1, accumulation, *x.shape[1:]), 1, 0)

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(params, part)), None

    parts = jax.tree.map(split, batch)
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, params, first)
    )
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: x / accumulation, total)


def apply_gradients(
    state: TrainState,
    gradients: Any,
    optimizer: optax.GradientTransformation,
    ema_decay: float | None,
) -> tuple[TrainState, Metrics]:
    """The state after one optimiser step, with the gradient's and the update's global norms."""
    # Optax multiplies float32 moments by its integer step counters.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema_params = state.ema_params
    if ema_decay is not None:
        ema_params = update_ema(ema_params, params, state.step, ema_decay)
    norms = {
        "gradient_norm": optax.tree.norm(gradients),
        "update_norm": optax.tree.norm(updates),
    }
    return TrainState(state.step + 1, params, ema_params, opt_state), norms
