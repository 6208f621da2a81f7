"""Stage two as the handful of functions that the one loop needs."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.data.inputs import InputMaker, check_source
from ldm_jax.data.sources import Source, open_source
from ldm_jax.data.tokenizer import load_tokenizer, train_tokenizer
from ldm_jax.sampling.ancestral import DDIM
from ldm_jax.sampling.guidance import Guidance
from ldm_jax.sampling.levels import levels
from ldm_jax.training.diffusion_step import denoising_losses_by_level, make_diffusion_step
from ldm_jax.training.first_stage import (
    check_first_stage,
    copy_first_stage,
    load_first_stage,
)
from ldm_jax.training.gradients import Metrics
from ldm_jax.training.latents import batch_latents, check_encoder
from ldm_jax.training.objective import Objective
from ldm_jax.training.optim import make_optimizer
from ldm_jax.training.stage import Stage, validation_source, wait_for_all
from ldm_jax.training.state import TrainState, create_state
from ldm_jax.workdir.layout import TOKENIZER
from ldm_jax.workdir.record import has_checkpoints

GRID_STEPS = 25
GRID_GUIDANCE = 3.0


def diffusion_stage(run: cfg.DiffusionRun, workdir: Path, first_stage: Path | None) -> Stage:
    """Stage two, on the first stage in `workdir`, or on that of `first_stage` copied there once.

    Raises:
        cfg.ConfigError: no first stage is given and none is in `workdir`, it does not fit, or one
            is given to a run on pixels.
    """
    fresh = not has_checkpoints(workdir)
    check_first_stage(run, workdir if fresh else None, first_stage)
    train = open_source(run.data.source, run.data.image_size, "train")
    check_source(run.conditioners, train, getattr(run.data.source, "path", "DigitScenes"))
    if fresh:
        # What an earlier attempt left may be of other images.
        make_frozen_parts(run, train, workdir, first_stage)
    tokenizer = None
    if cfg.find(run.conditioners, cfg.TextConditioner) is not None:
        tokenizer = load_tokenizer(workdir / TOKENIZER)
    inputs = InputMaker(run.conditioners, tokenizer)
    uncond = jax.tree.map(jnp.asarray, inputs.uncond())
    autoencoder_config, frozen = load_first_stage(run, workdir)
    validation = validation_source(run.data)
    for source in (train, validation):
        check_encoder(source, frozen["autoencoder"])
    model = ldm.build(run.model(autoencoder_config), run.loop.dtype, run.loop.remat)
    shape = model.latent_shape
    optimizer = make_optimizer(run.optim, run.loop.steps)
    # A short schedule has no more steps than timesteps.
    steps = min(GRID_STEPS, getattr(run.diffusion.process, "num_timesteps", GRID_STEPS))
    path = levels(model.process, steps, "trailing", "one")

    def init(initial: Any) -> TrainState:
        del initial
        params = ldm.init_params(model, run.loop.seed)
        state = create_state(params, optimizer, run.optim.ema_decay)
        return state.replace(sampler=Objective(run, model.process).initial_sampler())

    def scores(params: Any, frozen: Any, batch: Any) -> Metrics:
        latents = batch_latents(model.autoencoder, frozen, batch, run.loop.seed, shape)
        return denoising_losses_by_level(
            model, run, params, latents, batch["inputs"], batch["index"], frozen
        )

    def pictures(params: Any, frozen: Any, batch: Any) -> dict[str, Any]:
        rows = len(batch["index"])
        empty = {name: jnp.stack([value] * rows) for name, value in uncond.items()}
        samples = ldm.generate(
            model, params, frozen, batch["inputs"], empty or None,
            solver=DDIM(eta=0.0), levels=path, seed=run.loop.seed, index=batch["index"],
            guidance=Guidance(scale=GRID_GUIDANCE), shape=shape,
        )  # fmt: skip
        return {"samples": samples}

    return Stage(
        init=init,
        step=make_diffusion_step(model, optimizer, run, uncond, shape),
        scores=scores,
        pictures=pictures,
        frozen=frozen,
        train=train,
        validation=validation,
        inputs=inputs,
    )


def make_frozen_parts(
    run: cfg.DiffusionRun | cfg.ClassifierRun,
    train: Source,
    workdir: Path,
    first_stage: Path | None,
) -> None:
    """Writes into `workdir` the first stage, if there is one, and the tokenizer, made from the
    training captions."""
    if first_stage is not None:
        copy_first_stage(run, train, workdir, first_stage)
    text = cfg.find(run.conditioners, cfg.TextConditioner)
    if jax.process_index() == 0 and text is not None:
        size, kind = text.encoder.vocab_size, text.tokenizer
        train_tokenizer(train.captions(), size, kind).save(workdir / TOKENIZER)
    wait_for_all("frozen parts")
