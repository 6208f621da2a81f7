"""How errors of pixels and of features become the one number that an autoencoder minimises.

The published code has two reductions, a sum for KL and a mean for VQ, and their weights are only
comparable with their own kind. The third, `per_pixel`, has weights that mean the same at every
image size.

The perceptual error (LPIPS) is one number per image and is added to each of its pixel errors.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def l1(image: Float[Array, "b h w c"], target: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """The absolute error of each value, in float32."""
    return jnp.abs(image.astype(jnp.float32) - target.astype(jnp.float32))


def l2(image: Float[Array, "b h w c"], target: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """The squared error of each value, in float32."""
    return (image.astype(jnp.float32) - target.astype(jnp.float32)) ** 2


def binary_cross_entropy(
    logits: Float[Array, "b h w c"], target: Float[Array, "b h w c"]
) -> Float[Array, ""]:
    """The mean over all values of the cross-entropy, in nats, of targets between 0 and 1."""
    logits = logits.astype(jnp.float32)
    return jnp.mean(jax.nn.softplus(logits) - logits * target)


def published_kl(
    error: Float[Array, "b h w c"],
    perceptual: Float[Array, "b"],
    perceptual_weight: float,
    logvar: float | Float[Array, ""] = 0.0,
) -> Float[Array, ""]:
    """The sum over an image of error / exp(logvar) + logvar, averaged over the batch.

    The loss of the published KL autoencoders (Rombach 2022, `LPIPSWithDiscriminator`): the
    negative log-likelihood of a Laplace distribution but for constants. There `logvar` is called
    a parameter but is given to no optimiser, so that it stays at 0.
    """
    return _nll(error, perceptual, perceptual_weight, logvar).sum() / error.shape[0]


def published_vq(
    error: Float[Array, "b h w c"], perceptual: Float[Array, "b"], perceptual_weight: float
) -> Float[Array, ""]:
    """The mean over all values: the loss of the published VQ autoencoders (Esser 2021)."""
    return jnp.mean(_with_features(error, perceptual, perceptual_weight))


def per_pixel(
    error: Float[Array, "b h w c"],
    perceptual: Float[Array, "b"],
    perceptual_weight: float,
    logvar: float | Float[Array, ""] = 0.0,
) -> Float[Array, ""]:
    """`published_kl` divided by the values of an image, so that it does not grow with them.

    With `divergence_per_value`, weights found at one image size serve at another.
    """
    return _nll(error, perceptual, perceptual_weight, logvar).mean()


def divergence_per_image(divergence: Float[Array, "b"]) -> Float[Array, ""]:
    """The mean over images of the summed divergence, in nats, which goes with `published_kl`."""
    return jnp.mean(divergence)


def divergence_per_value(divergence: Float[Array, "b"], values: int) -> Float[Array, ""]:
    """The same for each of the `values` of an image's latents, which goes with `per_pixel`."""
    return jnp.mean(divergence) / values


def _nll(
    error: Array, perceptual: Array, perceptual_weight: float, logvar: float | Array
) -> Float[Array, "b h w c"]:
    return _with_features(error, perceptual, perceptual_weight) / jnp.exp(logvar) + logvar


def _with_features(
    error: Array, perceptual: Array, perceptual_weight: float
) -> Float[Array, "b h w c"]:
    return error + perceptual_weight * perceptual[:, None, None, None]
