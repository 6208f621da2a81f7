"""What a new run of stage two builds on, and what it begins with: parts of trained models."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.convert.model_folders import copy_tokenizer
from ldm_jax.convert.parts import InitialParams, initial_params, text_encoder_params
from ldm_jax.convert.widening import PATH
from ldm_jax.core import tree
from ldm_jax.core.distributed import wait_for_all
from ldm_jax.core.files import remove_folder
from ldm_jax.core.output import say
from ldm_jax.data.sources import Source
from ldm_jax.data.taught_words import initial_tokens
from ldm_jax.data.tokenizer import read_tokenizer, train_tokenizer
from ldm_jax.training.first_stage import keep_first_stage, open_first_stage
from ldm_jax.training.stage import validation_source
from ldm_jax.training.trainable import split, with_adapter
from ldm_jax.workdir.frozen import save_untrained
from ldm_jax.workdir.layout import TOKENIZER, TOKENIZER_FILES, keeps_untrained


def begin(
    run: cfg.DiffusionRun,
    train: Source,
    workdir: Path,
    mesh: jax.sharding.Mesh,
    first_stage: str | None,
    init: str | None,
    text_encoder: str | None,
) -> dict[str, Any]:
    """Writes what a new run builds on into `workdir`: first stage, tokenizer, and the parameters
    that it leaves as they are. Returns those to begin with, as far as a model gives them.

    Everything is read and compared before anything is written.

    Raises:
        cfg.ConfigError: what is missing, or does not fit.
        ConvertError, FileFormatError, TokenizerError, OSError: a model that cannot be read.
    """
    stage = None
    if run.space == "latents":
        stage = open_first_stage(workdir, first_stage or init)
    model = run.model(stage.config if stage else cfg.Pixels())
    text = cfg.find(run.conditioners, cfg.TextConditioner)
    found = _read(model, text, init, text_encoder)
    trained, untrained = _divide(run, model, found)
    if found.widening:
        _check_widening(run, untrained, found.widening)
    if text is not None:
        check_tokenizer(text, found.tokenizer, read=text_encoder or init)
    if stage is not None:
        keep_first_stage(run, train, workdir, mesh, stage)
    if keeps_untrained(run):
        save_untrained(workdir, untrained)
    if text is not None and jax.process_index() == 0:
        keep_tokenizer(text, all_captions(run.data, train), workdir, found.tokenizer)
    if found.widening and jax.process_index() == 0:
        say(found.widening)
    wait_for_all("frozen parts")
    return trained


def _read(
    model: cfg.Model, text: cfg.TextConditioner | None, init: str | None, text_encoder: str | None
) -> InitialParams:
    """The parameters that the named models have, and the files of the tokenizer."""
    found = InitialParams({}, None) if init is None else initial_params(init, model)
    if text_encoder is None:
        return found
    if text is None:
        raise cfg.ConfigError(f"--text_encoder={text_encoder}: this config has no text encoder")
    encoder = text_encoder_params(text_encoder, text)
    own = found.params.get("conditioners", {}) | {text.name: encoder.params}
    params = found.params | {"conditioners": own}
    return replace(found, params=params, tokenizer=encoder.tokenizer)


def _divide(
    run: cfg.DiffusionRun, model: cfg.Model, beginning: InitialParams
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters to begin with as what is trained and what is left as it is, of which nothing
    may be missing."""
    params = beginning.params
    shapes = jax.eval_shape(lambda: ldm.init_params(ldm.build(model), run.loop.seed))
    found = tree.flatten(params)
    missing = sorted(tree.flatten(shapes).keys() - found.keys())
    if run.adapter is None:
        trained, untrained = (tree.flatten(part) for part in split(shapes, run))
        missing = [path for path in missing if path in untrained]
    if missing:
        raise cfg.ConfigError(
            f"train is {' '.join(run.train)!r}, so {len(missing)} parameters are not trained, such "
            f"as {missing[0]}; name the model to take them from with --init=MODEL, or a text "
            "encoder's with --text_encoder=MODEL"
        )
    if run.adapter is not None:
        tokens: Sequence[int] = (0,)
        if isinstance(run.adapter, cfg.TextualInversion):
            text = cfg.find(run.conditioners, cfg.TextConditioner)
            check_tokenizer(text, beginning.tokenizer, read=None)
            tokens = initial_tokens(run.adapter, read_tokenizer(beginning.tokenizer, text))
        return split(with_adapter(params, run, model, tokens), run)
    return (
        tree.unflatten({path: leaf for path, leaf in found.items() if path in trained}),
        tree.unflatten({path: leaf for path, leaf in found.items() if path in untrained}),
    )


def _check_widening(run: cfg.DiffusionRun, untrained: dict[str, Any], widening: str) -> None:
    """Raises where the new inputs, which begin at zero, would stay there."""
    if PATH in tree.flatten(untrained):
        raise cfg.ConfigError(
            f"train is {' '.join(run.train)!r}, which leaves {PATH} as it is, but {widening}: use "
            "'all' or 'unet'"
        )


def check_tokenizer(text: cfg.TextConditioner, files: Path | None, read: str | None) -> None:
    """Raises unless `files` has the tokenizer that `text` asks for, or it can be made."""
    if files is not None:
        read_tokenizer(files, text)
    elif read is not None:
        raise cfg.ConfigError(
            f"{read} has no tokenizer; write a copy that has it with python -m ldm_jax.convert "
            f"{read} TARGET --tokenizer=FOLDER, and name that"
        )
    elif text.tokenizer in ("clip", "bert"):
        raise cfg.ConfigError(
            f"text_encoder.tokenizer is {text.tokenizer!r}, whose files come with a trained model: "
            "name one with --init=MODEL or --text_encoder=MODEL, or use 'word' or 'bpe', which are "
            "made from the captions"
        )


def all_captions(data: cfg.Data, train: Source) -> Iterator[str]:
    """The training captions, then those kept for validation, whose words and letters a tokenizer
    is to know too."""
    yield from train.captions()
    validation = validation_source(data, train)
    if validation is not None:
        yield from validation.captions()


def keep_tokenizer(
    text: cfg.TextConditioner, captions: Iterable[str], workdir: Path, files: Path | None
) -> None:
    """The tokenizer in `files`, or one made from the captions, as the run's own."""
    remove_folder(workdir / TOKENIZER_FILES)  # an earlier attempt's
    if files is not None:
        workdir.mkdir(parents=True, exist_ok=True)
        copy_tokenizer(files, workdir / TOKENIZER_FILES)
        return
    captions = itertools.chain(captions, text.extra_words)
    made = train_tokenizer(captions, text.encoder.vocab_size, text.tokenizer)
    made.save(workdir / TOKENIZER)
