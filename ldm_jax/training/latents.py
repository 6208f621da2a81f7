"""The latents of a batch, whether it holds images or what the first stage has made of them."""

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from ldm_jax import config as cfg
from ldm_jax.core import rngs
from ldm_jax.data.encoded_latents import LatentsSource, encoder_hash
from ldm_jax.data.mixtures import single_sources
from ldm_jax.data.sources import Source
from ldm_jax.latent_diffusion import LatentDiffusion, Params, sample_posterior
from ldm_jax.models.autoencoder import Autoencoder
from ldm_jax.models.bottlenecks import Gaussian, Point, gaussian
from ldm_jax.models.conditioners import Inputs
from ldm_jax.models.pixels import Pixels, to_pixels


def posterior_noise(
    seed: int, index: UInt32[Array, "b"], shape: tuple[int, ...]
) -> Float[Array, "b zh zw z"]:
    """The standard normal draws with which example `index` is sampled from its posterior."""
    return rngs.normal(rngs.example_keys(rngs.stream(seed, "posterior"), index), shape)


def encoded_batch(
    autoencoder: Autoencoder | Pixels, params: Any, batch: Mapping[str, Any]
) -> Gaussian | Point:
    """The unscaled latents of a batch of b examples.

    An encoded batch has mean and log-variance one after the other along its channels, which are
    then twice those of latents, or latents alone. The encoder is not run for it.
    """
    if "image" in batch:
        return autoencoder.apply({"params": params}, to_pixels(batch["image"]), method="encode")
    encoded = batch["encoded"].astype(jnp.float32)
    channels = autoencoder.config.latent_channels
    return gaussian(encoded) if encoded.shape[-1] == 2 * channels else Point(encoded)


def batch_latents(
    autoencoder: Autoencoder | Pixels,
    frozen: Params,
    batch: Mapping[str, Any],
    seed: int,
) -> Float[Array, "b zh zw z"]:
    """Scaled latents of a batch, each sampled with the noise of its index."""
    posterior = encoded_batch(autoencoder, frozen["autoencoder"], batch)
    noise = posterior_noise(seed, batch["index"], posterior.mode.shape[1:])
    return sample_posterior(frozen, posterior, noise)


def batch_inputs(
    model: LatentDiffusion,
    batch: Mapping[str, Any],
    inputs: Inputs,
    seed: int,
    shape: tuple[int, int, int],
) -> Inputs:
    """`inputs` of a batch with what conditioners of pictures read beside them: the images of the
    batch, and noise of each index; `shape` is that of latents."""
    if "image" in model.config.inputs:
        inputs = {**inputs, "image": batch["image"]}
    return model.with_noise(inputs, seed, "train", batch["index"], shape)


def check_encoder(
    source: Source | None,
    params: Mapping[str, Any],
    wanted: Literal["latents", "codes"] = "latents",
) -> None:
    """Raises ConfigError where `source` holds what another encoder than that in `params` made, or
    codes where `wanted` are latents, or the reverse."""
    for one in single_sources(source):
        if isinstance(one, LatentsSource):
            _check_encoder(one, params, wanted)


def _check_encoder(
    source: LatentsSource, params: Mapping[str, Any], wanted: Literal["latents", "codes"]
) -> None:
    there = "codes" if source.index.kind == "codes" else "latents"
    found, expected = source.index.encoder, encoder_hash(params)
    if found != expected:
        raise cfg.ConfigError(
            f"{source.folder} has {there} from another first stage (encoder {found[:16]}) than "
            f"this one (encoder {expected[:16]}); use the first stage that encoded them, or "
            "encode the images again with this one"
        )
    if there != wanted:
        needs = {
            "latents": "a diffusion model needs the latents before quantisation",
            "codes": "a transformer over codes needs these",
        }[wanted]
        raise cfg.ConfigError(
            f"{source.folder} has {there}; {needs}: encode the images with --what={wanted}"
        )
