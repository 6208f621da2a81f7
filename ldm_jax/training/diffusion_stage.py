"""Stage two as the handful of functions that the one loop needs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.adapters.adapted import adapt
from ldm_jax.convert.imported_model import normalized
from ldm_jax.core import tree
from ldm_jax.data.buckets import buckets_of, check_buckets
from ldm_jax.data.inputs import InputMaker, check_hints, check_source
from ldm_jax.data.sources import open_source
from ldm_jax.data.taught_words import TEMPLATES, TaughtWords
from ldm_jax.data.tokenizer import read_tokenizer
from ldm_jax.models.build import build_control
from ldm_jax.sampling.ancestral import DDIM
from ldm_jax.sampling.guidance import Guidance
from ldm_jax.sampling.levels import levels
from ldm_jax.training.beginning import begin
from ldm_jax.training.caption_note import caption_note
from ldm_jax.training.caption_states import (
    caption_reader,
    check_captions,
    encoded_captions,
    with_states,
)
from ldm_jax.training.diffusion_step import denoising_losses_by_level, make_diffusion_step
from ldm_jax.training.gradients import Metrics
from ldm_jax.training.latents import batch_inputs, batch_latents, check_encoder
from ldm_jax.training.objective import Objective
from ldm_jax.training.optim import make_diffusion_optimizer
from ldm_jax.training.shown import shown_conditions
from ldm_jax.training.stage import Stage, tell_obstacles, validation_source
from ldm_jax.training.state import TrainState, create_state
from ldm_jax.training.trainable import bind, shapes_beside, split
from ldm_jax.workdir.frozen import load_first_stage, load_untrained
from ldm_jax.workdir.layout import tokenizer_of
from ldm_jax.workdir.record import has_checkpoints

SHOWN_STEPS = 25


def _readers(run: cfg.DiffusionRun) -> tuple[cfg.Conditioner, ...]:
    """The conditioners for which examples must have something: not captions, where templates stand
    for these."""
    templates = isinstance(run.adapter, cfg.TextualInversion) and run.adapter.captions in TEMPLATES
    return tuple(
        one for one in run.conditioners
        if not (templates and isinstance(one, cfg.TextConditioner))
    )  # fmt: skip


def diffusion_stage(
    run: cfg.DiffusionRun,
    workdir: Path,
    mesh: jax.sharding.Mesh,
    first_stage: str | None,
    init: str | None = None,
    text_encoder: str | None = None,
) -> Stage:
    """Stage two, on the frozen parts in `workdir`; a new run makes them first.

    Args:
        run: its config.
        workdir: where the frozen parts are kept.
        mesh: the devices that measure the latents' scale where no model says it.
        first_stage: the model whose autoencoder a new run builds on; by default that of `init`.
        init: the model whose U-Net, conditioners and tokenizer a new run begins with.
        text_encoder: the model whose text encoder and tokenizer it begins with.

    Raises:
        cfg.ConfigError: nothing is named that a new run needs, it does not fit, a first stage is
            named for a run on pixels, or what is to be drawn cannot be.
    """
    if run.space == "pixels" and first_stage is not None:
        raise cfg.ConfigError(
            f"--first_stage={first_stage}: this config works on pixels (space='pixels'), without "
            "a first stage"
        )
    train = open_source(run.data, "train")
    check_source(_readers(run), train, cfg.called(run.data.source))
    if isinstance(run.adapter, cfg.ControlNet):
        check_hints(run.adapter, train, cfg.called(run.data.source))
    initial, fresh = {}, not has_checkpoints(workdir)
    if fresh:
        # What an earlier attempt left may be of other images.
        initial = begin(run, train, workdir, mesh, first_stage, init, text_encoder)
    autoencoder_config, frozen = load_first_stage(run, workdir)
    if fresh:
        tell_obstacles(run.model(normalized(autoencoder_config, frozen)))
    frozen["untrained"] = load_untrained(run, workdir)
    if run.adapter is not None and not fresh:
        initial = shapes_beside(run, run.model(autoencoder_config))
    tokenizer, text = None, cfg.find(run.conditioners, cfg.TextConditioner)
    if text is not None:
        tokenizer = read_tokenizer(tokenizer_of(workdir), text)
    control = run.adapter if isinstance(run.adapter, cfg.ControlNet) else None
    taught = None
    if isinstance(run.adapter, cfg.TextualInversion):
        taught = TaughtWords(run.adapter, tokenizer, text)
        taught.check_captions(train.captions())
        tokenizer = taught.tokenizer
    inputs = InputMaker(
        run.conditioners, tokenizer, run.data.sides, autoencoder_config.factor, control, taught
    )
    uncond, read = inputs.uncond(), None
    validation = validation_source(run.data, train)
    for source in (train, validation):
        check_encoder(source, frozen["autoencoder"])
        check_captions(run, source, initial, frozen["untrained"], tokenizer)
    if text is not None and (latents := encoded_captions(train)) is not None:
        # Training has no other use for the text encoder, which would take memory on each device.
        read = caption_reader(text, frozen["untrained"]["conditioners"].pop(text.name), latents)
        empty = read(tokenizer.empty(text.encoder.max_length)[None])
        uncond |= {name: array[0] for name, array in empty.items()}
    uncond = jax.tree.map(jnp.asarray, uncond)
    check_buckets(buckets_of(train), run.model(autoencoder_config))
    model = ldm.build(run.model(autoencoder_config), run.loop.dtype, run.loop.remat)
    if control is not None:
        branch = cfg.control_of(model.config.unet, autoencoder_config)
        net = build_control(branch, run.loop.dtype, run.loop.remat)
        model = replace(model, controls=(net,))
    elif run.adapter is not None:
        chain = (run.adapter,) if isinstance(run.adapter, cfg.Hypernetwork) else ()
        model = adapt(model, run.adapter, chain)
    optimizer = make_diffusion_optimizer(run)
    # A short schedule has no more steps than timesteps.
    steps = min(SHOWN_STEPS, getattr(run.diffusion.process, "num_timesteps", SHOWN_STEPS))
    path = levels(model.process, steps, "trailing", "one")

    def init(initial: Any) -> TrainState:
        params = initial
        if run.adapter is None:
            params, _ = split(ldm.init_params(model, run.loop.seed), run)
            params = tree.unflatten(tree.flatten(params) | tree.flatten(initial))
        state = create_state(params, optimizer, run.optim.ema_decay)
        return state.replace(own=Objective(run, model.process).initial_sampler())

    def scores(params: Any, frozen: Any, batch: Any) -> Metrics:
        latents = batch_latents(model.autoencoder, frozen, batch, run.loop.seed)
        inputs = batch_inputs(model, batch, batch["inputs"], run.loop.seed, latents.shape[1:])
        return denoising_losses_by_level(
            model, run, bind(params, frozen), latents, inputs, batch["index"], frozen
        )

    def draw(params: Any, frozen: Any, batch: Any) -> Any:
        rows = len(batch["index"])
        empty = {name: jnp.stack([value] * rows) for name, value in uncond.items()}
        inputs = batch["inputs"] | ({"image": batch["image"]} if "image" in batch else {})
        samples = ldm.generate(
            model, bind(params, frozen), frozen, inputs, empty or None, solver=DDIM(eta=0.0),
            levels=path, seed=run.loop.seed, index=batch["index"],
            guidance=Guidance(scale=run.loop.sample_guidance), shape=model.latent_shape,
        )  # fmt: skip
        if "views" not in batch:
            return samples[None]
        views = jnp.moveaxis(batch["views"], 1, 0)
        return jnp.concatenate([views, samples[None], batch["image"][None]])

    def note() -> str:
        held_out = None if validation is None else validation.captions()
        return caption_note(text, tokenizer, train.captions(), held_out, len(train))

    shown = shown_conditions(run, draw, inputs, tokenizer, train, validation)
    if read is not None:
        shown = with_states(shown, read)

    return Stage(
        init=init,
        step=make_diffusion_step(model, optimizer, run, uncond),
        scores=scores,
        shown=shown,
        frozen=frozen,
        train=train,
        validation=validation,
        inputs=inputs,
        draw=draw,
        note=note if text in _readers(run) else None,
        initial=initial,
    )
