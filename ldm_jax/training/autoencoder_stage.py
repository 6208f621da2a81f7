"""Stage one as the handful of functions that the one loop needs."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.convert.parts import first_stage_params
from ldm_jax.core import rngs
from ldm_jax.data.sources import open_source
from ldm_jax.models.build import build_autoencoder
from ldm_jax.training.autoencoder_loss import AutoencoderLoss
from ldm_jax.training.autoencoder_step import create_autoencoder_state, make_autoencoder_step
from ldm_jax.training.gradients import Metrics
from ldm_jax.training.stage import Stage, tell_obstacles, validation_source, wait_for_all
from ldm_jax.training.state import TrainState
from ldm_jax.training.trainable import bind, split
from ldm_jax.workdir.frozen import load_frozen, load_untrained, save_frozen, save_untrained
from ldm_jax.workdir.layout import PERCEPTUAL, WEIGHTS
from ldm_jax.workdir.record import has_checkpoints

Loader = Callable[[], Any]


def autoencoder_stage(
    run: cfg.AutoencoderRun,
    workdir: Path,
    init: str | None = None,
    perceptual: Loader | None = None,
) -> Stage:
    """Stage one: an autoencoder on images.

    Args:
        run: its config.
        workdir: where a copy of LPIPS' parameters is kept.
        init: a model whose autoencoder a new run begins with.
        perceptual: gives LPIPS' parameters; asked for only by a new run.

    Raises:
        cfg.ConfigError: a decoder is to be fine-tuned, but nothing trained is given.
        CheckpointError: the copy of LPIPS' parameters is damaged.
    """
    autoencoder = build_autoencoder(
        run.autoencoder, dtype=jnp.dtype(run.loop.dtype), remat=run.loop.remat
    )
    fresh, losses = not has_checkpoints(workdir), AutoencoderLoss(autoencoder, run)
    if fresh and run.train == "decoder" and init is None:
        raise cfg.ConfigError(
            "train is 'decoder', but there is no encoder to train it for: name a trained first "
            "stage with --init=MODEL"
        )
    initial = None
    if fresh:
        initial = _begin(run, workdir, init)
        tell_obstacles(run.autoencoder)
    frozen = {"untrained": load_untrained(run, workdir)}
    if run.loss.perceptual is not None:
        frozen["perceptual"] = _perceptual(workdir, fresh, perceptual)

    def begin(initial: Any) -> TrainState:
        params = fresh_params(losses)
        if initial is not None:
            params = jax.tree.map(jnp.asarray, initial)
        return create_autoencoder_state(run, params)

    def scores(params: Any, frozen: Any, batch: Any) -> Metrics:
        return losses.scores(bind(params, frozen), frozen, batch)

    return Stage(
        init=begin,
        step=make_autoencoder_step(autoencoder, run),
        scores=scores,
        pictures=lambda params, frozen, batch: pictures(losses, bind(params, frozen), batch),
        frozen=frozen,
        train=open_source(run.data, "train"),
        validation=validation_source(run.data),
        inputs=None,
        initial=initial,
    )


def _begin(run: cfg.AutoencoderRun, workdir: Path, init: str | None) -> Any:
    """What a new run trains of the model `init`, or None; the rest is written into `workdir`."""
    if init is None:
        return None
    trained, untrained = split(first_stage_params(init, run.autoencoder), run.train)
    if run.train != "all":
        save_untrained(workdir, untrained)
        wait_for_all("frozen parts")
    return trained


def fresh_params(losses: AutoencoderLoss) -> Any:
    """Parameters of the autoencoder drawn from a named stream of the run's seed."""
    run = losses.run
    key = rngs.stream(run.loop.seed, "init/autoencoder")
    image = jnp.zeros((1, *run.data.sides, run.autoencoder.image_channels), jnp.float32)
    return losses.autoencoder.init(key, image)["params"]


def pictures(losses: AutoencoderLoss, params: Any, batch: Any) -> dict[str, Any]:
    """Reconstructions by way of the mode under the originals; what the decoder makes of latents
    drawn from N(0, 1), or of codes drawn evenly; and each channel of the latents, lightest where
    it is largest."""
    apply, images = losses.autoencoder.apply, batch["image"]
    encoded = apply({"params": params}, ldm.to_pixels(images), method="encode")

    def decode(latents: Array) -> Array:
        return ldm.to_images(apply({"params": params}, latents, method="decode"))

    keys = rngs.example_keys(rngs.stream(losses.run.loop.seed, "prior"), batch["index"])
    shape, codes = losses.latent_shape(images), losses.run.autoencoder.codes
    if codes is None:
        prior = decode(rngs.normal(keys, shape))
    else:
        indices = rngs.randint(keys, shape[:2], 0, codes)
        prior = ldm.to_images(apply({"params": params}, indices, method="decode_codes"))
    return {
        "reconstructions": jnp.concatenate([images, decode(encoded.mode)]),
        "prior_samples": prior,
        "latents": channels_as_images(encoded.mode, losses.run.autoencoder.factor),
    }


def channels_as_images(latents: Float[Array, "b zh zw z"], factor: int) -> UInt8[Array, "n h w 3"]:
    """The channels of latents, one after the other for all of the batch, as grey pictures.

    Black is each channel's least value in the batch, white its largest.
    """
    low = jnp.min(latents, (0, 1, 2), keepdims=True)
    spread = jnp.max(latents, (0, 1, 2), keepdims=True) - low
    grey = (latents - low) / jnp.maximum(spread, 1e-12)
    grey = jnp.moveaxis(grey, -1, 0).reshape(-1, *latents.shape[1:3], 1)
    large = jnp.repeat(jnp.repeat(grey, factor, axis=1), factor, axis=2)
    return jnp.repeat(ldm.to_images(large * 2 - 1), 3, axis=-1)


def _perceptual(workdir: Path, fresh: bool, load: Loader | None) -> Any:
    """LPIPS' parameters: those given to a new run, which copies them, or the copy."""
    folder = workdir / PERCEPTUAL
    if not fresh:
        return load_frozen(folder, WEIGHTS)
    if load is None:
        raise cfg.ConfigError("loss.perceptual is set, but LPIPS' parameters are not given")
    params = load()
    if jax.process_index() == 0:
        shutil.rmtree(folder, ignore_errors=True)
        save_frozen(folder, WEIGHTS, params)
    return params
