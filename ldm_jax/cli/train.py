"""What `train.py` does."""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import tyro

from ldm_jax import config as cfg
from ldm_jax.config.command_line import check_given, check_model, switches
from ldm_jax.core import distributed
from ldm_jax.core.command import say
from ldm_jax.core.files import check_apart
from ldm_jax.workdir.record import has_checkpoints

if TYPE_CHECKING:  # JAX starts later, so that --help and mistakes answer at once
    from jax.sharding import Mesh

    from ldm_jax.training.stage import Stage

PROGRAM = "train.py"
HELP = """Any field of the config can be overridden here. Beside these there are
--workdir=DIR, where checkpoints and metrics go and where a run goes on from;
--first_stage=MODEL, whose autoencoder a new run of stage two builds on;
--latents=DIR, images that were encoded before, which take the place of the config's;
--init=MODEL, a trained model that a new run begins with;
--text_encoder=MODEL, one whose text encoder and tokenizer it begins with; and
--coordinator=HOST:PORT --num_processes=N --process_id=I, for a run of several processes.
A MODEL is a work directory, a model folder, or a single file."""


def parse(arguments: list[str]) -> tuple[cfg.Run, argparse.Namespace]:
    """The config with its overrides, and the places of this run."""
    check_given(arguments, PLACES)
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("--workdir")
    parser.add_argument("--first_stage")
    parser.add_argument("--latents")
    parser.add_argument("--init")
    parser.add_argument("--text_encoder")
    parser.add_argument("--coordinator")
    parser.add_argument("--num_processes", type=_number)
    parser.add_argument("--process_id", type=_number)
    places, overrides = parser.parse_known_args(arguments)
    if places.config is None:
        raise cfg.ConfigError(
            "--config=FILE is missing: see configs/. With it, --help lists all that can be set"
        )
    config = cfg.load(places.config)
    if places.latents is not None:
        latents = replace(config.data, source=cfg.EncodedLatents(places.latents))
        config = replace(config, data=latents)
    config = tyro.cli(
        tyro.conf.AvoidSubcommands[type(config)],
        default=config,
        args=switches(overrides),
        prog=f"train.py --config={places.config} --workdir=DIR [--first_stage=M] [--init=M]",
        description=HELP,
    )
    if places.workdir is None:
        raise cfg.ConfigError("--workdir=DIR is missing: where checkpoints and metrics go")
    distributed.check(places.coordinator, places.num_processes, places.process_id)
    return config, places


PLACES = ("config", "workdir", "first_stage", "latents", "init", "text_encoder")


def check_places(run: cfg.Run, places: argparse.Namespace) -> None:
    """Refuses, before anything heavy is loaded, models that are not there and a work directory in
    the folder of the data, which would be read as data too.

    Raises:
        cfg.ConfigError, ValueError: names the option.
    """
    workdir = Path(places.workdir)
    if isinstance(run.data.source, cfg.ImageFolder | cfg.EncodedLatents) and run.data.source.path:
        check_apart(workdir, "--workdir", Path(run.data.source.path), "the training data")
    for option in ("first_stage", "init", "text_encoder"):
        path = getattr(places, option)
        # A run that goes on has its own parts, and what it began with may be gone.
        if path is not None and not has_checkpoints(workdir):
            check_model(path, option)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise cfg.ConfigError(message)


def _number(word: str) -> int:
    if not word.isascii() or not word.isdecimal():
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number")
    return int(word)


def make_stage(
    run: cfg.Run,
    workdir: Path,
    mesh: "Mesh",
    first_stage: str | None = None,
    init: str | None = None,
    text_encoder: str | None = None,
) -> "Stage":
    """What `run` trains, begun with the models that are named; see `fit`.

    Raises:
        cfg.ConfigError, ValueError, OSError: as the stage's own function.
    """
    from ldm_jax.training.autoencoder_stage import autoencoder_stage
    from ldm_jax.training.classifier_stage import classifier_stage
    from ldm_jax.training.diffusion_stage import diffusion_stage

    named = {"--first_stage": first_stage, "--init": init, "--text_encoder": text_encoder}
    _check_models(run, workdir, {option: path for option, path in named.items() if path})
    match run:
        case cfg.AutoencoderRun(loss=loss):
            perceptual = None if loss.perceptual is None else partial(lpips, loss.perceptual)
            return autoencoder_stage(run, workdir, init, perceptual)
        case cfg.ClassifierRun():
            return classifier_stage(run, workdir, mesh, first_stage)
        case cfg.DiffusionRun():
            return diffusion_stage(run, workdir, mesh, first_stage, init, text_encoder)


_NO_USE = {
    (cfg.AutoencoderRun, "--first_stage"): "this config trains a first stage",
    (cfg.AutoencoderRun, "--text_encoder"): "this config trains a first stage",
    (cfg.ClassifierRun, "--init"): "a classifier begins with fresh weights",
    (cfg.ClassifierRun, "--text_encoder"): "a classifier reads no text",
}


def _check_models(run: cfg.Run, workdir: Path, named: dict[str, str]) -> None:
    """Refuses models that are no use to `run`, and says where they are no longer any."""
    for option, path in named.items():
        if reason := _NO_USE.get((type(run), option)):
            raise cfg.ConfigError(f"{option}={path}: {reason}")
        if has_checkpoints(workdir):
            say(f"{option} was for the beginning of this run, which goes on from its own parts")


def lpips(config: cfg.Perceptual) -> Any:
    """LPIPS' parameters from the files that the config names."""
    from ldm_jax.convert.lpips_weights import HOW_TO_GET, read_lpips

    if not config.vgg:
        raise cfg.ConfigError(
            f"loss.perceptual.vgg is missing. {HOW_TO_GET}: name them with "
            "--loss.perceptual.vgg=FILE --loss.perceptual.heads=FILE, or write a config whose "
            "loss.perceptual is None"
        )
    return read_lpips(config.vgg, config.heads or None)


def main(arguments: list[str]) -> None:
    """Trains until the configured step.

    Raises:
        Failed, ValueError, OSError: as `fit`.
    """
    config, places = parse(arguments)
    check_places(config, places)
    several = places.coordinator, places.num_processes, places.process_id
    with distributed.together(PROGRAM, *several):
        # JAX starts only now, so that --help and mistakes answer at once.
        from ldm_jax.training.loop import fit

        workdir = Path(places.workdir)
        models = places.first_stage, places.init, places.text_encoder
        fit(config, workdir, lambda mesh: make_stage(config, workdir, mesh, *models))
