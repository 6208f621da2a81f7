"""Trains the model that a config describes: `python train.py --config=FILE --workdir=DIR`."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro

from ldm_jax import config as cfg

INTERRUPTED = 75
"""Exit status after SIGTERM or Ctrl-C: the state is saved, the same command goes on from it."""
HELP = """Any field of the config can be overridden here. Beside these there are
--workdir=DIR, where checkpoints and metrics go and where a run goes on from;
--first_stage=DIR, the work directory of the autoencoder that stage two builds on;
--latents=DIR, images that were encoded before, which take the place of the config's;
--init=PATH, a trained autoencoder that a new run of stage one begins with; and
--coordinator=HOST:PORT --num_processes=N --process_id=I, for a run of several processes."""


def parse(arguments: list[str]) -> tuple[cfg.Run, argparse.Namespace]:
    """The config with its overrides, and the places of this run."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("--workdir")
    parser.add_argument("--first_stage")
    parser.add_argument("--latents")
    parser.add_argument("--init")
    parser.add_argument("--coordinator")
    parser.add_argument("--num_processes", type=int)
    parser.add_argument("--process_id", type=int)
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
        args=overrides,
        prog=f"train.py --config={places.config} --workdir=DIR [--first_stage=DIR] [--init=PATH]",
        description=HELP,
    )
    if places.workdir is None:
        raise cfg.ConfigError("--workdir=DIR is missing: where checkpoints and metrics go")
    return config, places


def trained_parts(config: cfg.Run, init: str | None) -> dict[str, Callable[[], Any]]:
    """What gives stage one the parameters that others trained, where it needs them."""
    from ldm_jax.convert.first_stage import first_stage_params

    parts: dict[str, Callable[[], Any]] = {}
    if init is not None:
        parts["initial"] = lambda: first_stage_params(init, config.autoencoder)
    perceptual = config.loss.perceptual if isinstance(config, cfg.AutoencoderRun) else None
    if perceptual is not None:
        from ldm_jax.convert.lpips import read_lpips

        parts["perceptual"] = lambda: read_lpips(perceptual.vgg, perceptual.heads or None)
    return parts


def main(arguments: list[str]) -> int:
    """Runs until the configured step; returns the process's exit status."""
    try:
        config, places = parse(arguments)
    except cfg.ConfigError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2

    # JAX starts only now, so that --help and mistakes answer at once.
    import jax

    from ldm_jax.training.loop import Interrupted, NonFiniteLoss, fit

    if places.num_processes is not None:
        jax.distributed.initialize(places.coordinator, places.num_processes, places.process_id)
    first_stage = Path(places.first_stage) if places.first_stage else None
    try:
        fit(config, Path(places.workdir), first_stage, **trained_parts(config, places.init))
    except Interrupted as stop:
        print(f"train.py: {stop}", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, NonFiniteLoss) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
