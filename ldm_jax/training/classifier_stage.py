"""The stage that trains a classifier of noisy latents, for the one loop."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax import config as cfg
from ldm_jax.core import rngs
from ldm_jax.core.distributed import wait_for_all
from ldm_jax.data.inputs import InputMaker, check_source
from ldm_jax.data.sources import open_source
from ldm_jax.models.build import build_autoencoder, build_classifier
from ldm_jax.models.process import build_process
from ldm_jax.training.classifier_step import make_classifier_scores, make_classifier_step
from ldm_jax.training.first_stage import keep_first_stage, open_first_stage
from ldm_jax.training.latents import batch_latents, check_encoder
from ldm_jax.training.optim import make_optimizer
from ldm_jax.training.stage import Stage, validation_source
from ldm_jax.training.state import TrainState, create_state
from ldm_jax.workdir.frozen import load_first_stage
from ldm_jax.workdir.record import has_checkpoints


def classifier_stage(
    run: cfg.ClassifierRun, workdir: Path, mesh: jax.sharding.Mesh, first_stage: str | None
) -> Stage:
    """A classifier on the first stage in `workdir`; a new run puts that of `first_stage` there.

    `first_stage` names an autoencoder, whose latent scale is then measured, or the diffusion model
    that is to be guided, which has measured it: the classifier must see latents of that scale.

    Raises:
        cfg.ConfigError: none is named for a new run, or it does not fit.
    """
    train = open_source(run.data, "train")
    check_source(run.conditioners, train, cfg.called(run.data.source))
    if not has_checkpoints(workdir):
        stage = open_first_stage(workdir, first_stage)
        run.check_first_stage(stage.config)
        keep_first_stage(run, train, workdir, mesh, stage)
        wait_for_all("frozen parts")
    stage_one, frozen = load_first_stage(run, workdir)
    validation = validation_source(run.data, train)
    for source in (train, validation):
        check_encoder(source, frozen["autoencoder"])
    autoencoder = build_autoencoder(stage_one, jnp.dtype(run.loop.dtype))
    classifier = build_classifier(run.classifier, jnp.dtype(run.loop.dtype), run.loop.remat)
    process = build_process(run.diffusion.process)
    optimizer = make_optimizer(run.optim, run.loop.steps)
    height, width = (side // stage_one.factor for side in run.data.sides)

    def init(initial: Any) -> TrainState:
        del initial
        key = rngs.stream(run.loop.seed, "init/classifier")
        x = jnp.zeros((1, height, width, stage_one.latent_channels), jnp.float32)
        params = classifier.init(key, x, jnp.zeros(1, jnp.int32))["params"]
        return create_state(params, optimizer, run.optim.ema_decay)

    def encode(frozen: Any, batch: Any) -> Any:
        return batch_latents(autoencoder, frozen, batch, run.loop.seed)

    return Stage(
        init=init,
        step=make_classifier_step(classifier, process, optimizer, run, encode),
        scores=make_classifier_scores(classifier, process, run, encode),
        shown=(),
        frozen=frozen,
        train=train,
        validation=validation,
        inputs=InputMaker(run.conditioners, None),
    )
