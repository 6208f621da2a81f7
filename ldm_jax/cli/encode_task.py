"""What `python -m ldm_jax.cli.encode` does."""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ldm_jax import config as cfg
from ldm_jax.config.checks import Count, Within, require, settings
from ldm_jax.config.command_line import parse
from ldm_jax.core import distributed
from ldm_jax.core.cluster import Place, find_share
from ldm_jax.core.files import check_apart, check_writable
from ldm_jax.core.stores import as_path
from ldm_jax.data.sources import has_validation

PROGRAM = "ldm_jax.cli.encode"
HELP = """Writes what a first stage makes of every image, with captions, labels and names.
What is there already stays: the same command goes on where it was interrupted."""


@settings
class Arguments:
    first_stage: str = ""
    """Work directory, native or diffusers folder or single file; of a whole model its first
    stage."""
    out: Path | None = None
    """The folder of latents."""
    split: Literal["train", "validation", "test", "both"] = "both"
    """`both` is train, and validation where the data keep images for it."""
    what: Literal["latents", "codes"] = "latents"
    """Moments of the posterior (KL) or latents before quantisation, to train from; or the numbers
    of the codebook's vectors."""
    text_encoder: str | None = None
    """The model whose text encoder reads the captions; training then takes what it made of them
    beside the latents, and does not run it."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """What latents and text states are stored in."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """What the encoders compute in."""
    batch_size: Annotated[int, Within(1, 65536)] = 32
    """Images encoded at once."""
    shard_size: Count = 4096
    """Images in one file. An interrupted file is begun again."""
    data: cfg.Data = field(default_factory=cfg.Data)
    share: Annotated[cfg.WorkShare, tyro.conf.arg(name="")] = field(default_factory=cfg.WorkShare)


def run(arguments: Arguments) -> list[str]:
    """Encodes the splits and returns a line about each.

    Raises:
        ValueError, OSError: it cannot be.
    """
    require(arguments.out is not None, "--out", None, "the folder of latents")
    check_writable(arguments.out, f"--out={arguments.out}", stored=True)
    check_apart(
        arguments.out, "--out", as_path(arguments.first_stage), "the first stage", below=False
    )
    for folder in cfg.folders_of(arguments.data.source):
        check_apart(arguments.out, "--out", folder, "the images")
    place = find_share(**vars(arguments.share))
    with distributed.together(PROGRAM, place):
        return _encode(arguments, place)


def _encode(arguments: Arguments, place: Place) -> list[str]:
    # JAX starts only now, so that --help and mistakes answer at once.
    from ldm_jax.generation.encoding import Storage, encode

    storage = Storage(
        arguments.what, arguments.dtype, arguments.compute, arguments.shard_size,
        arguments.batch_size,
    )  # fmt: skip
    lines = []
    done = encode(
        arguments.first_stage, arguments.data, _splits(arguments), arguments.out, storage,
        arguments.text_encoder, process_index=place.index, process_count=place.count,
    )  # fmt: skip
    for split, written in done.items():
        line = f"{split}: {written.images} images encoded, {written.rate:.1f} images/s"
        if not written.images:
            line = f"{split}: nothing was left to encode"
        if written.missing:
            line += f"; other processes have {written.missing} shards to write"
        lines.append(line)
    return lines


def _splits(arguments: Arguments) -> tuple[Literal["train", "validation", "test"], ...]:
    if arguments.split != "both":
        return (arguments.split,)
    return ("train", "validation") if has_validation(arguments.data.source) else ("train",)


def main(program: str, words: list[str]) -> None:
    """Encodes what a command line says.

    Raises:
        ValueError, OSError: it cannot be.
    """
    arguments = parse(Arguments(), words, prog=program, description=HELP, model="first_stage")
    print("\n".join(run(arguments)))
