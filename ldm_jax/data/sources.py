"""Random-access sources of training examples: the embedded dataset, folders of images, and what
a first stage has made of them."""

import fcntl
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.images.reading import to_rgb

Split = Literal["train", "validation", "test"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# Splits whose decoded pixels take less than this many bytes stay in memory after the first use.
_KEEP_BELOW = 512 * 2**20

_log = logging.getLogger(__name__)


class DataError(ValueError):
    """Files that do not make a dataset, or an image that cannot be read."""


class Example(TypedDict):
    """One example: `image` uint8 [h, w, 3], `caption` ('' without one), `label` (0 without).

    Encoded ones have instead of an image `encoded`, as `ldm_jax.data.latents` says.
    """

    image: NotRequired[UInt8[np.ndarray, "h w 3"]]
    encoded: NotRequired[Float[np.ndarray, "h w z"] | Int[np.ndarray, "h w"]]
    caption: str
    label: int
    name: str
    """What the source calls it: a file's path below its folder, or split and number."""


@runtime_checkable
class Source(Protocol):
    """Examples by number, the same at every call."""

    class_names: tuple[str, ...]
    """What the labels mean; empty where there are no classes."""
    has_captions: bool
    fingerprint: str
    """What a run may be continued on: the same names, classes and captions in the same order."""
    broken: dict[str, str]
    """Images skipped so far by this process, and why."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def captions(self) -> Iterator[str]:
        """All captions, in order; nothing where there are none."""
        ...


def open_source(
    source: cfg.DigitScenes | cfg.ImageFolder | cfg.EncodedLatents, image_size: int, split: Split
) -> Source:
    """The examples of one split.

    DigitScenes come at `image_size` and are built where they are absent; of several processes on
    a file system one builds and the others wait for it. Images of a folder come at their own size
    (JPEG at least twice `image_size`; see `FolderSource`), and a folder has no test split. Encoded
    latents have the splits that were encoded.

    Raises:
        DataError: the folder does not make a dataset, or the split is empty.
    """
    if isinstance(source, cfg.DigitScenes):
        return DigitScenesSource(source, image_size, split)
    if isinstance(source, cfg.EncodedLatents):
        from ldm_jax.data.latents import LatentsSource

        return LatentsSource(source, image_size, split)
    return FolderSource(source, image_size, split)


# ------------------------------------------------------------------------------- DigitScenes


class DigitScenesSource:
    """DigitScenes of one split with at most `max_digits` digits, read from array_record files.

    An example is decoded when it is first used (about 0.1 ms) and then kept, as long as the split
    takes less than 512 MiB.
    """

    has_captions = True

    def __init__(self, source: cfg.DigitScenes, image_size: int, split: Split):
        import tensorflow_datasets as tfds

        self.broken: dict[str, str] = {}
        self._opened_with = (source, image_size, split)
        builder = _built_digit_scenes(source.data_dir, image_size)
        features = builder.info.features
        self._records = builder.as_data_source(split).data_source
        self._features = tfds.features.FeaturesDict(
            {name: features[name] for name in ("image", "caption", "label")}
        )
        self._decoders = {"image": tfds.decode.SkipDecoding()}
        self.class_names = tuple(features["label"].names)
        self.fingerprint = f"{builder.info.full_name}, at most {source.max_digits} digits"
        self._rows = np.arange(len(self._records))
        if source.max_digits < 3:
            counts = tfds.features.FeaturesDict({"count": features["count"]})
            found = [counts.deserialize_example_np(r)["count"] for r in self._all_records()]
            self._rows = np.flatnonzero(np.array(found) <= source.max_digits)
        shape = (len(self._rows), image_size, image_size, 3)
        # Memory that is not yet written costs nothing.
        self._images = np.empty(shape, np.uint8) if np.prod(shape) < _KEEP_BELOW else None
        self._texts: dict[int, tuple[str, int, str]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # A loader process opens the files anew instead of receiving the kept images.
        return open_source, self._opened_with

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        known = self._texts.get(index)
        if known is not None and self._images is not None:
            return _scene(self._images[index], *known)
        record = self._records[int(self._rows[index])]
        found = self._features.deserialize_example_np(record, decoders=self._decoders)
        image = np.asarray(Image.open(io.BytesIO(found["image"])))
        name = f"{self._opened_with[2]}/{int(self._rows[index])}"
        text = (found["caption"].decode(), int(found["label"]), name)
        if self._images is not None:
            self._images[index] = image
            self._texts[index] = text  # last: its presence tells other threads that all is there
        return _scene(image, *text)

    def captions(self) -> Iterator[str]:
        """All captions, in order."""
        return (self[index]["caption"] for index in range(len(self)))

    def _all_records(self) -> Iterator[bytes]:
        for start in range(0, len(self._records), 1024):
            stop = min(start + 1024, len(self._records))
            yield from self._records.__getitems__(list(range(start, stop)))


def _scene(image: UInt8[np.ndarray, "h w 3"], caption: str, label: int, name: str) -> Example:
    return {"image": image, "caption": caption, "label": label, "name": name}


def _built_digit_scenes(data_dir: str, size: int) -> Any:
    """The TFDS builder of the dataset, built if need be."""
    from ldm_jax.data import digit_scenes_builder

    if not digit_scenes_builder.is_built(digit_scenes_builder.builder(data_dir, size)):
        with _locked(Path(data_dir)):
            # A builder reads what is built when it is made: make it under the lock.
            digit_scenes_builder.prepare(digit_scenes_builder.builder(data_dir, size))
    return digit_scenes_builder.builder(data_dir, size)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; the system releases the lock of a process that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# ------------------------------------------------------------------------------------ folders


class FolderSource:
    """Images of one split of a folder, each read from its file at every use.

    Labels: where every image lies in a subfolder, the top-level subfolders are the classes, in
    the order of their names. Captions: `metadata.jsonl` at the top (objects with `file_name`,
    relative to the folder, and `text`), or a `.txt` beside each image. An image belongs to
    validation by a hash of its path, which adding images does not change.

    JPEG files larger than twice `image_size` are decoded at a reduced scale that is still at
    least that size, which costs a fraction of the time and memory.
    """

    def __init__(self, folder: cfg.ImageFolder, image_size: int, split: Split):
        root = Path(folder.path)
        if split == "test":
            raise DataError("a folder of images has no test split; use 'train' or 'validation'")
        names = find_images(root)
        captions = read_captions(root, names)
        self.class_names = _class_names(root, names, captions is not None)
        self.has_captions = captions is not None
        share = folder.validation_fraction
        kept = [n for n in names if (name_hash(n) < share) == (split == "validation")]
        if not kept:
            raise DataError(
                f"none of the {len(names)} images of {root} is in the {split} split at "
                f"data.source.validation_fraction={share}; change that, add images, or take "
                "another split"
            )
        self.names = tuple(kept)
        self.broken: dict[str, str] = {}
        """Images skipped so far by this process, and why."""
        self._root, self._size, self._skip = root, image_size, folder.on_broken == "skip"
        self._captions = [captions[n] for n in kept] if captions is not None else None
        classes = {name: number for number, name in enumerate(self.class_names)}
        self._labels = [classes[n.split("/")[0]] if classes else 0 for n in kept]
        told = json.dumps([self.names, self.class_names, self._captions])
        self.fingerprint = hashlib.sha256(told.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        """The example, or with `on_broken="skip"` the next readable one after a broken image.

        Raises:
            DataError: the image is broken and the run is to stop there, or none is readable.
        """
        index = range(len(self))[index]
        for offset in range(len(self)):
            at = (index + offset) % len(self)
            name = self.names[at]
            image = self._read(name)
            if image is not None:
                caption = self._captions[at] if self._captions is not None else ""
                label = self._labels[at]
                return {"image": image, "caption": caption, "label": label, "name": name}
        raise DataError(f"none of the {len(self)} images in {self._root} can be read")

    def captions(self) -> Iterator[str]:
        """All captions, in order; nothing where the folder has none."""
        return iter(self._captions or ())

    def _read(self, name: str) -> UInt8[np.ndarray, "h w 3"] | None:
        if name in self.broken:
            return None
        try:
            return read_image(self._root / name, 2 * self._size)
        except DataError as error:
            if not self._skip:
                raise DataError(
                    f"{error}; repair or remove it, or skip such images with "
                    "--data.source.on_broken=skip"
                ) from error
            self.broken[name] = str(error)
            _log.warning("skipped broken image number %d: %s", len(self.broken), error)
            return None


def read_image(path: Path, at_least: int) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes one file to RGB; JPEG possibly at a reduced scale of at least `at_least` pixels.

    Raises:
        DataError: the file cannot be read as an image, naming it and the reason.
    """
    try:
        with Image.open(path) as image:
            image.draft(None, (at_least, at_least))
            return np.asarray(to_rgb(image))
    except MemoryError:
        raise
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise DataError(f"cannot read image {path}: {type(error).__name__}: {error}") from error


def name_hash(name: str) -> float:
    """A number in [0, 1) from a path relative to the folder, the same everywhere."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def find_images(root: Path) -> list[str]:
    """Paths of all images below `root`, relative, with '/', sorted; hidden names are left out.

    Raises:
        DataError: no such folder, or no image in it.
    """
    if root == Path():
        raise DataError("data.source.path is missing: name the folder with --data.source.path=DIR")
    if not root.is_dir():
        raise DataError(f"data.source.path is {str(root)!r}, which is not a folder")
    names, seen = [], set()
    for here, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # a link back to a parent
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        relative = Path(here).relative_to(root)
        names += [
            (relative / f).as_posix()
            for f in files
            if f.lower().endswith(SUFFIXES) and not f.startswith(".")
        ]
    if not names:
        raise DataError(f"no images in {root}; looked for {', '.join(SUFFIXES)}, also below it")
    return sorted(names)


def read_captions(root: Path, names: list[str]) -> dict[str, str] | None:
    """The caption of every image in `names`, or None where the folder has no captions.

    Raises:
        DataError: both conventions at once, images without a caption, a line of metadata.jsonl
            that is malformed, repeats an image or names a missing one, or one `.txt` beside two
            images.
    """
    beside = {n: str(Path(n).with_suffix(".txt").as_posix()) for n in names}
    texts = {n: text for n, text in beside.items() if (root / text).is_file()}
    metadata = root / "metadata.jsonl"
    if metadata.is_file():
        if texts:
            raise DataError(
                f"{root} has captions twice, in metadata.jsonl and in {next(iter(texts.values()))}"
                "; remove one kind"
            )
        captions = _read_metadata(metadata, set(names))
    elif texts:
        owners: dict[str, str] = {}
        for name, text in texts.items():
            if text in owners:
                raise DataError(f"{text} lies beside two images, {owners[text]} and {name}")
            owners[text] = name
        captions = {n: _read_text(root / text) for n, text in texts.items()}
    else:
        return None
    missing = [n for n in names if n not in captions]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} images in {root} have no caption, among them "
            f"{', '.join(missing[:5])}; give each one or remove all captions"
        )
    return captions


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error


def _read_metadata(path: Path, names: set[str]) -> dict[str, str]:
    captions: dict[str, str] = {}
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where} is not a JSON object: {error}") from error
        found = entry if isinstance(entry, dict) else {}
        name, text = found.get("file_name"), found.get("text")
        if not isinstance(name, str) or not isinstance(text, str):
            raise DataError(f'{where} needs "file_name" and "text", both texts; it is {line[:200]}')
        name = Path(name).as_posix()
        if name not in names:
            raise DataError(f"{where} names {name!r}, which is no image below {path.parent}")
        if name in captions:
            raise DataError(f"{where} names {name!r} for the second time; keep one line")
        captions[name] = text.strip()
    return captions


def _class_names(root: Path, names: list[str], captioned: bool) -> tuple[str, ...]:
    inside = {n.split("/")[0] for n in names if "/" in n}
    beside = [n for n in names if "/" not in n]
    if inside and beside and not captioned:
        raise DataError(
            f"{root} has images in subfolders (classes) and {len(beside)} beside them, such as "
            f"{beside[0]}; put each into a class, or all at the top"
        )
    return () if beside else tuple(sorted(inside))
