"""Converts ControlNets between the forms of other programs:

python -m ldm_jax.convert.controlnets CONTROL TARGET --model=MODEL --to=diffusers
python -m ldm_jax.convert.controlnets CONTROL --model=MODEL --inspect
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.files import check_writable

if TYPE_CHECKING:
    from ldm_jax.convert.controlnets.control_files import ImportedControl


@dataclass(frozen=True)
class ControlArguments:
    """Converts a ControlNet from one form to another, or says what it is."""

    control: Annotated[Path, tyro.conf.Positional]
    """Its file, or its folder."""
    target: Annotated[Path | None, tyro.conf.Positional] = None
    """What to write: a folder, or for the original's form a file called *.safetensors."""
    model: Path | None = None
    """A model that it is made for, which tells what its file does not."""
    to: Literal["diffusers", "original"] = "diffusers"
    """The form of the target: diffusers' folder, or the original's file, which the web UI reads."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """What the target's numbers are stored in; left out, each stays as it is."""
    variant: str | None = None
    """Of a folder: reads files called *.VARIANT.safetensors, where there are such."""
    inspect: bool = False
    """Only say what it is."""
    overwrite: bool = False
    """Replace the target if it is there."""


def run(arguments: ControlArguments) -> str:
    """Converts or inspects; returns what to print."""
    from ldm_jax.config.command_line import check_model

    if (arguments.target is None) != arguments.inspect:
        raise ValueError("name a TARGET to convert to, or give --inspect alone")
    check_model(None if arguments.model is None else str(arguments.model), "model")
    if arguments.target is not None:
        check_writable(arguments.target.parent, f"the target {arguments.target}")
    # JAX starts only now, so that --help and mistakes answer at once.
    from ldm_jax import config as cfg
    from ldm_jax.convert.controlnets.control_files import read_control
    from ldm_jax.convert.controlnets.control_writer import write_control
    from ldm_jax.convert.loading import load

    model = load(arguments.model)
    if not isinstance(model.config, cfg.Model):
        raise ValueError(f"--model={arguments.model} is a first stage alone, which has no U-Net")
    control = read_control(
        arguments.control, model.config, model.params["unet"], arguments.variant
    )  # fmt: skip
    told = describe(control)
    if arguments.target is None:
        return told
    write_control(
        control, arguments.target, arguments.to, dtype=arguments.dtype,
        overwrite=arguments.overwrite,
    )  # fmt: skip
    return f"{told}\nwrote {arguments.target}"


def describe(control: "ImportedControl") -> str:
    """What a ControlNet is, in a few lines."""
    from ldm_jax.core import tree

    config = control.config
    lines = [
        f"name: {control.name}",
        f"parameters: {tree.count(control.params):,}",
        f"levels: {' '.join(map(str, config.unet.block_out_channels))}; text of width "
        f"{config.unet.context_dim}",
        f"hint: {config.hint_channels} channels, {config.hint_factor} times as large as latents",
    ]
    if config.global_pool:
        lines.append("adds the mean over the picture")
    return "\n".join([*lines, *(f"note: {note}" for note in control.notes)])


def main(words: list[str]) -> int:
    """The command line; returns the process's exit status, as docs/import.md lists them."""

    def convert(words: list[str]) -> None:
        from ldm_jax.config.command_line import parse_positional

        print(
            run(parse_positional(ControlArguments, words, "controlnets", __doc__, paths=("model",)))
        )

    return run_command("controlnets", convert, words)


if __name__ == "__main__":
    run_program("controlnets", main)
