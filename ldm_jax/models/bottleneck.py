"""What stands between encoder and decoder: a Gaussian over latents (KL), or a codebook (VQ).

Encoders give a `Gaussian` or a `Point`; both have a `mode` and are sampled with given noise.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

# Latents of an image whose distances to the whole codebook are held at once.
ROWS = 128


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

    def sample(self, noise: Float[Array, "b h w z"]) -> Float[Array, "b h w z"]:
        """The latents, whatever the noise."""
        return self.mode


def gaussian(moments: Float[Array, "b h w z2"]) -> Gaussian:
    """The posterior of an encoder's output: mean, then logvar clamped to [-30, 20]."""
    mean, logvar = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
    return Gaussian(mean, jnp.clip(logvar, -30.0, 20.0))


class Quantized(NamedTuple):
    """Latents replaced by vectors of a codebook, and which ones."""

    latents: Float[Array, "b h w z"]
    indices: Int[Array, "b h w"]


class Codebook(nn.Module):
    """Replaces each latent by the nearest of `size` learned vectors (van den Oord 2017, eq. 1, 2).

    Gradients pass to the latents as if nothing had been replaced (section 3.2 there), and so do
    values that are not finite, for which no vector is the nearest.
    """

    size: int

    @nn.compact
    def __call__(self, latents: Float[Array, "b h w z"]) -> Quantized:
        bound = 1 / self.size
        init = partial(jax.random.uniform, minval=-bound, maxval=bound)
        z = latents.astype(jnp.float32)
        embed = nn.Embed(self.size, z.shape[-1], embedding_init=init, name="embedding")
        rows = jax.lax.stop_gradient(z).reshape(z.shape[0], -1, z.shape[-1])
        # Image by image, so that images stay on the devices that have them.
        search = jax.vmap(partial(nearest, vectors=jax.lax.stop_gradient(embed.embedding)))
        indices = search(rows).reshape(z.shape[:-1])
        return Quantized(z + jax.lax.stop_gradient(embed(indices) - z), indices)


def nearest(z: Float[Array, "n z"], vectors: Float[Array, "k z"]) -> Int[Array, " n"]:
    """Index of the vector at the least Euclidean distance of each z, the lowest if several are.

    Differences are squared and added in float32, one coordinate after the other: published
    codebooks have 3 to 8. The usual |z|² − 2 z·e + |e|² loses digits where vectors are close,
    and on TPU most of them in the matrix product.
    """

    def one(z: Float[Array, " z"]) -> Int[Array, ""]:
        return jnp.argmin(sum((z[i] - vectors[:, i]) ** 2 for i in range(z.shape[0])))

    return jax.lax.map(one, z, batch_size=ROWS)
