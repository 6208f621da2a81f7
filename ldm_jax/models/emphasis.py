"""What the weights of a prompt's tokens do to a text encoder's output."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def weigh(context: Float[Array, "b l d"], weights: Float[Array, "b l"]) -> Float[Array, "b l d"]:
    """Token states times their weights, then scaled so that the mean over tokens and channels is
    what it was: emphasis as AUTOMATIC1111's web UI has it, in float32, returned as it came.

    The mean is each example's own. The web UI takes one over the whole batch, but encodes one
    chunk of one prompt at a time, which is the same if `b` counts chunks. Weights that are all 1
    change no bit.
    """
    old = context.astype(jnp.float32)
    new = old * weights.astype(jnp.float32)[..., None]
    before, after = old.mean((1, 2), keepdims=True), new.mean((1, 2), keepdims=True)
    # The states of an encoder that puts out zeros have nothing to restore.
    ratio = jnp.where(after == 0, 1, before / jnp.where(after == 0, 1, after))
    return (new * ratio).astype(context.dtype)
