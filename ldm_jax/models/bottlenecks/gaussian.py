"""What encoders give: a diagonal Gaussian over latents, or latents that are certain."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Gaussian(NamedTuple):
    """A diagonal Gaussian over unscaled latents."""

    mean: Float[Array, "b h w z"]
    logvar: Float[Array, "b h w z"]

    @property
    def mode(self) -> Float[Array, "b h w z"]:
        """The likeliest latents: the mean."""
        return self.mean

    def sample(self, noise: Float[Array, "b h w z"]) -> Float[Array, "b h w z"]:
        """mean + std · noise (Kingma & Welling 2014, section 2.4)."""
        return self.mean + jnp.exp(0.5 * self.logvar) * noise

    def kl(self) -> Float[Array, " b"]:
        """Divergence from N(0, 1) of each example, summed over its latents, in nats."""
        terms = self.mean**2 + jnp.exp(self.logvar) - 1.0 - self.logvar
        return 0.5 * terms.sum((1, 2, 3))


class Point(NamedTuple):
    """Unscaled latents that are certain, before they are quantised."""

    mode: Float[Array, "b h w z"]

    def sample(self, noise: Float[Array, "_ h w n"]) -> Float[Array, "b h w z"]:
        """The latents, whatever the noise."""
        return self.mode


def gaussian(moments: Float[Array, "b h w z2"]) -> Gaussian:
    """The posterior of an encoder's output: mean, then logvar clamped to [-30, 20]."""
    mean, logvar = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
    return Gaussian(mean, jnp.clip(logvar, -30.0, 20.0))
