"""Command lines whose defaults come from a config file."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import tyro

from ldm_jax.config.data import ImageFolder
from ldm_jax.config.files import load

Arguments = TypeVar("Arguments")


def parse(
    default: Arguments, arguments: Sequence[str], *, prog: str, description: str
) -> Arguments:
    """`default`, a dataclass with a field `data`, with what the command line says.

    `--config=FILE` takes `data` from the config in FILE, and `--images=FOLDER` its source from a
    folder; the other options override single fields, such as `--data.image_size=64`.

    Raises:
        ConfigError: there is no config in FILE, or one of its overrides is impossible.
        SystemExit: after --help, or options that do not exist.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    first.add_argument("--images")
    given, rest = first.parse_known_args(arguments)
    data = default.data if given.config is None else load(given.config).data
    if given.images is not None:
        data = replace(data, source=ImageFolder(path=given.images))
    default = replace(default, data=data)
    kind: Any = type(default)
    return tyro.cli(
        tyro.conf.AvoidSubcommands[kind], default=default, args=rest, prog=prog,
        description=description,
    )  # fmt: skip
