"""What tells the U-Net what to draw: the condition, and the small modules that make one."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int


class Condition(NamedTuple):
    """What the U-Net is conditioned on; what is None is absent."""

    context: Float[Array, "b l d"] | None = None
    """Tokens for cross-attention."""
    pooled: Float[Array, "b p"] | None = None
    """A vector that is projected and added to the time embedding."""
    label: Int[Array, " b"] | None = None
    """A class whose embedding is added to the time embedding."""
    concat: Float[Array, "b h w c"] | None = None
    """An image of the latents' size that is concatenated to them."""


class NoCondition(nn.Module):
    """The empty condition, whatever the input; has no parameters."""

    def __call__(self, inputs: Int[Array, " b"]) -> Condition:
        return Condition()


class ClassLabel(nn.Module):
    """Labels as they are, for the U-Net's own class embedding; has no parameters."""

    def __call__(self, labels: Int[Array, " b"]) -> Condition:
        return Condition(label=labels)


class ClassToken(nn.Module):
    """A learned context of one token for each class; the last class is the unconditional one."""

    class_count: int
    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, labels: Int[Array, " b"]) -> Condition:
        init = nn.initializers.normal(1.0)
        embedding = nn.Embed(
            self.class_count, self.width, dtype=self.dtype, embedding_init=init, name="embedding"
        )
        return Condition(context=embedding(labels)[:, None])
