"""The stage that trains a classifier of noisy latents, for the one loop."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax import rngs
from ldm_jax.data.sources import open_source
from ldm_jax.models.build import build_autoencoder, build_classifier
from ldm_jax.process import build_process
from ldm_jax.training.autoencoder_step import posterior_noise
from ldm_jax.training.checkpoint import has_checkpoints, read_config
from ldm_jax.training.classifier_step import make_classifier_step, make_classifier_validation
from ldm_jax.training.optim import make_optimizer
from ldm_jax.training.stages import (
    FIRST_STAGE,
    Stage,
    autoencoder_run,
    check_conditions,
    condition_inputs,
    load_first_stage,
    make_frozen_parts,
    validation_source,
    wait_for_all,
)
from ldm_jax.training.state import TrainState, create_state


def classifier_stage(run: cfg.ClassifierRun, workdir: Path, first_stage: Path | None) -> Stage:
    """A classifier on the first stage in `workdir`, or on that of `first_stage` copied there once.

    `first_stage` is an autoencoder, whose latent scale is then measured, or the diffusion model
    that is to be guided, which has measured it: the classifier must see latents of that scale.

    Raises:
        cfg.ConfigError: no first stage is given and none is in `workdir`, or it does not fit.
    """
    fresh = not has_checkpoints(workdir)
    if fresh and first_stage is None:
        raise cfg.ConfigError(
            f"{workdir} has no first stage yet: name a trained one with --first_stage=WORKDIR"
        )
    given = first_stage
    if first_stage is not None:
        if isinstance(read_config(first_stage), cfg.DiffusionRun):
            given = first_stage / FIRST_STAGE
        run.check_first_stage(autoencoder_run(given).autoencoder)
    train = open_source(run.data.source, run.data.image_size, "train")
    check_conditions(run, train)
    if fresh and given == first_stage:
        make_frozen_parts(run, train, workdir, first_stage)
    elif fresh:
        if jax.process_index() == 0:
            shutil.copytree(given, workdir / FIRST_STAGE, dirs_exist_ok=True)
        wait_for_all("frozen parts")
    condition, _ = condition_inputs(run, None)
    stage_one, frozen = load_first_stage(workdir / FIRST_STAGE)
    autoencoder = build_autoencoder(stage_one, jnp.dtype(run.loop.dtype))
    classifier = build_classifier(run.classifier, jnp.dtype(run.loop.dtype), run.loop.remat)
    process = build_process(run.diffusion.process)
    optimizer = make_optimizer(run.optim, run.loop.steps)
    side = run.data.image_size // stage_one.factor
    shape = (side, side, stage_one.latent_channels)

    def init() -> TrainState:
        key = rngs.stream(run.loop.seed, "init/classifier")
        zeros = jnp.zeros((1, *shape), jnp.float32), jnp.zeros(1, jnp.int32)
        return create_state(classifier.init(key, *zeros)["params"], optimizer, run.optim.ema_decay)

    def encode(frozen: Any, batch: Any) -> Any:
        noise = posterior_noise(run.loop.seed, batch["index"], shape)
        pixels = ldm.to_pixels(batch["image"])
        return ldm.encode(autoencoder, frozen, pixels, noise)

    return Stage(
        init=init,
        step=make_classifier_step(classifier, process, optimizer, run, encode),
        validation_losses=make_classifier_validation(classifier, process, run, encode),
        pictures=None,
        frozen=frozen,
        train=train,
        validation=validation_source(run.data),
        condition=condition,
    )
