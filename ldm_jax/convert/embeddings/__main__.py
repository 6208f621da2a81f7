"""Converts embeddings (textual inversion) between the forms of other programs:

python -m ldm_jax.convert.embeddings EMBEDDING TARGET --to=diffusers
python -m ldm_jax.convert.embeddings EMBEDDING --inspect
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.files import check_writable

if TYPE_CHECKING:
    from ldm_jax.adapters.embedding import Embedding


@dataclass(frozen=True)
class EmbeddingArguments:
    """Converts embeddings from one form to another, or says what they are."""

    embedding: Annotated[Path, tyro.conf.Positional]
    """A file with one or several, an adapter that brings some along, or the work directory that
    they were trained in."""
    target: Annotated[Path | None, tyro.conf.Positional] = None
    """What to write: a file called *.safetensors."""
    to: Literal["a1111", "diffusers"] = "a1111"
    """The form of the target: the web UI's and kohya's, which holds one, called as the file; or
    diffusers', which has each under its word."""
    word: str | None = None
    """Only the embedding of this word."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """What the target's numbers are stored in; left out, each stays as it is."""
    inspect: bool = False
    """Only say what they are."""
    overwrite: bool = False
    """Replace the target if it is there."""


def run(arguments: EmbeddingArguments) -> str:
    """Converts or inspects; returns what to print."""
    if (arguments.target is None) != arguments.inspect:
        raise ValueError("name a TARGET to convert to, or give --inspect alone")
    if arguments.target is not None:
        check_writable(arguments.target.parent, f"the target {arguments.target}")
    from ldm_jax.convert.embeddings.embedding_files import read_embeddings
    from ldm_jax.convert.embeddings.embedding_writer import write_embeddings

    found = read_embeddings(arguments.embedding)
    if arguments.word is not None:
        words = ", ".join(one.name for one in found)
        found = tuple(one for one in found if arguments.word in one.words)
        if not found:
            raise ValueError(
                f"--word={arguments.word}: {arguments.embedding} has no such embedding, but {words}"
            )
    told = "\n".join(map(describe, found))
    if arguments.target is None:
        return told
    write_embeddings(
        found, arguments.target, arguments.to, dtype=arguments.dtype,
        overwrite=arguments.overwrite,
    )  # fmt: skip
    return f"{told}\nwrote {arguments.target}"


def describe(one: "Embedding") -> str:
    """What an embedding is, in a line."""
    from ldm_jax.convert.adapters.trained_adapter import FAMILIES

    count = len(one.vectors)
    family = FAMILIES.get(one.width)
    lines = [
        " or ".join(one.words),
        f"{count} vector{'s' if count > 1 else ''} of width {one.width}",
        *([f"made for {family}"] if family else []),
        *([] if one.step is None else [f"step {one.step}"]),
        str(one.vectors.dtype),
    ]
    return f"{lines[0]}: {'; '.join(lines[1:])}"


def main(words: list[str]) -> int:
    """The command line; returns the process's exit status, as docs/import.md lists them."""

    def convert(words: list[str]) -> None:
        from ldm_jax.config.command_line import parse_positional

        print(run(parse_positional(EmbeddingArguments, words, "embeddings", __doc__, paths=())))

    return run_command("embeddings", convert, words)


if __name__ == "__main__":
    run_program("embeddings", main)
