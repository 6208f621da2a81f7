"""A folder of embeddings, whose words prompts may have in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ldm_jax.adapters.embedding import Embedding
from ldm_jax.config.checks import ConfigError
from ldm_jax.convert.embeddings.embedding_files import check_width, read_embeddings
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core.reading import FileFormatError

ENDS = (".safetensors", ".pt", ".bin", ".png")
"""Files of a folder that may be embeddings."""


@dataclass(frozen=True, eq=False)
class EmbeddingFolder:
    """What is in it now."""

    found: tuple[tuple[Path, Embedding], ...]
    """Those that can be used, each with its file."""
    wide: tuple[tuple[Path, Embedding], ...]
    """Those for text encoders of another width."""
    notes: tuple[str, ...]
    """Why the others cannot be used."""


def read_embedding_folder(folder: Path, width: int | None = None) -> EmbeddingFolder:
    """The embeddings below `folder` for a text encoder of this width, or of any.

    Raises:
        ConfigError: it is no folder.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"embeddings_dir is {folder}, which is no folder; name one with embeddings"
        )
    found: list[tuple[Path, Embedding]] = []
    wide: list[tuple[Path, Embedding]] = []
    notes = []
    for path in _listed(folder):
        try:
            own = read_embeddings(path)
        except (ConvertError, FileFormatError) as error:
            notes.append(f"left out: {error}")
            continue
        try:
            for one in own if width is not None else ():
                check_width(str(path), one, width)
            found += ((path, one) for one in own)
        except ConvertError as error:
            notes.append(f"left out: {error}")
            wide += ((path, one) for one in own)
    return EmbeddingFolder(tuple(found), tuple(wide), tuple(notes))


def _listed(folder: Path) -> Iterator[Path]:
    yield from sorted(p for p in folder.rglob("*") if p.suffix in ENDS and p.is_file())
