"""Sources of pictures that lie as files within large files."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ldm_jax import config as cfg
from ldm_jax.data.picture_reader import PictureReader
from ldm_jax.data.sources import DataError, Example, Source

TOLD = 2**14
"""Captions or labels that are read of a source, at most."""
BLOCK = 64
"""Of these, examples that lie one after the other."""


@dataclass(frozen=True)
class Stored:
    """An example with its picture as a file, not decoded."""

    picture: bytes
    caption: str
    label: int
    name: str


@runtime_checkable
class Storing(Protocol):
    """A source whose pictures can be had as files."""

    def stored(self, index: int) -> Stored:
        """The example. Raises DataError where it is damaged."""
        ...


class StoredSource(ABC):
    """Examples whose pictures are files in shards. Nothing is read when it is opened.

    `captions` and `labels` give those of at most `TOLD` examples, in blocks that are evenly spread:
    what is made of all captions, such as a tokenizer, is made of these.
    """

    has_images, box_classes, map_classes = True, None, None
    beside: frozenset[str] = frozenset()
    class_names: tuple[str, ...]
    has_captions: bool

    def __init__(self, source: cfg.FittedPictures, sides: tuple[int, int], *opened: Any) -> None:
        self._opened_with = (source, sides, *opened)
        self._reader = PictureReader(source, sides)
        self.broken = self._reader.broken

    def __reduce__(self) -> tuple[Any, ...]:
        # A loader process opens the files anew.
        return type(self), self._opened_with

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def stored(self, index: int) -> Stored:
        """As `Storing.stored`."""

    def __getitem__(self, index: int) -> Example:
        """The example, or with `on_broken="skip"` the next readable one after a broken image.

        Raises:
            DataError: the image is broken and the run is to stop there, or none is readable.
        """
        index = range(len(self))[index]
        for offset in range(len(self)):
            one = self.stored((index + offset) % len(self))
            image = self._reader.decode(one.name, one.picture)
            if image is not None:
                return {
                    "image": image, "caption": one.caption, "label": one.label, "name": one.name,
                    "file": one.picture,
                }  # fmt: skip
        raise DataError(f"none of the {len(self)} images can be read")

    def captions(self) -> Iterator[str]:
        """Captions of some examples, in order; nothing where there are none."""
        return (self.stored(row).caption for row in self._told() if self.has_captions)

    def labels(self) -> Iterator[int]:
        """Labels of the same examples; nothing where there are no classes."""
        return (self.stored(row).label for row in self._told() if self.class_names)

    def names(self) -> Iterator[str]:
        """Nothing: the examples are no files of the user's."""
        return iter(())

    def _told(self) -> Iterator[int]:
        length, blocks = len(self), TOLD // BLOCK
        if length <= TOLD:
            yield from range(length)
            return
        for block in range(blocks):
            first = block * length // blocks
            yield from range(first, first + BLOCK)


def caption_at(source: Source, row: int) -> str:
    """The caption of an example, whose picture is not decoded where it need not be."""
    return source.stored(row).caption if isinstance(source, Storing) else source[row]["caption"]


def decoded_text(where: str, what: str, text: bytes) -> str:
    """A text in UTF-8. Raises DataError, naming `what` of `where`, where it is none."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: {what} is not UTF-8 text (byte {error.start} is {text[error.start]:#04x})"
        ) from error


def has_picture(where: str, picture: bytes) -> bytes:
    """`picture`. Raises DataError where it is empty."""
    if not picture:
        raise DataError(f"{where} has no picture; write it again, or take it out")
    return picture
