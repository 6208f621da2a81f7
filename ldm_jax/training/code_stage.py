"""The stage that trains a transformer over the codes of a first stage, for the one loop."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax import code_model
from ldm_jax import config as cfg
from ldm_jax.data.inputs import InputMaker, check_source
from ldm_jax.data.sources import open_source
from ldm_jax.training.code_step import decays, make_code_scores, make_code_step
from ldm_jax.training.first_stage import open_first_stage
from ldm_jax.training.latents import check_encoder
from ldm_jax.training.optim import make_optimizer
from ldm_jax.training.shown import shown_conditions
from ldm_jax.training.stage import Stage, validation_source, wait_for_all
from ldm_jax.training.state import TrainState, create_state
from ldm_jax.workdir.frozen import load_first_stage, save_first_stage
from ldm_jax.workdir.record import has_checkpoints


def code_stage(run: cfg.CodeTransformerRun, workdir: Path, first_stage: str | None) -> Stage:
    """A transformer over the codes of the first stage in `workdir`; a new run puts that of
    `first_stage` there.

    Raises:
        cfg.ConfigError: none is named for a new run, or it has no codes, or does not fit.
    """
    train, validation = open_source(run.data, "train"), validation_source(run.data)
    check_source(run.conditioners, train, getattr(run.data.source, "path", "DigitScenes"))
    if not has_checkpoints(workdir):
        stage = open_first_stage(workdir, first_stage)
        run.model(stage.config)  # raises where they do not fit
        if jax.process_index() == 0:
            save_first_stage(workdir, stage.config, stage.params, {})
        wait_for_all("frozen parts")
    autoencoder, frozen = load_first_stage(run, workdir)
    for source in (train, validation):
        check_encoder(source, frozen["autoencoder"], "codes")
    model = code_model.build(run.model(autoencoder), run.loop.dtype, run.loop.remat)
    optimizer = make_optimizer(run.optim, run.loop.steps, decays)
    choice = code_model.choice_of(run.sampling, model.config)

    def init(initial: Any) -> TrainState:
        del initial
        params = code_model.init_params(model, run.loop.seed)
        return create_state(params, optimizer, run.optim.ema_decay)

    def draw(params: Any, frozen: Any, batch: Any) -> Any:
        prefix = model.prefix(batch["inputs"], len(batch["index"]))
        codes = model.draw(params, prefix, run.loop.seed, batch["index"], choice)
        return model.images(frozen, codes)[None]

    inputs = InputMaker(run.conditioners, None)
    return Stage(
        init=init,
        step=make_code_step(model, optimizer, run),
        scores=make_code_scores(model),
        shown=shown_conditions(run, draw, inputs, None, train, validation),
        frozen=jax.tree.map(jnp.asarray, frozen),
        train=train,
        validation=validation,
        inputs=inputs,
    )
