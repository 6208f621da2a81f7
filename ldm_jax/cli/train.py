"""What `train.py` does."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import tyro

from ldm_jax import config as cfg
from ldm_jax.config.command_line import switches
from ldm_jax.core import processes

PROGRAM = "train.py"
HELP = """Any field of the config can be overridden here. Beside these there are
--workdir=DIR, where checkpoints and metrics go and where a run goes on from;
--first_stage=DIR, the work directory of the autoencoder that stage two builds on;
--latents=DIR, images that were encoded before, which take the place of the config's;
--init=PATH, a trained autoencoder that a new run of stage one begins with; and
--coordinator=HOST:PORT --num_processes=N --process_id=I, for a run of several processes."""


def parse(arguments: list[str]) -> tuple[cfg.Run, argparse.Namespace]:
    """The config with its overrides, and the places of this run."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("--workdir")
    parser.add_argument("--first_stage")
    parser.add_argument("--latents")
    parser.add_argument("--init")
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
        prog=f"train.py --config={places.config} --workdir=DIR [--first_stage=DIR] [--init=PATH]",
        description=HELP,
    )
    if places.workdir is None:
        raise cfg.ConfigError("--workdir=DIR is missing: where checkpoints and metrics go")
    processes.check(places.coordinator, places.num_processes, places.process_id)
    return config, places


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise cfg.ConfigError(message)


def _number(word: str) -> int:
    if not word.isascii() or not word.isdecimal():
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number")
    return int(word)


def trained_parts(config: cfg.Run, init: str | None) -> dict[str, Callable[[], Any]]:
    """What gives stage one the parameters that others trained, where it needs them."""
    from ldm_jax.convert.parts import first_stage_params

    parts: dict[str, Callable[[], Any]] = {}
    if init is not None:
        parts["initial"] = lambda: first_stage_params(init, config.autoencoder)
    if isinstance(config, cfg.AutoencoderRun) and config.loss.perceptual is not None:
        parts["perceptual"] = lambda: lpips(config.loss.perceptual)
    return parts


def lpips(config: cfg.Perceptual) -> Any:
    """LPIPS' parameters from the files that the config names."""
    from ldm_jax.convert.lpips import HOW_TO_GET, read_lpips

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
    first_stage = Path(places.first_stage) if places.first_stage else None
    several = places.coordinator, places.num_processes, places.process_id
    with processes.together(PROGRAM, *several):
        # JAX starts only now, so that --help and mistakes answer at once.
        from ldm_jax.training.loop import fit

        fit(config, Path(places.workdir), first_stage, **trained_parts(config, places.init))
