"""Command lines whose defaults come from a config file."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import tyro

from ldm_jax.config.files import load

Arguments = TypeVar("Arguments")


def parse(
    default: Arguments, arguments: Sequence[str], *, prog: str, description: str
) -> Arguments:
    """`default`, a dataclass with a field `data`, with what the command line says.

    `--config=FILE` takes `data` from the config in FILE; the other options override single
    fields, such as `--data.image_size=64`.

    Raises:
        ConfigError: there is no config in FILE.
        SystemExit: after --help, or options that do not exist.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    given, rest = first.parse_known_args(arguments)
    if given.config is not None:
        default = replace(default, data=load(given.config).data)
    kind: Any = type(default)
    return tyro.cli(
        tyro.conf.AvoidSubcommands[kind], default=default, args=rest, prog=prog,
        description=description,
    )  # fmt: skip
