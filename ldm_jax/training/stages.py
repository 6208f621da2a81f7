"""The training stages, each as the handful of functions that the one loop needs."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax import rngs
from ldm_jax.data.loader import make_loader
from ldm_jax.data.sources import Source, open_source
from ldm_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from ldm_jax.models.build import build_autoencoder
from ldm_jax.sampling.ancestral import DDIM
from ldm_jax.sampling.levels import levels
from ldm_jax.sharding import make_mesh, to_global
from ldm_jax.training.autoencoder_step import make_autoencoder_loss, make_autoencoder_step
from ldm_jax.training.checkpoint import (
    Checkpoints,
    has_checkpoints,
    load_frozen,
    read_config,
    save_frozen,
    write_config,
)
from ldm_jax.training.diffusion_step import (
    denoising_losses_by_level,
    make_diffusion_step,
    posterior_noise,
)
from ldm_jax.training.gradients import Metrics
from ldm_jax.training.objective import Objective
from ldm_jax.training.optim import make_optimizer
from ldm_jax.training.state import TrainState, create_state

FIRST_STAGE = "first_stage"
TOKENIZER = "tokenizer.json"
GRID_IMAGES = 16
GRID_STEPS = 25
GRID_GUIDANCE = 3.0


@dataclass(frozen=True)
class Stage:
    """What the loop trains; all functions are pure and not yet compiled."""

    init: Callable[[], TrainState]
    step: Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]
    validation_losses: Callable[[Any, Any, Any], Metrics]
    """`(params, frozen, batch) -> {name: scalar}`, at noise fixed by the batch's index; the one
    named `validation_loss` decides which checkpoint is the best."""
    pictures: Callable[[Any, Any, Any], Any] | None
    """`(params, frozen, batch) -> uint8 images`: reconstructions under originals, or samples; None
    where there is nothing to show."""
    frozen: Any
    train: Source
    validation: Source | None
    """None where the config keeps no images for it."""
    condition: Callable[[Any], Any] | None
    """Example → its condition input; None in stage one."""


def autoencoder_stage(run: cfg.AutoencoderRun) -> Stage:
    """Stage one: an autoencoder on images."""
    autoencoder = build_autoencoder(
        run.autoencoder, dtype=jnp.dtype(run.loop.dtype), remat=run.loop.remat
    )
    optimizer = make_optimizer(run.optim, run.loop.steps)
    loss = make_autoencoder_loss(autoencoder, run)
    side, factor = run.data.image_size, run.autoencoder.factor
    image = (1, side, side, run.autoencoder.image_channels)
    latent = (1, side // factor, side // factor, run.autoencoder.latent_channels)

    def init() -> TrainState:
        key = rngs.stream(run.loop.seed, "init/autoencoder")
        zeros = jnp.zeros(image, jnp.float32), jnp.zeros(latent, jnp.float32)
        params = autoencoder.init(key, *zeros)["params"]
        return create_state(params, optimizer, run.optim.ema_decay)

    def pictures(params: Any, frozen: Any, batch: Any) -> Any:
        del frozen
        pixels = ldm.to_pixels(batch["image"])
        mean_only = jnp.zeros((pixels.shape[0], *latent[1:]), jnp.float32)
        reconstruction, _ = autoencoder.apply({"params": params}, pixels, mean_only)
        return jnp.concatenate([batch["image"], ldm.to_images(reconstruction)])

    return Stage(
        init=init,
        step=make_autoencoder_step(autoencoder, optimizer, run),
        validation_losses=lambda params, frozen, batch: {"validation_loss": loss(params, batch)[0]},
        pictures=pictures,
        frozen={},
        train=open_source(run.data.source, run.data.image_size, "train"),
        validation=validation_source(run.data),
        condition=None,
    )


def diffusion_stage(run: cfg.DiffusionRun, workdir: Path, first_stage: Path | None) -> Stage:
    """Stage two, on the first stage in `workdir`, or on that of `first_stage` copied there once.

    Raises:
        cfg.ConfigError: no first stage is given and none is in `workdir`, or it does not fit.
    """
    fresh = not has_checkpoints(workdir)
    if fresh and first_stage is None:
        raise cfg.ConfigError(
            f"{workdir} has no first stage yet: name a trained one with --first_stage=WORKDIR"
        )
    if first_stage is not None:
        run.model(autoencoder_run(first_stage).autoencoder)  # raises where they do not fit
    train = open_source(run.data.source, run.data.image_size, "train")
    check_conditions(run, train)
    if fresh:
        # What an earlier attempt left may be of other images.
        make_frozen_parts(run, train, workdir, first_stage)
    tokenizer = None
    if isinstance(run.condition, cfg.TextCondition):
        tokenizer = load_tokenizer(workdir / TOKENIZER)
    condition, empty = condition_inputs(run, tokenizer)
    autoencoder_config, frozen = load_first_stage(workdir / FIRST_STAGE)
    model = ldm.build(run.model(autoencoder_config), run.loop.dtype, run.loop.remat)
    shape = model.latent_shape
    optimizer = make_optimizer(run.optim, run.loop.steps)
    # A short schedule has no more steps than timesteps.
    steps = min(GRID_STEPS, getattr(run.diffusion.process, "num_timesteps", GRID_STEPS))
    path = levels(model.process, steps, "trailing", "one")
    guided = not isinstance(run.condition, cfg.Unconditional)

    def init() -> TrainState:
        params = ldm.init_params(model, run.loop.seed)
        state = create_state(params, optimizer, run.optim.ema_decay)
        return state.replace(sampler=Objective(run, model.process).initial_sampler())

    def validation_losses(params: Any, frozen: Any, batch: Any) -> Metrics:
        noise = posterior_noise(run.loop.seed, batch["index"], shape)
        latents = model.encode(frozen, ldm.to_pixels(batch["image"]), noise)
        return denoising_losses_by_level(
            model, run, params, latents, batch["condition"], batch["index"]
        )

    def pictures(params: Any, frozen: Any, batch: Any) -> Any:
        inputs = batch["condition"]
        nothing = jnp.broadcast_to(jnp.asarray(empty), inputs.shape) if guided else None
        return ldm.generate(
            model, params, frozen, inputs, nothing,
            solver=DDIM(eta=0.0), levels=path, seed=run.loop.seed, index=batch["index"],
            guidance_scale=GRID_GUIDANCE, shape=shape,
        )  # fmt: skip

    return Stage(
        init=init,
        step=make_diffusion_step(model, optimizer, run, jnp.asarray(empty), shape),
        validation_losses=validation_losses,
        pictures=pictures,
        frozen=frozen,
        train=train,
        validation=validation_source(run.data),
        condition=condition,
    )


def load_first_stage(folder: Path) -> tuple[cfg.Autoencoder, dict[str, Any]]:
    """Config and frozen tree {"autoencoder", "latent_scale"} that a work directory keeps."""
    run = read_config(folder)
    return run.autoencoder, load_frozen(folder, "weights")


def autoencoder_run(first_stage: Path) -> cfg.AutoencoderRun:
    """The config of a trained first stage."""
    source = read_config(first_stage)
    if not isinstance(source, cfg.AutoencoderRun):
        raise cfg.ConfigError(f"{first_stage} holds a {type(source).__name__}, not an autoencoder")
    return source


def check_conditions(run: cfg.DiffusionRun | cfg.ClassifierRun, train: Source) -> None:
    """Raises ConfigError unless the images have the classes or captions that `run` asks for."""
    where = getattr(run.data.source, "path", "DigitScenes")
    if isinstance(run.condition, cfg.ClassCondition):
        count = len(train.class_names)
        if run.condition.num_classes != count:
            raise cfg.ConfigError(
                f"condition.num_classes is {run.condition.num_classes}, but {where} has {count} "
                "classes; a folder's are its subfolders"
            )
    if isinstance(run.condition, cfg.TextCondition) and not train.has_captions:
        raise cfg.ConfigError(
            f"{where} has no captions; put them into metadata.jsonl, or a .txt beside each image"
        )


def make_frozen_parts(
    run: cfg.DiffusionRun | cfg.ClassifierRun, train: Source, workdir: Path, first_stage: Path
) -> None:
    """Writes into `workdir` the first stage's parameters with its measured latent scale, and the
    tokenizer, made from the training captions."""
    source = autoencoder_run(first_stage)
    _, params = Checkpoints.load_params(first_stage, "ema" if source.optim.ema_decay else "raw")
    scale = source.autoencoder.latent_scale or _measure_scale(
        source.autoencoder, params, run, train
    )
    frozen = {"autoencoder": params, "latent_scale": np.float32(scale)}
    if jax.process_index() == 0:
        shutil.rmtree(workdir / FIRST_STAGE, ignore_errors=True)
        save_frozen(workdir / FIRST_STAGE, "weights", frozen)
        write_config(workdir / FIRST_STAGE, source)
        if isinstance(run.condition, cfg.TextCondition):
            condition = run.condition
            size, kind = condition.encoder.vocab_size, condition.tokenizer
            train_tokenizer(train.captions(), size, kind).save(workdir / TOKENIZER)
    wait_for_all("frozen parts")


def _measure_scale(
    config: cfg.Autoencoder,
    params: Any,
    run: cfg.DiffusionRun | cfg.ClassifierRun,
    train: Source,
) -> float:
    """1 / std of the latents of the first global batch (Rombach 2022, appendix G).

    Each process sees its own rows; the mean over the global array makes all of them agree.
    """
    loader = make_loader(
        train, run.data, seed=run.loop.seed, train=True,
        process_index=jax.process_index(), process_count=jax.process_count(), condition=None,
    )  # fmt: skip
    mesh = make_mesh(run.mesh)
    batch = to_global(mesh, next(loader))
    autoencoder = build_autoencoder(config)
    side = run.data.image_size // config.factor
    shape = (side, side, config.latent_channels)

    @jax.jit
    def std(params: Any, batch: Any) -> Any:
        posterior = autoencoder.apply(
            {"params": params}, ldm.to_pixels(batch["image"]), method="encode"
        )
        return jnp.std(posterior.sample(posterior_noise(run.loop.seed, batch["index"], shape)))

    return 1 / float(std(params, batch))


def validation_source(data: cfg.Data) -> Source | None:
    """The images kept for validation; None where the config keeps none."""
    if isinstance(data.source, cfg.ImageFolder) and not data.source.validation_fraction:
        return None
    return open_source(data.source, data.image_size, "validation")


def condition_inputs(
    run: cfg.DiffusionRun | cfg.ClassifierRun, tokenizer: Tokenizer | None
) -> tuple[Callable[[Any], Any], Any]:
    """The function from example to condition input, and the unconditional input."""
    condition = run.condition
    if isinstance(condition, cfg.Unconditional):
        return (lambda example: np.int32(0)), np.int32(0)
    if isinstance(condition, cfg.ClassCondition):
        empty = np.int32(condition.num_classes)
        return (lambda example: np.int32(example["label"])), empty
    length = condition.encoder.max_length
    return (
        lambda example: tokenizer.encode([example["caption"]], length)[0],
        tokenizer.empty(length),
    )


def wait_for_all(name: str) -> None:
    """Returns once all processes have come here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
