"""Merges models of the same shapes:

python -m ldm_jax.cli.merge FIRST SECOND TARGET --share=0.3
python -m ldm_jax.cli.merge FIRST SECOND TARGET --minus=THIRD
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.files import check_writable

PROGRAM = "ldm_jax.cli.merge"


@dataclass(frozen=True)
class Arguments:
    """Mixes the U-Net and the conditioners of models; the first stage is the first model's."""

    first: Annotated[str, tyro.conf.Positional]
    """Work directory, model folder or single file."""
    second: Annotated[str, tyro.conf.Positional]
    """Another model of the same shapes."""
    target: Annotated[Path, tyro.conf.Positional]
    """What to write: a folder, or for compvis a file called *.safetensors."""
    share: float | None = None
    """How much of the second: (1 - share) first + share second, by default 0.5; with --minus first
    + share (second - minus), by default 1."""
    minus: str | None = None
    """Add what the second model has learnt since it was this one."""
    to: Literal["native", "diffusers", "compvis"] = "native"
    """The form of the target."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """What the target's weights are stored in; left out, as the first model's."""
    overwrite: bool = False
    """Replace the target if it is there."""


def run(arguments: Arguments) -> str:
    """Merges and writes; returns what to print."""
    check_writable(arguments.target.parent, f"the target {arguments.target}")
    # JAX starts only now, so that --help and mistakes answer at once.
    from ldm_jax.convert.compvis.writer import write_checkpoint
    from ldm_jax.convert.diffusers.pipeline_folders import write_folder
    from ldm_jax.convert.model_merging import merged
    from ldm_jax.convert.native import write_native

    usual = 0.5 if arguments.minus is None else 1.0
    share = usual if arguments.share is None else arguments.share
    model = merged(arguments.first, arguments.second, share, arguments.minus)
    writers = {"native": write_native, "diffusers": write_folder, "compvis": write_checkpoint}
    writers[arguments.to](
        model, arguments.target, dtype=arguments.dtype, overwrite=arguments.overwrite
    )
    if arguments.minus is None:
        told = f"{1 - share:g} {arguments.first} + {share:g} {arguments.second}"
    else:
        told = f"{arguments.first} + {share:g} ({arguments.second} - {arguments.minus})"
    return f"wrote {arguments.target}, which is {told}"


def main(words: list[str]) -> int:
    """The command line; returns the process's exit status."""

    def merge(words: list[str]) -> None:
        from ldm_jax.config.command_line import parse_positional

        print(run(parse_positional(Arguments, words, PROGRAM, __doc__, paths=("minus",))))

    return run_command(PROGRAM, merge, words)


if __name__ == "__main__":
    run_program(PROGRAM, main)
