"""Converts models between this project's form, diffusers folders and CompVis' single files, those
of taming-transformers included:

python -m ldm_jax.convert SOURCE TARGET --to=native
python -m ldm_jax.convert SOURCE TARGET --lora FILE:0.8
python -m ldm_jax.convert SOURCE --inspect
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.files import check_writable


@dataclass(frozen=True)
class Arguments:
    """Converts a model from one form to another, or says what it is."""

    source: Annotated[Path, tyro.conf.Positional]
    """Work directory, native folder, diffusers folder or single file."""
    target: Annotated[Path | None, tyro.conf.Positional] = None
    """What to write: a folder, or for compvis a file called *.safetensors."""
    to: Literal["native", "diffusers", "compvis"] = "native"
    """The form of the target."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """What the target's weights are stored in; left out, each stays as it is."""
    weights: Literal["ema", "raw"] | None = None
    """Averages or raw weights, where the source has both; left out, ema of a work directory, and
    raw of a single file unless it has averages alone."""
    variant: str | None = None
    """Of a diffusers folder: reads files called *.VARIANT.safetensors, where there are such."""
    prediction: Literal["eps", "x0", "v"] | None = None
    """Of a single file that does not tell: what the network predicts."""
    original_config: Path | None = None
    """Of a single file of no published architecture: the YAML settings it was trained with."""
    heads: int | None = None
    """Of a file of taming-transformers without --original_config: the number of heads."""
    num_classes: int | None = None
    """Beside --heads: the number of classes it is conditioned on; left out: none."""
    tokenizer: Path | None = None
    """Folder with a tokenizer's files, which single files lack."""
    vae: Path | None = None
    """Model with the first stage of a single file that has none, or another."""
    text_encoder: Path | None = None
    """Model, or folder, with the text encoder of a single file that has none, or another."""
    lora: tuple[str, ...] = ()
    """Adapters (LoRA) to merge into the model, each FILE, FILE:STRENGTH, or FILE:TE:UNET with
    strengths for text encoder and U-Net."""
    inspect: bool = False
    """Only say what the source is."""
    overwrite: bool = False
    """Replace the target if it is there."""


_OF_CODES = ("heads", "num_classes")
_OF_OTHERS = ("variant", "prediction", "tokenizer", "vae", "text_encoder", "lora")


def check_options(arguments: Arguments, of_codes: bool) -> None:
    """Raises ValueError for options that such a source does not have: a transformer over codes, or
    any other model."""
    what = "is a transformer over codes" if of_codes else "is no transformer over codes"
    for name in _OF_OTHERS if of_codes else _OF_CODES:
        if getattr(arguments, name) not in (None, ()):
            raise ValueError(f"{arguments.source} {what}, which has no --{name}; leave it out")
    if of_codes and arguments.to == "diffusers":
        raise ValueError(
            f"{arguments.source} {what}, which diffusers does not have; write it with --to=native, "
            "or --to=compvis for a file of taming-transformers"
        )


def run(arguments: Arguments) -> str:
    """Converts or inspects; returns what to print."""
    if (arguments.target is None) != arguments.inspect:
        raise ValueError("name a TARGET to convert to, or give --inspect alone")
    if arguments.inspect and arguments.lora:
        raise ValueError("--inspect says what a model is; adapters are looked at with python -m "
                         "ldm_jax.convert.adapters ADAPTER --inspect --model=MODEL")  # fmt: skip
    if arguments.target is not None:
        check_writable(arguments.target.parent, f"the target {arguments.target}")
    # JAX starts only now, so that --help and mistakes answer at once.
    from ldm_jax.convert.adapters.merged_model import with_adapters
    from ldm_jax.convert.code_models import holds_codes, open_code_model
    from ldm_jax.convert.compvis.writer import write_checkpoint
    from ldm_jax.convert.conversion_report import describe
    from ldm_jax.convert.diffusers.pipeline_folders import write_folder
    from ldm_jax.convert.loading import load
    from ldm_jax.convert.native import write_native
    from ldm_jax.convert.taming_writer import write_taming

    start = time.monotonic()
    writers = {"native": write_native, "diffusers": write_folder, "compvis": write_checkpoint}
    source = arguments.source
    of_codes = holds_codes(source)
    check_options(arguments, of_codes)
    if of_codes:
        writers = {"native": write_native, "compvis": write_taming}
        imported = open_code_model(
            source, weights=arguments.weights, original_config=arguments.original_config,
            heads=arguments.heads, num_classes=arguments.num_classes,
        )  # fmt: skip
    else:
        imported = load(
            source, weights=arguments.weights, variant=arguments.variant,
            prediction=arguments.prediction, original_config=arguments.original_config,
            tokenizer=arguments.tokenizer, vae=arguments.vae, text_encoder=arguments.text_encoder,
        )  # fmt: skip
    if arguments.target is None:
        return describe(imported)
    if arguments.lora:
        imported = with_adapters(imported, arguments.lora)
    written = writers[arguments.to](
        imported, arguments.target, dtype=arguments.dtype, overwrite=arguments.overwrite
    )
    seconds = time.monotonic() - start
    notes = "".join(f"\nnote: {note}" for note in written.notes[len(imported.notes) :])
    return f"{describe(imported)}{notes}\nwrote {arguments.target} in {seconds:.1f} s"


def main(words: list[str]) -> int:
    """The command line; returns the process's exit status, as docs/import.md lists them."""

    def convert(words: list[str]) -> None:
        from ldm_jax.config.command_line import parse_positional

        print(
            run(
                parse_positional(
                    Arguments,
                    words,
                    "convert",
                    __doc__,
                    paths=("original_config", "tokenizer", "vae", "text_encoder"),
                )
            )
        )

    return run_command("convert", convert, words)


if __name__ == "__main__":
    run_program("convert", main)
