"""Gradients over micro-batches, and the optimiser updates that both stages share."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ldm_jax.training.norms import norms
from ldm_jax.training.state import TrainState, update_ema

Metrics = dict[str, Float[Array, ""]]
LossFunction = Callable[[Any, Any], tuple[Float[Array, ""], Metrics]]


def over_parts(
    function: Callable[[Any], tuple[Any, Any]], batch: Any, accumulation: int
) -> tuple[Any, Any]:
    """`means, rows = function(part)` over micro-batches: the means averaged, the rows put together.

    The batch's leading axis is split into `accumulation` equal parts, which run one after the
    other under `lax.scan`; example i goes to part `i % accumulation`, so that each part stays
    spread over all devices. Draws are keyed by example, so the split changes no number drawn.
    Rows, one of an example each, come back in the batch's order.
    """
    if accumulation == 1:
        return function(batch)

    def split(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(-1, accumulation, *x.shape[1:]), 1, 0)

    def join(x: Array) -> Array:
        return jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])

    def add(total: Any, part: Any) -> tuple[Any, Any]:
        means, rows = function(part)
        return jax.tree.map(jnp.add, total, means), rows

    parts = jax.tree.map(split, batch)
    first = jax.tree.map(lambda x: x[0], parts)
    shapes, _ = jax.eval_shape(function, first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, rows = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: x / accumulation, total), jax.tree.map(join, rows)


def accumulated_gradients(
    loss: LossFunction, params: Any, batch: Any, accumulation: int
) -> tuple[Any, Metrics]:
    """Gradients and metrics of `loss(params, batch)`, averaged over micro-batches."""
    gradient = partial(jax.grad(loss, has_aux=True), params)
    return over_parts(lambda part: (gradient(part), ()), batch, accumulation)[0]


def descend(
    optimizer: optax.GradientTransformation,
    gradients: Any,
    opt_state: Any,
    params: Any,
    norm_depth: int = 0,
) -> tuple[Any, Any, Metrics]:
    """Parameters and optimiser after one step, and the norms of the gradient, before it is clipped,
    and of the update: global ones, and those of parts down to `norm_depth` levels."""
    # Optax multiplies float32 moments by its integer step counters.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = optimizer.update(gradients, opt_state, params)
    told = norms(gradients, "gradient_norm", norm_depth) | norms(updates, "update_norm", norm_depth)
    return optax.apply_updates(params, updates), opt_state, told


def apply_gradients(
    state: TrainState,
    gradients: Any,
    optimizer: optax.GradientTransformation,
    ema_decay: float | None,
    norm_depth: int = 0,
) -> tuple[TrainState, Metrics]:
    """The state after one optimiser step on its parameters, with `descend`'s norms."""
    params, opt_state, told = descend(
        optimizer, gradients, state.opt_state, state.params, norm_depth
    )
    ema_params = state.ema_params
    if ema_decay is not None:
        ema_params = update_ema(ema_params, params, state.step, ema_decay)
    state = state.replace(
        step=state.step + 1, params=params, ema_params=ema_params, opt_state=opt_state
    )
    return state, told
