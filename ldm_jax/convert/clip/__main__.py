"""Writes a CLIP as transformers keeps it, or says what it is:

python -m ldm_jax.convert.clip CLIP TARGET
python -m ldm_jax.convert.clip CLIP --inspect
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.files import check_writable

if TYPE_CHECKING:
    from ldm_jax.convert.clip.clip_folders import ImportedClip


@dataclass(frozen=True)
class ClipArguments:
    """Writes a CLIP as transformers keeps it, or says what it is."""

    clip: Annotated[Path, tyro.conf.Positional]
    """A work directory of a run that trained one, or a folder of transformers."""
    target: Annotated[Path | None, tyro.conf.Positional] = None
    """The folder to write."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """What the target's weights are stored in."""
    variant: str | None = None
    """Of a folder: reads files called *.VARIANT.safetensors, where there are such."""
    inspect: bool = False
    """Only say what it is."""
    overwrite: bool = False
    """Replace the target if it is there."""


def run(arguments: ClipArguments) -> str:
    """Converts or inspects; returns what to print."""
    if (arguments.target is None) != arguments.inspect:
        raise ValueError("name a TARGET to write, or give --inspect alone")
    if arguments.target is not None:
        check_writable(arguments.target.parent, f"the target {arguments.target}")
    # JAX starts only now, so that --help and mistakes answer at once.
    from ldm_jax.convert.clip.clip_folders import read_clip, write_clip

    clip = read_clip(arguments.clip, arguments.variant)
    told = describe(clip)
    if arguments.target is None:
        return told
    write_clip(clip, arguments.target, dtype=arguments.dtype, overwrite=arguments.overwrite)
    return f"{told}\nwrote {arguments.target}"


def describe(clip: "ImportedClip") -> str:
    """What a CLIP is, in a few lines."""
    from ldm_jax.core import tree

    text, vision = clip.config.text, clip.config.vision
    lines = [
        f"name: {clip.name}",
        f"parameters: {tree.count(clip.params):,}, SHA-256 {clip.weights_sha256}",
        f"images: {vision.image_size} pixels, patches of {vision.patch_size}; {vision.layers} "
        f"layers of width {vision.width}",
        f"texts: {text.max_length} tokens of {text.vocab_size}; {text.layers} layers of width "
        f"{text.width}",
        f"embeddings: width {clip.config.embedding}",
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in clip.notes)])


def main(words: list[str]) -> int:
    """The command line; returns the process's exit status, as docs/import.md lists them."""

    def convert(words: list[str]) -> None:
        from ldm_jax.config.command_line import parse_positional

        print(run(parse_positional(ClipArguments, words, "clip", __doc__, paths=())))

    return run_command("clip", convert, words)


if __name__ == "__main__":
    run_program("clip", main)
