"""A folder of images as a source: the files that it takes, their captions and their classes."""

import csv
import hashlib
import io
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ldm_jax import config as cfg
from ldm_jax.core.reading import (
    FileFormatError,
    open_file,
    parse_json,
    printable,
    read_lines,
    read_text,
    shown,
)
from ldm_jax.core.stores import as_path, is_stored
from ldm_jax.data.buckets import Bucket, Sides, bucket_of, in_buckets, told_buckets
from ldm_jax.data.companions import Companions
from ldm_jax.data.edit_pairs import is_list, only_edited, read_edit_pairs
from ldm_jax.data.picture_reader import PictureReader
from ldm_jax.data.sources import DataError, Example, Split
from ldm_jax.data.stored_pictures import Stored
from ldm_jax.images.picture_files import SUFFIXES, picture_sides

METADATA = ("metadata.jsonl", "metadata.csv")
"""Lists of captions at the top of a folder, as Hugging Face's `imagefolder` has them."""


class FolderSource:
    """Images of one split of a folder, each read from its file at every use.

    Labels: where every image lies in a subfolder, the top-level subfolders are the classes, in
    the order of their names. Captions: `read_captions` has their forms. An image belongs to
    validation by a hash of its path, which adding images does not change; or validation has a
    folder of its own.

    Where images are resized, JPEG files larger than twice `sides`, and other very large
    pictures, are decoded at a reduced scale that is still at least that size, which costs a
    fraction of the time and memory.
    """

    def __init__(self, folder: cfg.ImageFolder, sides: tuple[int, int], split: Split):
        if split == "test":
            raise DataError("a folder of images has no test split; use 'train' or 'validation'")
        apart = folder.validation_path if split == "validation" else ""
        root = as_path(apart or folder.path)
        listing = find_images(root, f"data.source.{'validation_' * bool(apart)}path")
        if is_list(folder.edit_images):
            pairs = read_edit_pairs(folder.edit_images)
            listing = replace(listing, names=only_edited(listing.names, pairs))
        names = list(listing.names)
        captions, origin = read_captions(root, listing)
        self.class_names = _class_names(root, names, captions is not None)
        self.has_captions = captions is not None
        self.has_images = True
        kept = names if folder.validation_path else _of_split(root, names, folder, split)
        self._names = tuple(kept)
        self._pictures, self._sides = PictureReader(folder, sides), sides
        self.buckets, self._bucket_of = None, None
        if folder.buckets is not None:
            self.buckets = picture_buckets(folder.buckets, [root / name for name in kept], sides)
            self._bucket_of = bucket_of(self.buckets)
        self.broken = self._pictures.broken
        companions = Companions.find(folder, kept)
        annotations, self._companions = companions.annotations, companions
        self.box_classes = None if annotations is None else annotations.class_names
        self.map_classes = 0 if folder.class_maps else None
        self.beside = companions.beside
        shares = f" for {'training' if split == 'train' else 'validation'}"
        if not folder.validation_path:
            train = len(kept) if split == "train" else len(names) - len(kept)
            shares = f" ({train} for training, {len(names) - train} for validation)"
        self.found = _told(listing, shares, captions, origin, len(self.class_names))
        self.found += companions.told()
        if self.buckets is not None:
            self.found += f"; in {told_buckets(self.buckets)}"
        self._root = root
        self._captions = [captions[n] for n in kept] if captions is not None else None
        classes = {name: number for number, name in enumerate(self.class_names)}
        self._labels = [classes[n.split("/")[0]] if classes else 0 for n in kept]
        told = json.dumps([self._names, self.class_names, self._captions])
        told += companions.identity()
        if self.buckets is not None:
            told += json.dumps([[one.sides, one.rows.tolist()] for one in self.buckets])
        self.fingerprint = hashlib.sha256(told.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        """The example, or with `on_broken="skip"` the next readable one after a broken image.

        Raises:
            DataError: the image is broken and the run is to stop there, or none is readable.
        """
        index = range(len(self))[index]
        for offset in range(len(self)):
            at = (index + offset) % len(self)
            name = self._names[at]
            sides = self._fitted_to(at)
            image = self._pictures.read(name, self._root / name, sides)
            original = self._companions.edit_images.get(name)
            edited = None if original is None else self._pictures.read(name, original, sides)
            if image is not None and (original is None or edited is not None):
                caption = self._captions[at] if self._captions is not None else ""
                found: Example = {
                    "image": image, "caption": caption, "label": self._labels[at], "name": name,
                    "file": self._root / name,
                }  # fmt: skip
                if edited is not None:
                    found["edit_image"] = edited
                return found | self._companions.of(name)
        raise DataError(f"none of the {len(self)} images in {self._root} can be read")

    def stored(self, index: int) -> Stored:
        """As `Storing.stored`; `FileFormatError` where the file cannot be read."""
        index = range(len(self))[index]
        name = self._names[index]
        caption = self._captions[index] if self._captions is not None else ""
        with open_file(self._root / name) as file:
            return Stored(file.read(), caption, self._labels[index], name)

    def _fitted_to(self, index: int) -> Sides:
        """The height and width that an example is fitted to."""
        return self._sides if self.buckets is None else self.buckets[self._bucket_of[index]].sides

    def captions(self) -> Iterator[str]:
        """All captions, in order; nothing where the folder has none."""
        return iter(self._captions or ())

    def labels(self) -> Iterator[int]:
        """As `Source.labels`."""
        return iter(self._labels if self.class_names else ())

    def names(self) -> Iterator[str]:
        """The files' paths below the folder, with '/', in order."""
        return iter(self._names)


def picture_buckets(
    buckets: cfg.Buckets, paths: Sequence[Path], sides: Sides
) -> tuple[Bucket, ...]:
    """The pictures in buckets of about the area of `sides`, told by their headers; a broken one,
    which is refused or skipped when it is read, with the squarest."""

    def size(path: Path) -> Sides:
        try:
            return picture_sides(path)
        except FileFormatError:
            return (1, 1)

    with ThreadPoolExecutor(8) as threads:
        return in_buckets(buckets.all_sizes(sides), threads.map(size, paths))


def name_hash(name: str) -> float:
    """A number in [0, 1) from a path relative to the folder, the same everywhere."""
    data = name.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(data).digest()[:6], "big") / 2**48


def _of_split(root: Path, names: list[str], folder: cfg.ImageFolder, split: Split) -> list[str]:
    """The images that belong to a split by their names."""
    share = folder.validation_fraction
    kept = [n for n in names if (name_hash(n) < share) == (split == "validation")]
    if not kept:
        raise DataError(
            f"none of the {len(names)} images of {root} is in the {split} split at "
            f"data.source.validation_fraction={share}; change that setting, add images, or "
            "use another split"
        )
    return kept


def _told(
    listing: "Listing", shares: str, captions: dict[str, str] | None, origin: str, classes: int
) -> str:
    """What was found, in a line; `shares` says for what."""
    words = [f"{len(listing.names)} images in {printable(str(listing.root))}{shares}"]
    if captions is not None:
        empty = sum(not caption for caption in captions.values())
        words.append(f"captions from {origin}{f' ({empty} of them empty)' if empty else ''}")
    else:
        words.append("no captions")
    words.append(f"{classes} classes" if classes else "no classes")
    return ", ".join(words) + listing.rest()


# -------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class Listing:
    """What lies below a folder."""

    root: Path
    names: tuple[str, ...]
    """Paths of the images, relative, with '/', sorted."""
    others: Counter[str]
    """How many files of other suffixes there are; '' is none."""
    left_out: Counter[str]
    """How much else was left out, by the reason."""
    texts: tuple[str, ...]
    """Paths of the `.txt` files among them, which may be captions."""
    used: Counter[str]
    """Of `others`, the files that captions were read from."""

    def rest(self) -> str:
        """What was left out, as the end of a line."""
        counts = sorted((self.others - self.used).items(), key=lambda item: (-item[1], item[0]))
        parts = [f"{n} {suffix or 'without a suffix'}" for suffix, n in counts[:6]]
        if counts[6:]:
            parts.append(f"{sum(n for _, n in counts[6:])} of {len(counts) - 6} other suffixes")
        kinds = [f"files that are no images by their names ({', '.join(parts)})"] if parts else []
        kinds += [f"{reason} ({n})" for reason, n in sorted(self.left_out.items())]
        return f"; left out: {', '.join(kinds)}" if kinds else ""


def find_images(root: Path, setting: str = "data.source.path") -> Listing:
    """All images below `root`, which `setting` names, by their suffixes.

    Hidden names, folders that were read already, and what is no file are left out.

    Raises:
        DataError: no such folder, one that cannot be read, or no image in it.
    """
    if root == Path():
        raise DataError(f"{setting} is missing: name the folder with --{setting}=DIR")
    if not root.is_dir():
        raise DataError(f"{setting} is {str(root)!r}, which is not a folder")
    found = Listing(root, (), Counter(), Counter(), (), Counter())
    names, texts = _stored_files(root, found) if is_stored(root) else _files(root, found)
    if not names:
        raise DataError(
            f"no images in {root}; looked for {', '.join(SUFFIXES)}, also below it{found.rest()}"
        )
    return replace(found, names=tuple(sorted(names)), texts=tuple(texts))


def _stored_files(root: Path, found: Listing) -> tuple[list[str], list[str]]:
    """The images and the `.txt` files below a folder in a store; counts what else there is."""
    names: list[str] = []
    texts: list[str] = []
    for name in root.files():
        path = PurePosixPath(name)
        suffix, hidden = path.suffix.lower(), path.name.startswith(".")
        if any(part.startswith(".") for part in path.parent.parts):
            continue
        if suffix not in SUFFIXES:
            found.others[suffix] += not hidden
        elif hidden:
            found.left_out["hidden images"] += 1
        else:
            names.append(name)
        if suffix == ".txt" and not hidden:
            texts.append(name)
    return names, texts


def _files(root: Path, found: Listing) -> tuple[list[str], list[str]]:
    """The images and the `.txt` files below a folder of this machine; counts what else there is."""
    names: list[str] = []
    texts: list[str] = []
    waiting, seen = [""], set()
    while waiting:
        below = waiting.pop()
        here = os.path.join(root, below)
        real = os.path.realpath(here)
        if real in seen:  # a link back to a parent, or a second one to the same folder
            found.left_out["links to folders that were read already"] += 1
            continue
        seen.add(real)
        try:
            with os.scandir(here) as entries:
                inside = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            raise DataError(f"{printable(here)} cannot be read: {error.strerror}") from error
        waiting += [f"{below}{entry.name}/" for entry in inside if _enters(entry, found.left_out)]
        names += [f"{below}{entry.name}" for entry in inside if _is_image(entry, found)]
        texts += [f"{below}{entry.name}" for entry in inside if _is_text(entry)]
    return names, texts


def _enters(entry: os.DirEntry, left_out: Counter[str]) -> bool:
    """Whether what lies in an entry is looked at."""
    if not entry.is_dir():
        return False
    if entry.name.startswith("."):
        left_out["hidden folders"] += 1
        return False
    return True


def _is_image(entry: os.DirEntry, found: Listing) -> bool:
    """Whether an entry is a file that is called like an image; counts what is not."""
    if entry.is_dir():
        return False
    suffix = PurePosixPath(entry.name).suffix.lower()
    pictured = suffix in SUFFIXES
    if entry.name.startswith("."):
        found.left_out["hidden images"] += pictured
    elif pictured and entry.is_file():
        return True
    elif pictured and entry.is_symlink() and not os.path.exists(entry.path):
        found.left_out["links that lead nowhere"] += 1
    elif pictured:
        found.left_out["what is called like an image and is no file"] += 1
    else:
        found.others[suffix] += 1
    return False


def _is_text(entry: os.DirEntry) -> bool:
    hidden = entry.name.startswith(".")
    return entry.name.lower().endswith(".txt") and not hidden and entry.is_file()


# ------------------------------------------------------------------------------------ captions


def read_captions(root: Path, listing: Listing) -> tuple[dict[str, str] | None, str]:
    """The caption of every image, or None where the folder has none; and where they are from.

    They are in `metadata.jsonl` at the top (objects with `file_name`, relative to the folder, and
    `text`), in `metadata.csv` there (columns of these names), or in a `.txt` beside each image.

    Raises:
        DataError: two of these at once, images without a caption, a row that is malformed, repeats
            an image or names a missing one, or one `.txt` beside two images.
        FileFormatError: a file that is no text; says where.
    """
    names = listing.names
    texts = {text[: -len(".txt")]: text for text in listing.texts}
    stems = ((name, name[: name.rindex(".")]) for name in names)
    beside = {name: texts[stem] for name, stem in stems if stem in texts}
    kinds = [name for name in METADATA if (root / name).is_file()]
    if beside:
        kinds.append(next(iter(beside.values())))
    if len(kinds) > 1:
        raise DataError(
            f"{root} has captions in more than one place: {' and '.join(kinds)}; keep one of them"
        )
    if not kinds:
        return None, ""
    if beside:
        captions, origin = _texts_beside(root, beside), ".txt files"
        listing.used[".txt"] += len(beside)
    else:
        (origin,) = kinds
        if origin.endswith(".jsonl") and _has_no_texts(root / origin):
            listing.used[".jsonl"] += 1
            return None, ""
        rows = _rows_of_json if origin.endswith(".jsonl") else _rows_of_csv
        captions = _by_name(root / origin, rows(root / origin), set(names))
        listing.used[PurePosixPath(origin).suffix] += 1
    missing = [n for n in names if n not in captions]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} images in {root} have no caption, among them "
            f"{', '.join(map(printable, missing[:5]))}; add a caption for each image, or remove "
            "all captions"
        )
    return captions, origin


def _texts_beside(root: Path, beside: dict[str, str]) -> dict[str, str]:
    owners: dict[str, str] = {}
    for name, text in beside.items():
        if text in owners:
            raise DataError(
                f"{text} is the caption of two images, {owners[text]} and {name}; "
                "rename one of them"
            )
        owners[text] = name
    return {name: read_text(root / text).strip() for name, text in beside.items()}


Row = tuple[int, object, object]
"""Line, `file_name` and `text`."""


def _has_no_texts(path: Path) -> bool:
    """Whether no line has a text, but all have boxes or a picture to edit."""
    lines = enumerate(read_lines(path), start=1)
    entries = [parse_json(path, f"line {number}", line) for number, line in lines if line.strip()]
    return bool(entries) and all(
        ("boxes" in e or "edit_image" in e) and "text" not in e for e in entries
    )


def _rows_of_json(path: Path) -> Iterator[Row]:
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            entry = parse_json(path, f"line {number}", line)
            yield number, entry.get("file_name"), entry.get("text")


def _rows_of_csv(path: Path) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        wanted = [header.count(name) for name in ("file_name", "text")]
        if wanted != [1, 1]:
            raise DataError(
                f"{path} has the columns {', '.join(map(shown, header))}; it needs "
                '"file_name" and "text", once each, with commas between them'
            )
        name, text = header.index("file_name"), header.index("text")
        for row in reader:
            if row and len(row) != len(header):
                raise DataError(
                    f"{path} line {reader.line_num} has {len(row)} columns instead of "
                    f"{len(header)}; put texts with commas into quotation marks"
                )
            if row:
                yield reader.line_num, row[name], row[text]
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num} is not valid CSV: {error}") from error


def _by_name(path: Path, rows: Iterator[Row], names: set[str]) -> dict[str, str]:
    captions: dict[str, str] = {}
    known: Callable[[str], str | None] = _finder(names)
    for number, name, text in rows:
        where = f"{path} line {number}"
        if not isinstance(name, str) or not isinstance(text, str):
            raise DataError(f'{where} needs "file_name" and "text", both strings')
        image = known(name)
        if image is None:
            there = (path.parent / name).is_file()
            why = f"which is {'there, but ' if there else ''}no image that is read"
            raise DataError(f"{where} names {shown(name)}, {why} below {path.parent}")
        if image in captions:
            raise DataError(f"{where} names {shown(name)} for the second time; keep one line")
        captions[image] = text.strip()
    return captions


def _finder(names: set[str]) -> Callable[[str], str | None]:
    """Finds the image that a row names, also where a file system has composed its letters."""
    composed = {unicodedata.normalize("NFC", name): name for name in names}

    def find(name: str) -> str | None:
        name = PurePosixPath(name).as_posix()
        return name if name in names else composed.get(unicodedata.normalize("NFC", name))

    return find


def _class_names(root: Path, names: list[str], captioned: bool) -> tuple[str, ...]:
    inside = {n.split("/")[0] for n in names if "/" in n}
    beside = [n for n in names if "/" not in n]
    if inside and beside and not captioned:
        raise DataError(
            f"{root} has images in subfolders (classes) and {len(beside)} outside of them, such "
            f"as {beside[0]}; move those into subfolders, or all images to the top"
        )
    return () if beside else tuple(sorted(inside))
