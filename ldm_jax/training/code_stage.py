"""The stage that trains a transformer over the codes of a first stage, for the one loop."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax import code_model
from ldm_jax import config as cfg
from ldm_jax.convert.code_models import initial_codes, initial_transformer
from ldm_jax.convert.imported_codes import ImportedCodes
from ldm_jax.convert.parts import read_first_stage
from ldm_jax.core.distributed import wait_for_all
from ldm_jax.data.inputs import InputMaker, check_source
from ldm_jax.data.sources import open_source
from ldm_jax.training.code_step import decays, make_code_scores, make_code_step
from ldm_jax.training.first_stage import open_first_stage
from ldm_jax.training.latents import check_encoder
from ldm_jax.training.optim import make_optimizer
from ldm_jax.training.shown import shown_conditions
from ldm_jax.training.stage import Stage, validation_source
from ldm_jax.training.state import TrainState, create_state
from ldm_jax.workdir.frozen import (
    load_condition_stage,
    load_first_stage,
    save_condition_stage,
    save_first_stage,
)
from ldm_jax.workdir.layout import keeps_condition_stage
from ldm_jax.workdir.record import has_checkpoints


def code_stage(
    run: cfg.CodeTransformerRun,
    workdir: Path,
    first_stage: str | None,
    condition_stage: str | None = None,
    init: str | None = None,
) -> Stage:
    """A transformer over the codes of the first stage in `workdir`; a new run puts that of
    `first_stage` there, and that of `condition_stage` where the condition is made of codes. Both
    are by default those of the model `init`, with whose transformer a new run begins.

    Raises:
        cfg.ConfigError: one is not named for a new run, or it has no codes, or does not fit.
        ConvertError, FileFormatError, OSError: a model that cannot be read.
    """
    initial = None
    if not has_checkpoints(workdir):
        # Before the data, which may have to be built.
        initial = _begin(run, workdir, first_stage, condition_stage, init)
    train = open_source(run.data, "train")
    validation = validation_source(run.data, train)
    check_source(run.conditioners, train, cfg.called(run.data.source))
    autoencoder, frozen = load_first_stage(run, workdir)
    of_conditions, more = load_condition_stage(run, workdir)
    frozen |= more
    for source in (train, validation):
        check_encoder(source, frozen["autoencoder"], "codes")
    model = code_model.build(run.model(autoencoder, of_conditions), run.loop.dtype, run.loop.remat)
    optimizer = make_optimizer(run.optim, run.loop.steps, decays)
    choice = code_model.choice_of(run.sampling, model.config)

    def init(initial: Any) -> TrainState:
        params = code_model.init_params(model, run.loop.seed)
        if initial is not None:
            params = jax.tree.map(jnp.asarray, initial)
        return create_state(params, optimizer, run.optim.ema_decay)

    def draw(params: Any, frozen: Any, batch: Any) -> Any:
        prefix = model.prefix(frozen, batch["inputs"], len(batch["index"]))
        codes = model.draw(params, prefix, run.loop.seed, batch["index"], choice)
        images = model.images(frozen, codes)[None]
        if "views" not in batch:
            return images
        views = jnp.moveaxis(batch["views"], 1, 0)
        return jnp.concatenate([views, images, batch["image"][None]])

    inputs = InputMaker(run.conditioners, None, run.data.sides, autoencoder.factor)
    return Stage(
        init=init,
        step=make_code_step(model, optimizer, run),
        scores=make_code_scores(model),
        shown=shown_conditions(run, draw, inputs, None, train, validation),
        frozen=jax.tree.map(jnp.asarray, frozen),
        train=train,
        validation=validation,
        inputs=inputs,
        initial=initial,
    )


def _begin(
    run: cfg.CodeTransformerRun,
    workdir: Path,
    first_stage: str | None,
    condition_stage: str | None,
    init: str | None,
) -> dict[str, Any] | None:
    """Writes the first stages that a new run builds on into `workdir`, once they are found to
    fit; the parameters that it begins with, if there are any."""
    found = None if init is None else initial_codes(init, run)
    if found is not None and first_stage is None:
        stage = found.config.autoencoder, found.frozen["autoencoder"]
    else:
        opened = open_first_stage(workdir, first_stage)
        stage = opened.config, opened.params
    of_conditions = _condition_stage(run, workdir, condition_stage, found)
    config = run.model(stage[0], of_conditions and of_conditions[0])
    initial = found and initial_transformer(found, config, f"--init={init}")
    if jax.process_index() == 0:
        save_first_stage(workdir, *stage, {})
        if of_conditions is not None:
            save_condition_stage(workdir, *of_conditions)
    wait_for_all("frozen parts")
    return initial


def _condition_stage(
    run: cfg.CodeTransformerRun,
    workdir: Path,
    condition_stage: str | None,
    found: ImportedCodes | None,
) -> tuple[cfg.Autoencoder, dict[str, Any]] | None:
    """The first stage of what `run` is conditioned on: that which is named, or of the model
    `found`; None where the condition is not made of codes."""
    if not keeps_condition_stage(run):
        if condition_stage is not None:
            raise cfg.ConfigError(
                f"--condition_stage={condition_stage}: this config's condition is not made of "
                "codes; leave it out"
            )
        return None
    if condition_stage is not None:
        opened = read_first_stage(condition_stage, cfg.stage_channels(run.condition))
        return opened.config, opened.params
    if found is None or found.config.condition_stage is None:
        raise cfg.ConfigError(
            f"{workdir} needs a trained first stage of what it is conditioned on: name one with "
            "--condition_stage=MODEL"
        )
    return found.config.condition_stage, found.frozen["condition_stage"]
