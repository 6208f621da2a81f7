"""What an autoencoder minimises besides the discriminator's verdict, and what is measured of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from ldm_jax import config as cfg
from ldm_jax.core import rngs
from ldm_jax.losses import quality
from ldm_jax.losses import reconstruction as errors
from ldm_jax.models.autoencoder import Autoencoder
from ldm_jax.models.bottlenecks import Bottlenecked
from ldm_jax.models.lpips import LPIPS
from ldm_jax.models.pixels import one_hot, to_pixels
from ldm_jax.training.codebook_updates import code_metrics
from ldm_jax.training.gradients import Metrics
from ldm_jax.training.latents import posterior_noise

Images = Float[Array, "b h w c"]


@dataclass(frozen=True)
class AutoencoderLoss:
    """The autoencoder of one run and its losses; every method is a pure function."""

    autoencoder: Autoencoder
    run: cfg.AutoencoderRun

    def latent_shape(self, sides: Sequence[int]) -> tuple[int, int, int]:
        """Height, width and channels of the latents of an image with this height and width."""
        config, (height, width) = self.run.autoencoder, sides
        return height // config.factor, width // config.factor, config.latent_channels

    def pixels(self, batch: Any) -> Images:
        """What is encoded of a batch: its images in [-1, 1], or its class maps, one channel of 0
        and 1 for each class."""
        if self.run.maps is not None:
            return one_hot(batch["inputs"]["class_map"], self.run.maps.num_classes)
        return to_pixels(batch["image"])

    def reconstruct(self, params: Any, batch: Any) -> tuple[Images, Bottlenecked]:
        """The batch's images by way of a sample of their latents, and what passed the bottleneck.

        The draw is a function of the run's seed and the example's global index.
        """
        pixels = self.pixels(batch)
        noise = self.noise(batch["index"], self.latent_shape(pixels.shape[1:3]))
        return self.autoencoder.apply({"params": params}, pixels, noise)

    def noise(
        self, index: UInt32[Array, "b"], shape: tuple[int, int, int]
    ) -> Float[Array, "b zh zw n"] | None:
        """What the bottleneck draws with: normal for KL, Gumbel for each code, else nothing."""
        seed = self.run.loop.seed
        match self.run.autoencoder.bottleneck:
            case cfg.KL():
                return posterior_noise(seed, index, shape)
            case cfg.Gumbel(size=size):
                keys = rngs.example_keys(rngs.stream(seed, "posterior/gumbel"), index)
                return jax.vmap(lambda key: jax.random.gumbel(key, (*shape[:2], size)))(keys)
            case _:
                return None

    def penalty(self, passed: Bottlenecked) -> Float[Array, ""]:
        """The weighted loss of what passed the bottleneck."""
        weights = self.run.loss
        if not isinstance(self.run.autoencoder.bottleneck, cfg.KL):
            return weights.codebook_weight * passed.loss
        values = 1 if weights.reduction == "published_kl" else passed.latents[0].size
        return weights.kl_weight * errors.divergence_per_value(passed.posterior.kl(), values)

    def nll(
        self, frozen: Any, pixels: Images
    ) -> Callable[[Images], tuple[Float[Array, ""], Metrics]]:
        """`loss(image)`: weighted L1 and L2, and LPIPS, of reconstructions of `pixels`, reduced
        as the config says; and the terms, unweighted means. Of class maps it is the mean binary
        cross-entropy of pixels and classes, as for taming-transformers' segmentation models."""
        weights = self.run.loss
        if self.run.maps is not None:
            return lambda image: (errors.binary_cross_entropy(image, pixels), {})

        def loss(image: Images) -> tuple[Float[Array, ""], Metrics]:
            l1, l2 = errors.l1(image, pixels), errors.l2(image, pixels)
            metrics = {"l1": jnp.mean(l1), "l2": jnp.mean(l2)}
            error = weights.l1_weight * l1 + weights.l2_weight * l2
            distance, share = jnp.zeros(image.shape[0]), 0.0
            if weights.perceptual is not None:
                network = LPIPS(jnp.dtype(self.run.loop.dtype))
                distance = network.apply({"params": frozen["perceptual"]}, image, pixels)
                share = weights.perceptual.weight
                metrics["lpips"] = jnp.mean(distance)
            match weights.reduction:
                case "per_pixel":
                    return errors.per_pixel(error, distance, share, weights.logvar), metrics
                case "published_kl":
                    return errors.published_kl(error, distance, share, weights.logvar), metrics
                case "published_vq":
                    return errors.published_vq(error, distance, share), metrics

        return loss

    def measures(self, image: Images, pixels: Images, passed: Bottlenecked) -> Metrics:
        """What else is worth knowing of a batch: PSNR, or of class maps the share of pixels of the
        right class, and what the latents are like.

        `kl` is a mean over latent values, `kl_per_image` its sum over an image, in nats.
        """
        latents = passed.posterior.mode
        metrics = {"latent_mean": jnp.mean(latents), "latent_std": jnp.std(latents)}
        if self.run.maps is None:
            metrics["psnr"] = jnp.mean(quality.psnr(image, pixels))
        else:
            right = jnp.argmax(image, axis=-1) == jnp.argmax(pixels, axis=-1)
            metrics["accuracy"] = jnp.mean(right, where=jnp.any(pixels > 0, axis=-1))
        if isinstance(self.run.autoencoder.bottleneck, cfg.KL):
            kl = jnp.mean(passed.posterior.kl())
            return metrics | {"kl": kl / latents[0].size, "kl_per_image": kl}
        return metrics | passed.terms

    def scores(self, params: Any, frozen: Any, batch: Any) -> Metrics:
        """The loss without its adversarial part, every term of it, and of images PSNR and SSIM."""
        pixels = self.pixels(batch)
        image, passed = self.reconstruct(params, batch)
        nll, terms = self.nll(frozen, pixels)(image)
        metrics = {"loss": nll + self.penalty(passed), "nll": nll} | terms
        if self.run.maps is None and min(pixels.shape[1:3]) >= quality.WINDOW:
            metrics["ssim"] = jnp.mean(quality.ssim(image, pixels))
        metrics |= self.measures(image, pixels, passed)
        if passed.indices is not None:
            metrics |= code_metrics(self.run, passed.indices)
        return metrics
