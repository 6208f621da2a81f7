"""Stage one as the handful of functions that the one loop needs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from ldm_jax import config as cfg
from ldm_jax.convert.parts import first_stage_params
from ldm_jax.core import rngs
from ldm_jax.core.distributed import wait_for_all
from ldm_jax.core.files import remove_folder
from ldm_jax.data.inputs import InputMaker, check_source
from ldm_jax.data.loader import TASK_SEED
from ldm_jax.data.sources import Example, Source, open_source
from ldm_jax.images.condition_views import class_colour
from ldm_jax.models.build import build_autoencoder
from ldm_jax.models.pixels import to_images
from ldm_jax.training.autoencoder_loss import AutoencoderLoss
from ldm_jax.training.autoencoder_step import create_autoencoder_state, make_autoencoder_step
from ldm_jax.training.gradients import Metrics
from ldm_jax.training.shown import SHOWN_EXAMPLES, shown_examples
from ldm_jax.training.stage import Shown, Stage, tell_obstacles, validation_source
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
            "train is 'decoder', but there is no trained encoder: name a trained first stage "
            "with --init=MODEL"
        )
    initial = None
    if fresh:
        initial = _begin(run, workdir, init)
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

    train = open_source(run.data, "train")
    validation = validation_source(run.data, train)
    check_source(run.conditioners, train, cfg.called(run.data.source))
    inputs = InputMaker(run.conditioners, None, run.data.sides) if run.conditioners else None
    if fresh:
        tell_obstacles(run.autoencoder)
    return Stage(
        init=begin,
        step=make_autoencoder_step(autoencoder, run),
        scores=scores,
        shown=_shown(losses, train, validation, inputs),
        frozen=frozen,
        train=train,
        validation=validation,
        inputs=inputs,
        initial=initial,
    )


def _begin(run: cfg.AutoencoderRun, workdir: Path, init: str | None) -> Any:
    """What a new run trains of the model `init`, or None; the rest is written into `workdir`."""
    if init is None:
        return None
    trained, untrained = split(first_stage_params(init, run.autoencoder), run)
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


def _shown(
    losses: AutoencoderLoss, train: Source, validation: Source | None, inputs: InputMaker | None
) -> tuple[Shown, ...]:
    """Reconstructions of training and of held-out images under the originals; each channel of the
    latents of the latter, lightest where it is largest; and what the decoder makes of latents drawn
    from N(0, 1), or of codes drawn evenly."""
    run = losses.run
    if not run.loop.sample_every:
        return ()
    apply, codes = losses.autoencoder.apply, run.autoencoder.codes

    def encode(params: Any, frozen: Any, batch: Any) -> Array:
        pixels = losses.pixels(batch)
        return apply({"params": bind(params, frozen)}, pixels, method="encode").mode

    def decode(params: Any, frozen: Any, latents: Array, method: str = "decode") -> Array:
        pixels = apply({"params": bind(params, frozen)}, latents, method=method)
        return to_images(pixels) if run.maps is None else in_colours(pixels)

    def reconstruct(params: Any, frozen: Any, batch: Any) -> Array:
        decoded = decode(params, frozen, encode(params, frozen, batch))
        original = batch["image"] if run.maps is None else in_colours(losses.pixels(batch))
        return jnp.stack([original, decoded])

    def latents(params: Any, frozen: Any, batch: Any) -> Array:
        return channels_as_images(encode(params, frozen, batch), run.autoencoder.factor)

    def prior(params: Any, frozen: Any, batch: Any) -> Array:
        keys = rngs.example_keys(rngs.stream(run.loop.seed, "prior"), batch["index"])
        shape = losses.latent_shape(run.data.sides)
        if codes is None:
            return decode(params, frozen, rngs.normal(keys, shape))[None]
        indices = rngs.randint(keys, shape[:2], 0, codes)
        return decode(params, frozen, indices, "decode_codes")[None]

    sets = [
        Shown(name, reconstruct, _batch(examples, inputs))
        for name, examples in shown_examples(run.data, train, validation)
    ]
    index = np.arange(SHOWN_EXAMPLES, dtype=np.uint32)
    return (
        *sets,
        Shown("latents", latents, sets[-1].batch),
        Shown("prior_samples", prior, {"index": index}),
    )


def _batch(examples: Sequence[Example], inputs: InputMaker | None) -> dict[str, Any]:
    """What is encoded of examples."""
    if inputs is None:
        return {"image": np.stack([one["image"] for one in examples])}
    maps = [inputs(one, place, TASK_SEED)["class_map"] for place, one in enumerate(examples)]
    return {"inputs": {"class_map": np.stack(maps)}}


def in_colours(pixels: Float[Array, "b h w k"]) -> UInt8[Array, "b h w 3"]:
    """Of each pixel the colour of its largest channel: a class map as a picture."""
    colours = np.array([class_colour(n) for n in range(pixels.shape[-1])], np.uint8)
    return jnp.asarray(colours)[jnp.argmax(pixels, axis=-1)]


def channels_as_images(
    latents: Float[Array, "b zh zw z"], factor: int
) -> UInt8[Array, "z b h w 3"]:
    """Each channel of latents as grey pictures.

    Black is each channel's least value in the batch, white its largest.
    """
    low = jnp.min(latents, (0, 1, 2), keepdims=True)
    spread = jnp.max(latents, (0, 1, 2), keepdims=True) - low
    grey = (latents - low) / jnp.maximum(spread, 1e-12)
    grey = jnp.moveaxis(grey, -1, 0)[..., None]
    large = jnp.repeat(jnp.repeat(grey, factor, axis=2), factor, axis=3)
    shown = to_images((large * 2 - 1).reshape(-1, *large.shape[2:]))
    return jnp.repeat(shown, 3, axis=-1).reshape(*large.shape[:-1], 3)


def _perceptual(workdir: Path, fresh: bool, load: Loader | None) -> Any:
    """LPIPS' parameters: those given to a new run, which copies them, or the copy."""
    folder = workdir / PERCEPTUAL
    if not fresh:
        return load_frozen(folder, WEIGHTS)
    if load is None:
        raise cfg.ConfigError("loss.perceptual is set, but LPIPS' parameters are not given")
    params = load()
    if jax.process_index() == 0:
        remove_folder(folder)
        save_frozen(folder, WEIGHTS, params)
    return params
