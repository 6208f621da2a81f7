"""The stage that trains CLIP, for the one loop."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax import config as cfg
from ldm_jax.convert.clip.clip_folders import clip_shapes, read_clip
from ldm_jax.convert.parts import fitting, refuse_differing
from ldm_jax.core import rngs
from ldm_jax.core.distributed import wait_for_all
from ldm_jax.data.inputs import InputMaker, check_source
from ldm_jax.data.sources import Source, open_source
from ldm_jax.data.tokenizer import read_tokenizer
from ldm_jax.models.clip_model import CLIP
from ldm_jax.training.beginning import all_captions, check_tokenizer, keep_tokenizer
from ldm_jax.training.caption_note import caption_note
from ldm_jax.training.contrastive_step import make_contrastive_scores, make_contrastive_step
from ldm_jax.training.optim import make_optimizer
from ldm_jax.training.stage import Stage, validation_source
from ldm_jax.training.state import TrainState, create_state
from ldm_jax.workdir.layout import tokenizer_of
from ldm_jax.workdir.record import has_checkpoints


def contrastive_stage(run: cfg.ContrastiveRun, workdir: Path, init: str | None = None) -> Stage:
    """Both encoders of CLIP, with fresh weights or those of the CLIP in `init`, whose tokenizer a
    new run takes over.

    Raises:
        cfg.ConfigError: examples have no captions, or `init` does not fit.
        ConvertError, FileFormatError, TokenizerError, OSError: what cannot be read.
    """
    train = open_source(run.data, "train")
    validation = validation_source(run.data, train)
    check_source(run.conditioners, train, cfg.called(run.data.source))
    initial = None if has_checkpoints(workdir) else _begin(run, train, workdir, init)
    (text,) = run.conditioners
    tokenizer = read_tokenizer(tokenizer_of(workdir), text)
    model = CLIP(run.clip, jnp.dtype(run.loop.dtype), run.loop.remat)
    optimizer = make_optimizer(run.optim, run.loop.steps)

    def init_state(initial: Any) -> TrainState:
        if initial is not None:
            params = jax.tree.map(jnp.asarray, initial)
            return create_state(params, optimizer, run.optim.ema_decay)
        pixels = jnp.zeros((1, *run.data.sides, 3))
        tokens = jnp.zeros((1, run.clip.text.max_length), jnp.int32)
        params = model.init(rngs.stream(run.loop.seed, "init/clip"), pixels, tokens)["params"]
        return create_state(params, optimizer, run.optim.ema_decay)

    def note() -> str:
        held_out = None if validation is None else validation.captions()
        return caption_note(text, tokenizer, train.captions(), held_out, len(train))

    return Stage(
        init=init_state,
        step=make_contrastive_step(model, optimizer, run),
        scores=make_contrastive_scores(model, run),
        shown=(),
        frozen={},
        train=train,
        validation=validation,
        inputs=InputMaker(run.conditioners, tokenizer),
        note=note,
        initial=initial,
    )


def _begin(
    run: cfg.ContrastiveRun, train: Source, workdir: Path, init: str | None
) -> dict[str, Any] | None:
    """Writes the tokenizer of a new run into `workdir`; the parameters that it begins with, if
    there are any. Everything is read and compared before anything is written."""
    (text,), found = run.conditioners, None if init is None else read_clip(init)
    params = None
    if found is not None:
        source = f"--init={init}"
        refuse_differing(
            cfg.differences(found.config, run.clip, "clip"), source, "CLIP", "the config's clip"
        )
        params = fitting(clip_shapes(run.clip), found.params, source)
    files = None if found is None else found.tokenizer
    check_tokenizer(text, files, read=init)
    if jax.process_index() == 0:
        keep_tokenizer(text, all_captions(run.data, train), workdir, files)
    wait_for_all("frozen parts")
    return params
