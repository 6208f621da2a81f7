"""Vector quantisation: each latent becomes the nearest of learned vectors."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.lax import stop_gradient
from jaxtyping import Array, Float, Int

from ldm_jax import config as cfg
from ldm_jax.models.bottlenecks.interface import Quantized, straight_through

# Latents of an image whose distances to the whole codebook are held at once.
ROWS = 128


class Codebook(nn.Module):
    """Replaces each latent by the nearest learned vector (van den Oord 2017, eq. 1 and 2).

    The loss is eq. 3 there without the reconstruction: the codebook term draws vectors to their
    latents, the commitment term latents to their vectors. Vectors that are moving averages
    (`ema_decay`, appendix A.1 there) get no gradient: no codebook term, and none from the decoder.
    With `code_dim` vectors are compared in a projection of the latents, with `cosine` both at
    length 1 (Yu 2022, section 3.2).
    """

    config: cfg.VQ
    features: int
    """Channels of a latent."""

    def setup(self) -> None:
        size, narrow = self.config.size, self.config.code_dim
        init = partial(jax.random.uniform, minval=-1 / size, maxval=1 / size)
        self.embedding = nn.Embed(size, narrow or self.features, embedding_init=init)
        if narrow is not None:
            self.project_in = nn.Dense(narrow)
            self.project_out = nn.Dense(self.features)

    def __call__(self, latents: Float[Array, "b h w z"]) -> Quantized:
        z, vectors = self._inward(latents.astype(jnp.float32)), self._vectors()
        found = self._search(stop_gradient(z), stop_gradient(vectors))
        codes = vectors[found]
        commitment = jnp.mean((stop_gradient(codes) - z) ** 2)
        codebook = jnp.mean((codes - stop_gradient(z)) ** 2)
        loss = {
            "paper": codebook + self.config.beta * commitment,
            "legacy": commitment + self.config.beta * codebook,
        }[self.config.weighting]
        terms = {"commitment": commitment, "codebook": codebook}
        if self.config.ema_decay is not None:
            loss, terms = self.config.beta * commitment, {"commitment": commitment}
        passed = self._outward(straight_through(z, codes))
        return Quantized(passed, found, stop_gradient(z), loss, terms)

    def lookup(self, indices: Int[Array, "b h w"]) -> Float[Array, "b h w z"]:
        """What the decoder takes for these codes."""
        return self._outward(self._vectors()[indices])

    def _vectors(self) -> Float[Array, "k d"]:
        """All vectors, as they are compared."""
        vectors = self.embedding.embedding
        if self.config.ema_decay is not None:
            vectors = stop_gradient(vectors)
        return unit(vectors) if self.config.cosine else vectors

    def _inward(self, z: Float[Array, "b h w z"]) -> Float[Array, "b h w d"]:
        z = z if self.config.code_dim is None else self.project_in(z)
        return unit(z) if self.config.cosine else z

    def _outward(self, codes: Float[Array, "b h w d"]) -> Float[Array, "b h w z"]:
        return codes if self.config.code_dim is None else self.project_out(codes)

    def _search(
        self, z: Float[Array, "b h w d"], vectors: Float[Array, "k d"]
    ) -> Int[Array, "b h w"]:
        # Image by image, so that images stay on the devices that have them.
        rows = z.reshape(z.shape[0], -1, z.shape[-1])
        return jax.vmap(partial(nearest, vectors=vectors))(rows).reshape(z.shape[:-1])


def nearest(z: Float[Array, "n z"], vectors: Float[Array, "k z"]) -> Int[Array, " n"]:
    """Index of the vector at the least Euclidean distance of each z, the lowest if several are.

    Differences are squared and added in float32, one coordinate after the other: published
    codebooks have 3 to 8. The usual |z|² − 2 z·e + |e|² loses digits where vectors are close,
    and on TPU most of them in the matrix product.
    """

    def one(z: Float[Array, " z"]) -> Int[Array, ""]:
        return jnp.argmin(sum((z[i] - vectors[:, i]) ** 2 for i in range(z.shape[0])))

    return jax.lax.map(one, z, batch_size=ROWS)


def unit(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """`x` at length 1; zeros stay zeros, with gradients that are finite."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), 1e-24))
