"""Sets of images that are scored or compared with: a folder, a file of samples, a data set."""

import io
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from ldm_jax import config as cfg
from ldm_jax.core.files import temporary, write_atomically, writing
from ldm_jax.core.reading import FileFormatError, open_file
from ldm_jax.data.example_order import spread_rows
from ldm_jax.data.folders import find_images, read_captions
from ldm_jax.data.loader import in_order
from ldm_jax.data.sources import Source
from ldm_jax.data.stored_pictures import caption_at
from ldm_jax.images.picture_files import read_picture

TOGETHER = 64
"""Images that are read at once."""
MAX_SIZES = 8
"""Sizes of the images of one folder; a network is compiled for each."""
SAMPLES = "arr_0"
"""The array of images in a file of samples, as ADM's evaluator has it."""
LABELS = "arr_1"
LOSSY = {".jpg", ".jpeg", ".webp", ".avif"}


class Batch(NamedTuple):
    """Some images of a set, all of one size."""

    rows: Int[np.ndarray, " b"]
    """Their numbers in the set."""
    images: UInt8[np.ndarray, "b h w 3"]


@runtime_checkable
class ImageSet(Protocol):
    """Images in an order that does not change."""

    about: dict[str, Any]
    """What they are, as a report says it."""
    warnings: list[str]
    """What may be wrong with scores of them."""
    sorted_by_class: bool
    """Whether images of one class stand together, as far as is known."""

    def __len__(self) -> int: ...

    def batches(self, rows: Sequence[int]) -> Iterator[Batch]:
        """Each of `rows` once; they rise.

        Raises FileFormatError where one cannot be read: a set with holes has no score.
        """
        ...

    def captions(self, rows: range) -> Sequence[str] | None:
        """What the images were to show; None where nobody knows."""
        ...


def open_images(path: Path) -> ImageSet:
    """The images of a folder, or of an .npz file. Raises FileFormatError, DataError."""
    return FolderImages(path) if path.is_dir() else SamplesFile(path)


class FolderImages:
    """All images in a folder and below it, in the order of their names, in their own sizes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listing = find_images(folder)
        self.names = self._listing.names
        self._sizes: set[tuple[int, ...]] = set()
        kinds = sorted({Path(name).suffix.lower() for name in self.names})
        self.about = {"kind": "folder", "path": str(folder), "images": len(self.names),
                      "file_formats": kinds}  # fmt: skip
        self.warnings = []
        lossy = LOSSY.intersection(kinds)
        if lossy:
            self.warnings.append(
                f"{folder} has {', '.join(sorted(lossy))} files: lossy compression alone moves a "
                "FID by 0.2 to 20; use PNG"
            )
        folders = [str(Path(name).parent) for name in self.names]
        self.sorted_by_class = 1 < len(set(folders)) < len(folders)

    def __len__(self) -> int:
        return len(self.names)

    def batches(self, rows: Sequence[int]) -> Iterator[Batch]:
        """As `ImageSet.batches`; raises FileFormatError for images of more than MAX_SIZES sizes."""
        pictures = ((row, read_picture(self.folder / self.names[row])) for row in rows)
        for size, alike in groupby(pictures, lambda numbered: numbered[1].shape):
            self._sizes.add(size)
            if len(self._sizes) > MAX_SIZES:
                raise FileFormatError(
                    self.folder,
                    f"has images of more than {MAX_SIZES} sizes; crop them to one first, or name "
                    "it with --images=FOLDER --data.image_size=N, which does",
                )
            yield from _together(alike)

    def captions(self, rows: range) -> Sequence[str] | None:
        """As `ImageSet.captions`: of `metadata.jsonl`, or the texts beside the images."""
        found, _ = self._captions
        return None if found is None else [found[self.names[row]] for row in rows]

    @cached_property
    def _captions(self) -> tuple[dict[str, str] | None, str]:
        return read_captions(self.folder, self._listing)


class SamplesFile:
    """The images in an .npz file: `arr_0`, [n, h, w, 3] in uint8, which is read row by row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _samples_in(self.path) as (_, shape):
            self.shape = shape
        self.about = {"kind": "npz", "path": str(path), "images": shape[0]}
        self.warnings: list[str] = []
        labels = _labels(path)
        self.sorted_by_class = labels is not None and _is_sorted(labels)

    def __len__(self) -> int:
        return self.shape[0]

    def batches(self, rows: Sequence[int]) -> Iterator[Batch]:
        """As `ImageSet.batches`."""
        yield from _together(zip(rows, self._images(rows), strict=True))

    def _images(self, rows: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        size, next_row = math.prod(self.shape[1:]), 0
        with _samples_in(self.path) as (member, _):
            for row in rows:
                member.seek((row - next_row) * size, 1)
                next_row = row + 1
                data = member.read(size)
                if len(data) < size:
                    raise FileFormatError(self.path, "is cut off; copy it again")
                yield np.frombuffer(data, np.uint8).reshape(self.shape[1:])

    def captions(self, rows: range) -> Sequence[str] | None:
        """None: such files have none."""
        return None


@contextmanager
def _samples_in(path: Path) -> Iterator[tuple[IO[bytes], tuple[int, ...]]]:
    """The array of images in a file of samples, opened behind its header, and its shape."""
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(open_file(path))))
            member = stack.enter_context(archive.open(f"{SAMPLES}.npy"))
            shape, fortran, dtype = _npy_header(member)
        except FileFormatError:
            raise
        except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
            raise FileFormatError(
                path,
                f"is no file of samples: an .npz with {SAMPLES}, images [n, h, w, 3] in uint8",
            ) from error
        if dtype != np.uint8 or fortran or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise FileFormatError(
                path, f"has {SAMPLES} of {dtype}, shape {shape}; it must be uint8 [n, h, w, 3]"
            )
        yield member, shape


class DataImages:
    """`count` images of a data set, evenly spread over it, cropped and resized as the model was
    shown them."""

    def __init__(self, source: Source, data: cfg.Data, split: str, count: int | None) -> None:
        self.source, self.data = source, data
        self._rows = spread_rows(len(source), len(source) if count is None else count)
        self.about = {
            "kind": "data", "split": split, "images": len(self), "of": len(source),
            "image_size": data.image_size, "fingerprint": source.fingerprint,
            "found": source.found,
        }  # fmt: skip
        self.warnings: list[str] = []
        self.sorted_by_class = False

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, rows: Sequence[int]) -> Iterator[Batch]:
        """As `ImageSet.batches`."""
        examples = in_order(self.source, self.data, [self._rows[row] for row in rows])
        images = (example["image"] for example in examples)
        yield from _together(zip(rows, images, strict=True))

    def captions(self, rows: range) -> Sequence[str] | None:
        """As `ImageSet.captions`."""
        if not self.source.has_captions:
            return None
        return [caption_at(self.source, self._rows[row]) for row in rows]


class First:
    """The first images of a set. Raises ConfigError where it has fewer."""

    def __init__(self, images: ImageSet, count: int, named: str) -> None:
        self._images, self._count = images, count
        if len(images) < count:
            raise cfg.ConfigError(
                f"{named} has {len(images)} images, fewer than the {count} that are asked for "
                "(--num, in each of --runs)"
            )
        self.about = images.about | {"images": count, "of": len(images)}
        self.warnings, self.sorted_by_class = images.warnings, images.sorted_by_class

    def __len__(self) -> int:
        return self._count

    def batches(self, rows: Sequence[int]) -> Iterator[Batch]:
        """As `ImageSet.batches`."""
        return self._images.batches(rows)

    def captions(self, rows: range) -> Sequence[str] | None:
        """As `ImageSet.captions`."""
        return self._images.captions(rows)


class Spread:
    """So many images of a set, evenly spread over it; all where it has fewer."""

    def __init__(self, images: ImageSet, count: int) -> None:
        self._images, self._rows = images, spread_rows(len(images), count)
        self.about = images.about | {"images": len(self), "of": len(images)}
        self.warnings, self.sorted_by_class = images.warnings, images.sorted_by_class

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, rows: Sequence[int]) -> Iterator[Batch]:
        """As `ImageSet.batches`."""
        for batch in self._images.batches([self._rows[row] for row in rows]):
            yield Batch(np.searchsorted(self._rows, batch.rows), batch.images)

    def captions(self, rows: range) -> Sequence[str] | None:
        """As `ImageSet.captions`."""
        every = self._images.captions(range(len(self._images)))
        return None if every is None else [every[self._rows[row]] for row in rows]


class Kept:
    """A set whose images are written to a folder as they pass, for a file of samples."""

    def __init__(self, images: ImageSet, folder: Path) -> None:
        self._images, self._folder = images, folder
        self.about, self.warnings = images.about, images.warnings
        self.sorted_by_class = images.sorted_by_class

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, rows: range) -> Iterator[Batch]:
        """As `ImageSet.batches`; what was asked for is kept once all of it has come."""
        whole: np.ndarray | None = None
        for batch in self._images.batches(rows):
            if whole is None:
                whole = np.zeros((len(rows), *batch.images.shape[1:]), np.uint8)
            if batch.images.shape[1:] != whole.shape[1:]:
                raise cfg.ConfigError("images of several sizes cannot be one array of samples")
            whole[batch.rows - rows.start] = batch.images
            yield batch
        self._folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.save(content, whole)
        write_atomically(self._path(rows.start), content.getvalue())

    def captions(self, rows: range) -> Sequence[str] | None:
        """As `ImageSet.captions`."""
        return self._images.captions(rows)

    def write_npz(self, path: Path) -> None:
        """All images in one .npz file, `arr_0`.

        Raises FileFormatError where some were not kept, as their features were there before.
        """
        files = sorted(self._folder.glob("*.npy"))
        parts = [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]
        if sum(map(len, parts)) != len(self):
            raise FileFormatError(
                self._folder,
                "has not all images, as some features were computed without keeping them; delete "
                "the folder of features beside it, and repeat the command",
            )
        header = {
            "descr": "|u1", "fortran_order": False, "shape": (len(self), *parts[0].shape[1:])
        }  # fmt: skip
        with writing(path), temporary(path) as draft:
            with (
                zipfile.ZipFile(draft, "w") as archive,
                archive.open(f"{SAMPLES}.npy", "w", force_zip64=True) as member,
            ):
                np.lib.format.write_array_header_1_0(member, header)
                for part in parts:
                    member.write(part.tobytes())
            draft.replace(path)

    def _path(self, first: int) -> Path:
        return self._folder / f"{first:08}.npy"


def number_of(asked: int, split: str, there: int) -> int:
    """How many images are measured of a split that has so many: `asked`, or all of them; prints
    that there are fewer."""
    if there < asked:
        print(f"data: {split} has {there} images, fewer than --num={asked}; all are measured")
    return min(asked, there)


def has_images(path: Path) -> bool:
    """Whether an .npz file has an array of images."""
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        return f"{SAMPLES}.npy" in archive.namelist()


def _together(pictures: Iterator[tuple[int, np.ndarray]]) -> Iterator[Batch]:
    while some := list(islice(pictures, TOGETHER)):
        rows, images = zip(*some, strict=True)
        yield Batch(np.array(rows), np.stack(images))


def _npy_header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and type."""
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError("a newer form of .npy than 2.0")
    read = np.lib.format.read_array_header_1_0
    return (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(member)


def _labels(path: Path) -> np.ndarray | None:
    with open_file(path) as file, np.load(file, allow_pickle=False) as arrays:
        if LABELS not in arrays.files:
            return None
        labels = arrays[LABELS]
    return labels if labels.ndim == 1 and labels.dtype.kind in "iu" else None


def _is_sorted(labels: np.ndarray) -> bool:
    """Whether images of one class stand together."""
    changes = int((np.diff(labels) != 0).sum())
    return len(set(labels.tolist())) > 1 and changes < len(set(labels.tolist()))
