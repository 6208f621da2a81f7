"""Stage two as the handful of functions that the one loop needs."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.convert.parts import initial_params
from ldm_jax.convert.placing import copy_tokenizer
from ldm_jax.data.inputs import InputMaker, check_source
from ldm_jax.data.sources import Source, open_source
from ldm_jax.data.tokenizer import read_tokenizer, train_tokenizer
from ldm_jax.sampling.ancestral import DDIM
from ldm_jax.sampling.guidance import Guidance
from ldm_jax.sampling.levels import levels
from ldm_jax.training.diffusion_step import denoising_losses_by_level, make_diffusion_step
from ldm_jax.training.first_stage import keep_first_stage, open_first_stage
from ldm_jax.training.gradients import Metrics
from ldm_jax.training.latents import batch_latents, check_encoder
from ldm_jax.training.objective import Objective
from ldm_jax.training.optim import make_optimizer
from ldm_jax.training.stage import Stage, validation_source, wait_for_all
from ldm_jax.training.state import TrainState, create_state
from ldm_jax.training.trainable import bind, split
from ldm_jax.workdir.frozen import load_first_stage, load_untrained, save_frozen
from ldm_jax.workdir.layout import TOKENIZER, TOKENIZER_FILES, UNTRAINED, WEIGHTS, tokenizer_of
from ldm_jax.workdir.record import has_checkpoints

GRID_STEPS = 25
GRID_GUIDANCE = 3.0


def diffusion_stage(
    run: cfg.DiffusionRun, workdir: Path, first_stage: str | None, init: str | None = None
) -> Stage:
    """Stage two, on the frozen parts in `workdir`; a new run makes them first.

    Args:
        run: its config.
        workdir: where the frozen parts are kept.
        first_stage: the model whose autoencoder a new run builds on; by default that of `init`.
        init: the model whose U-Net, conditioners and tokenizer a new run begins with.

    Raises:
        cfg.ConfigError: nothing is named that a new run needs, it does not fit, or a first stage
            is named for a run on pixels.
    """
    if run.space == "pixels" and first_stage is not None:
        raise cfg.ConfigError(
            f"--first_stage={first_stage}: this config's space is 'pixels', which needs none"
        )
    train = open_source(run.data.source, run.data.image_size, "train")
    check_source(run.conditioners, train, getattr(run.data.source, "path", "DigitScenes"))
    initial = None
    if not has_checkpoints(workdir):
        # What an earlier attempt left may be of other images.
        initial = _make_frozen_parts(run, train, workdir, first_stage, init)
    autoencoder_config, frozen = load_first_stage(run, workdir)
    frozen["untrained"] = load_untrained(run, workdir)
    tokenizer, text = None, cfg.find(run.conditioners, cfg.TextConditioner)
    if text is not None:
        tokenizer = read_tokenizer(tokenizer_of(workdir), text)
    inputs = InputMaker(run.conditioners, tokenizer)
    uncond = jax.tree.map(jnp.asarray, inputs.uncond())
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
        params = ldm.init_params(model, run.loop.seed)
        if initial is not None:
            params = jax.tree.map(jnp.asarray, initial)
        state = create_state(params, optimizer, run.optim.ema_decay)
        return state.replace(own=Objective(run, model.process).initial_sampler())

    def scores(params: Any, frozen: Any, batch: Any) -> Metrics:
        latents = batch_latents(model.autoencoder, frozen, batch, run.loop.seed, shape)
        return denoising_losses_by_level(
            model, run, bind(params, frozen), latents, batch["inputs"], batch["index"], frozen
        )

    def pictures(params: Any, frozen: Any, batch: Any) -> dict[str, Any]:
        rows = len(batch["index"])
        empty = {name: jnp.stack([value] * rows) for name, value in uncond.items()}
        samples = ldm.generate(
            model, bind(params, frozen), frozen, batch["inputs"], empty or None,
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
        initial=initial,
    )


def _make_frozen_parts(
    run: cfg.DiffusionRun, train: Source, workdir: Path, first_stage: str | None, init: str | None
) -> Any:
    """Writes what a new run builds on into `workdir`: first stage, tokenizer, and what is left as
    it is. Returns the trained parameters to begin with, or None for fresh ones."""
    stage = None
    if run.space == "latents":
        stage = open_first_stage(workdir, first_stage or init)
    model = run.model(stage.config if stage else cfg.Pixels())
    text = cfg.find(run.conditioners, cfg.TextConditioner)
    if init is None:
        _check_needs_no_model(run, text)
    begun = initial_params(init, model) if init is not None else None
    trained, untrained = split(begun.params, run.train) if begun else (None, {})
    if stage is not None:
        keep_first_stage(run, train, workdir, stage)
    if jax.process_index() == 0:
        shutil.rmtree(workdir / UNTRAINED, ignore_errors=True)
        if untrained:
            save_frozen(workdir / UNTRAINED, WEIGHTS, untrained)
        if text is not None:
            _keep_tokenizer(text, train, workdir, begun and begun.tokenizer)
    wait_for_all("frozen parts")
    return trained


def _check_needs_no_model(run: cfg.DiffusionRun, text: cfg.TextConditioner | None) -> None:
    """Raises ConfigError where `run` cannot begin without another model's weights."""
    if run.train != "all":
        raise cfg.ConfigError(
            f"train is {run.train!r}, but there is no model whose other weights could stay as they "
            "are: name one with --init=MODEL"
        )
    if text is not None and text.tokenizer in ("clip", "bert"):
        raise cfg.ConfigError(
            f"text_encoder.tokenizer is {text.tokenizer!r}, whose files come with a trained model: "
            "name one with --init=MODEL, or use 'word' or 'bpe', which are made from the captions"
        )


def _keep_tokenizer(
    text: cfg.TextConditioner, train: Source, workdir: Path, files: Path | None
) -> None:
    """The tokenizer in `files`, or one made from the training captions, as the run's own."""
    shutil.rmtree(workdir / TOKENIZER_FILES, ignore_errors=True)
    if files is not None:
        workdir.mkdir(parents=True, exist_ok=True)
        copy_tokenizer(files, workdir / TOKENIZER_FILES)
        read_tokenizer(workdir / TOKENIZER_FILES, text)
        return
    made = train_tokenizer(train.captions(), text.encoder.vocab_size, text.tokenizer)
    made.save(workdir / TOKENIZER)
