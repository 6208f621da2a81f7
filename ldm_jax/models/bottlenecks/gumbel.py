"""The Gumbel-softmax bottleneck: each latent draws one of learned vectors."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.lax import stop_gradient
from jaxtyping import Array, Float, Int

from ldm_jax import config as cfg
from ldm_jax.models.bottlenecks.interface import Quantized


class GumbelCodebook(nn.Module):
    """A vector drawn from the categorical distribution that a latent projects to (Jang 2017).

    With `noise`, as in training, the draw is relaxed: weights softmax((logits + noise) /
    temperature), eq. 2 there, or with `straight_through` the one vector of the largest weight
    with the gradients of the weights (section 2.2). Without noise it is the likeliest vector.
    The loss is the divergence of the distribution from the uniform one (Ramesh 2021, section 2.1),
    the mean over latents, in nats.
    """

    config: cfg.Gumbel
    features: int
    """Channels of a latent."""

    def setup(self) -> None:
        self.proj = nn.Dense(self.config.size)
        self.embed = nn.Embed(self.config.size, self.features)

    def __call__(
        self,
        latents: Float[Array, "b h w z"],
        noise: Float[Array, "b h w k"] | None = None,
        temperature: Float[Array, ""] | float | None = None,
    ) -> Quantized:
        """`noise`: standard Gumbel, one for each code; `temperature`: None is the config's."""
        latents = latents.astype(jnp.float32)
        logits = self.proj(latents)
        log_q = jax.nn.log_softmax(logits)
        divergence = jnp.sum(jnp.exp(log_q) * (log_q + jnp.log(self.config.size)), -1).mean()
        temperature = self.config.temperature if temperature is None else temperature
        drawn = logits if noise is None else logits + noise
        indices = jnp.argmax(drawn, -1)
        vectors = self.embed.embedding
        soft = jax.nn.softmax(drawn / temperature)
        hard = jax.nn.one_hot(indices, self.config.size)
        # Written so that the one vector is met exactly.
        weights = hard + (soft - stop_gradient(soft))
        if noise is not None and not self.config.straight_through:
            weights = soft
        passed = jnp.einsum("bhwk,kz->bhwz", weights, vectors, precision="highest")
        # Latents that are not finite have no likeliest vector.
        finite = jnp.isfinite(latents).all(-1, keepdims=True)
        passed = jnp.where(finite, passed, jnp.nan)
        loss, terms = self.config.kl_weight * divergence, {"uniform_kl": divergence}
        return Quantized(passed, indices, stop_gradient(latents), loss, terms)

    def lookup(self, indices: Int[Array, "b h w"]) -> Float[Array, "b h w z"]:
        """What the decoder takes for these codes."""
        return self.embed(indices)
