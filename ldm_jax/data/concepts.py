"""Pictures of a few subjects and of their classes as a source, in folders that say what they are
of: `10_sks dog`, as kohya's trainer has them."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ldm_jax import config as cfg
from ldm_jax.core.reading import printable, read_text
from ldm_jax.core.stores import as_path
from ldm_jax.data.buckets import Bucket, Sides, bucket_of, told_buckets
from ldm_jax.data.folders import find_images, picture_buckets
from ldm_jax.data.picture_reader import PictureReader
from ldm_jax.data.sources import DataError, Example, Parts, Split

CAPTION_SUFFIXES = (".caption", ".txt")
"""Of files beside a picture whose first line is its caption, in place of the folder's."""
_CONCEPT = re.compile(r"(\d+)_(.+)")


@dataclass(frozen=True)
class _Picture:
    path: Path
    caption: str
    is_class: bool


class ConceptSource:
    """Subjects, each picture as often as its folder says, then pictures of classes, if any.

    Those two are its `parts`: a batch has as many of each. The losses of both halves are means of
    their own, that of classes times `prior_weight` (Ruiz 2022, equation 2). Subjects alone
    may be in buckets.
    """

    class_names: tuple[str, ...] = ()
    has_captions = has_images = True
    box_classes = map_classes = None
    beside: frozenset[str] = frozenset()

    def __init__(self, config: cfg.DreamBooth, sides: tuple[int, int], split: Split):
        if split != "train":
            raise DataError(f"a folder of subjects has no {split} split; use 'train'")
        subjects, told = _subjects(config)
        classes: list[_Picture] = []
        if config.class_path:
            root = as_path(config.class_path)
            classes, told_classes = _concepts(root, "", "data.source.class_path", True)
            told = f"{told}; of classes {told_classes}"
        sizes = (len(subjects), len(classes)) if classes else (len(subjects),)
        self.parts = Parts(sizes, (1.0,) * len(sizes))
        self._pictures = (*subjects, *classes)
        self._importance = {False: 2.0, True: 2.0 * config.prior_weight} if classes else None
        self.buckets, self._sides = None, [sides] * len(self._pictures)
        if config.buckets is not None:
            self.buckets = picture_buckets(config.buckets, [one.path for one in subjects], sides)
            self._sides = _sides_of(self.buckets, len(classes))
            told = f"{told}; subjects in {told_buckets(self.buckets)}"
        self._reader = PictureReader(config, sides)
        self.broken = self._reader.broken
        self.found = told
        identity = [(p.path.parent.name, p.path.name, p.caption) for p in self._pictures]
        text = json.dumps([identity, sizes, config.prior_weight])
        if self.buckets is not None:
            text += json.dumps([[one.sides, one.rows.tolist()] for one in self.buckets])
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Example:
        """The example, or with `on_broken="skip"` the next readable one of its part.

        Raises:
            DataError: the image is broken and the run is to stop there, or none is readable.
        """
        index = range(len(self))[index]
        sizes = self.parts.sizes
        first, size = (0, sizes[0]) if index < sizes[0] else sizes
        for offset in range(size):
            at = first + (index - first + offset) % size
            picture = self._pictures[at]
            image = self._reader.read(str(picture.path), picture.path, self._sides[at])
            if image is not None:
                name = f"{picture.path.parent.name}/{picture.path.name}"
                found: Example = {
                    "image": image, "caption": picture.caption, "label": 0, "name": name
                }  # fmt: skip
                if self._importance is not None:
                    found["importance"] = self._importance[picture.is_class]
                return found
        raise DataError(f"none of the {size} pictures beside {picture.path} can be read")

    def captions(self) -> Iterator[str]:
        """All captions, in order."""
        return (picture.caption for picture in self._pictures)

    def labels(self) -> Iterator[int]:
        """Nothing."""
        return iter(())

    def names(self) -> Iterator[str]:
        """The files, in order."""
        return (f"{one.path.parent.name}/{one.path.name}" for one in self._pictures)


def _sides_of(buckets: Sequence[Bucket], classes: int) -> list[Sides]:
    """What the pictures are fitted to at most: subjects to the size of their bucket, pictures of
    classes to any of them."""
    heights, widths = zip(*(one.sides for one in buckets), strict=True)
    own = [buckets[number].sides for number in bucket_of(buckets)]
    return own + classes * [(max(heights), max(widths))]


def check_subjects(config: cfg.DreamBooth) -> None:
    """Raises DataError unless there are pictures of subjects, whatever there is of classes."""
    _subjects(config)


def _subjects(config: cfg.DreamBooth) -> tuple[list[_Picture], str]:
    return _concepts(as_path(config.path), config.prompt, "data.source.path", False)


def concept_folders(root: Path) -> dict[Path, tuple[int, str]]:
    """The subfolders of `root` that are concepts, in the order of their names, each with its number
    of repeats and its prompt."""
    found = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        match = _CONCEPT.fullmatch(folder.name)
        if folder.is_dir() and match and int(match[1]):
            found[folder] = int(match[1]), match[2].strip()
    return found


def _concepts(root: Path, prompt: str, setting: str, is_class: bool) -> tuple[list[_Picture], str]:
    """All pictures below `root`, repeated, and what was found in words."""
    if root == Path() or not root.is_dir():
        raise DataError(f"{setting} is {str(root)!r}, which is not a folder; name it")
    folders = concept_folders(root)
    if prompt:
        folders = {root: (1, prompt)} | folders
    pictures: list[_Picture] = []
    told = []
    for folder, (repeats, text) in folders.items():
        paths = _pictures_of(folder, alone=folder == root)
        pictures += repeats * [_Picture(p, _caption(p, text), is_class) for p in paths]
        told.append(f"{len(paths)} images of {printable(text)!r}, {repeats} times each")
    if not pictures:
        hint = "" if is_class else ", or pictures in it with data.source.prompt"
        raise DataError(
            f"{root} has no pictures of concepts: {setting} needs subfolders called by repeats and "
            f"prompt, such as '10_sks dog'{hint}"
        )
    return pictures, f"{', '.join(told)} in {printable(str(root))}"


def _pictures_of(folder: Path, *, alone: bool) -> list[Path]:
    """The images in a folder, with `alone` those that lie in it itself."""
    try:
        names = find_images(folder).names
    except DataError:
        return []
    return [folder / name for name in names if not (alone and "/" in name)]


def _caption(picture: Path, prompt: str) -> str:
    for suffix in CAPTION_SUFFIXES:
        file = picture.with_suffix(suffix)
        if file.is_file():
            lines = read_text(file).strip().splitlines()
            return lines[0].strip() if lines else ""
    return prompt
