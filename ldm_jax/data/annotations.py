"""Reading boxes of objects that belong to a folder of images.

Two forms are read. `metadata.jsonl` has a line for each image,

    {"file_name": "a.jpg", "boxes": [{"class": "cat", "box": [0.1, 0.25, 0.6, 1.0]}]}

with top, left, bottom and right as shares of the image's height and width from its upper left
corner, or in pixels where the line also has "size": [height, width]; a box may have "group",
"occluded", "depiction" and "inside", each true or false, and a line further members, such as
"text". COCO's annotation files (instances_*.json, stuff_*.json) are read as they are published.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from ldm_jax import config as cfg
from ldm_jax.core.reading import FileFormatError, parse_json, read_bytes, read_lines, shown
from ldm_jax.data.sources import DataError

_COCO_BYTES = 2**31
_COCO_MARKS = 10**9
_COCO_UNUSED = frozenset({"segmentation", "info", "licenses"})
"""What takes most of the memory; forgotten while the file is read."""
_NO_CLASS = "other"
"""COCO's name for what is in no other class of stuff; the published models leave it out."""


@dataclass(frozen=True)
class Objects:
    """The boxes of one image."""

    boxes: Float32[np.ndarray, "n 4"]
    """Top, left, bottom, right as shares of the whole image."""
    classes: Int32[np.ndarray, " n"]
    flags: Int32[np.ndarray, " n"]
    """What else is known of each: bit i is `cfg.FLAGS[i]`."""

    def listed(self) -> list[list[Any]]:
        """All numbers, for digests."""
        return [self.boxes.tolist(), self.classes.tolist(), self.flags.tolist()]


NO_OBJECTS = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, np.int32))


@dataclass(frozen=True)
class BoxAnnotations:
    """The boxes of many images."""

    class_names: tuple[str, ...]
    """By class number."""
    objects: Mapping[str, Objects]
    """By the image's name, as the file has it, with '/'."""


Box = tuple[tuple[float, float, float, float], str | int, int]
"""Of one object: its box, its class (a name, or an id), its flags."""


def read_boxes(path: str | Path, class_names: Sequence[str] = ()) -> BoxAnnotations:
    """The boxes in a `metadata.jsonl`.

    Args:
        class_names: the classes in order; without them the names that occur, sorted.

    Raises:
        FileFormatError: a line that is malformed, an unknown class, an image that is named twice;
            says which and where.
    """
    found: dict[str, list[Box]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            where = f"line {number}"
            entry = parse_json(path, where, line)
            name = entry.get("file_name")
            if not isinstance(name, str):
                raise FileFormatError(path, f'{where} has no "file_name" that is a text')
            name = PurePosixPath(name).as_posix()
            if name in found:
                raise FileFormatError(path, f"{where} names {shown(name)} for the second time")
            found[name] = [*boxes_of(path, where, entry)]
    if not class_names:
        class_names = sorted({str(box[1]) for boxes in found.values() for box in boxes})
    numbers = {name: number for number, name in enumerate(class_names)}
    for name, boxes in found.items():
        for _, called, _ in boxes:
            if called not in numbers:
                raise FileFormatError(
                    path,
                    f"{shown(name)} has a box of the class {shown(called)}; the classes are "
                    f"{', '.join(map(shown, class_names[:20]))}{', ...' * (len(numbers) > 20)}",
                )
    return _annotations(class_names, numbers, found)


def boxes_of(path: str | Path, where: str, entry: Mapping[str, Any]) -> Iterator[Box]:
    """The "boxes" of an image's entry in the file `path`.

    Raises:
        FileFormatError: anything that is malformed; says which box.
    """
    boxes, size = entry.get("boxes"), entry.get("size", [1, 1])
    if not isinstance(size, list) or len(size) != 2 or not all(_is_side(side) for side in size):
        raise FileFormatError(path, f'{where} has a "size" that is not [height, width] in pixels')
    if not isinstance(boxes, list):
        raise FileFormatError(
            path, f'{where} has no list of "boxes"; write [] for an image without any'
        )
    for number, box in enumerate(boxes, start=1):
        place = f"{where}, box {number}"
        if not isinstance(box, dict) or not isinstance(box.get("class"), str):
            raise FileFormatError(path, f'{place} needs a "class", a text, and a "box"')
        unknown = box.keys() - {"class", "box", *cfg.FLAGS}
        flags = [box.get(flag, False) for flag in cfg.FLAGS]
        if unknown or not all(isinstance(flag, bool) for flag in flags):
            raise FileFormatError(
                path,
                f'{place} may have beside "class" and "box" only {", ".join(cfg.FLAGS)}, each true '
                "or false",
            )
        ends = _four(box.get("box"))
        if ends is None or not all(0 <= ends[i] <= ends[i + 2] <= size[i] for i in (0, 1)):
            unit = "as shares of the image from 0 to 1" if "size" not in entry else (
                f"in pixels of {size[0]} x {size[1]} (height x width)"
            )  # fmt: skip
            raise FileFormatError(
                path,
                f'{place} has the "box" {json.dumps(box.get("box"))[:80]}; it must be [top, left, '
                f'bottom, right], {unit}, the smaller ones first; for pixels give "size": [height, '
                'width] beside "boxes"',
            )
        top, left, bottom, right = ends
        ends = top / size[0], left / size[1], bottom / size[0], right / size[1]
        yield ends, box["class"], sum(flag << i for i, flag in enumerate(flags))


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**6


def _four(values: Any) -> tuple[float, float, float, float] | None:
    """Four finite numbers in a list; None where there is anything else."""
    if not isinstance(values, list) or len(values) != 4:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return None
    try:
        first, second, third, fourth = map(float, values)
    except OverflowError:
        return None
    four = first, second, third, fourth
    return four if np.isfinite(four).all() else None


def _annotations(
    names: Sequence[str], numbers: Mapping[Any, int], found: Mapping[str, Sequence[Box]]
) -> BoxAnnotations:
    objects = {
        name: Objects(
            np.array([box[0] for box in boxes], np.float32).reshape(-1, 4),
            np.array([numbers[box[1]] for box in boxes], np.int32),
            np.array([box[2] for box in boxes], np.int32),
        )
        for name, boxes in found.items()
    }
    return BoxAnnotations(tuple(names), objects)


# ---------------------------------------------------------------------------------------- COCO


def read_coco(*paths: str | Path) -> BoxAnnotations:
    """The boxes in annotation files of COCO that are about the same images: of things
    (instances_*.json), or also of stuff.

    Classes are in the order of their ids as texts ("1", "10", "11", ..., "2"), without "other",
    as the published layout models number them: 80 of things, 171 with stuff. Crowds have the flag
    "group". Boxes are cut off at the image's border. Images without annotations have no boxes.

    Raises:
        FileFormatError: not such a file; says what is wrong where.
        DataError: the files contradict each other, or two images have the same name.
    """
    names: dict[str, str] = {}
    images: dict[int, tuple[str, int, int]] = {}
    boxes: dict[int, list[Box]] = {}
    for path in paths:
        data = parse_json(path, "it", read_bytes(path, _COCO_BYTES), _COCO_MARKS, _COCO_UNUSED)
        _same(path, names, {str(c[0]): c[1] for c in _rows(path, data, "categories", _category)})
        _same(path, images, {i[0]: i[1:] for i in _rows(path, data, "images", _image)})
        for image, ends, category, crowd in _rows(path, data, "annotations", _annotation):
            if image not in images or str(category) not in names:
                what = f"image {image}" if image not in images else f"category {category}"
                raise FileFormatError(path, f"an annotation is of {what}, which it does not list")
            if names[str(category)] != _NO_CLASS:
                share = _shares(ends, images[image])
                boxes.setdefault(image, []).append((share, str(category), crowd))
    ids = sorted(key for key, name in names.items() if name != _NO_CLASS)
    found = {name: boxes.get(key, []) for key, (name, _, _) in images.items()}
    if len(found) < len(images):
        raise DataError(f"two images of {paths[0]} have the same file_name")
    numbers = {key: number for number, key in enumerate(ids)}
    return _annotations([names[key] for key in ids], numbers, found)


def _same(path: str | Path, known: dict[Any, Any], more: dict[Any, Any]) -> None:
    for key, value in more.items():
        if known.setdefault(key, value) != value:
            raise DataError(f"{path} says of {key} {value}, another file {known[key]}")


def _rows(path: str | Path, data: dict[str, Any], kind: str, read: Any) -> Iterator[Any]:
    rows = data.get(kind)
    if not isinstance(rows, list):
        raise FileFormatError(path, f'has no list "{kind}", as annotation files of COCO have')
    for number, row in enumerate(rows):
        try:
            yield read(row)
        except (KeyError, TypeError, ValueError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else f"is malformed: {error}"
            raise FileFormatError(path, f'entry {number} of "{kind}" (from 0) {what}') from error


def _category(row: Any) -> tuple[int, str]:
    return _whole(row["id"]), str(row["name"])


def _image(row: Any) -> tuple[int, str, int, int]:
    height, width = _whole(row["height"]), _whole(row["width"])
    if height < 1 or width < 1:
        raise ValueError(f"its size is {height} x {width} pixels")
    return _whole(row["id"]), PurePosixPath(str(row["file_name"])).as_posix(), height, width


def _annotation(row: Any) -> tuple[int, tuple[float, float, float, float], int, int]:
    ends = _four(row["bbox"])
    if ends is None or min(ends[2:]) < 0:
        raise ValueError("its bbox is not left, top, width and height in pixels")
    return _whole(row["image_id"]), ends, _whole(row["category_id"]), int(bool(row.get("iscrowd")))


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{shown(value)} stands where a whole number must")
    return value


def _shares(
    ends: Sequence[float], image: tuple[str, int, int]
) -> tuple[float, float, float, float]:
    (left, top, width, height), (_, h, w) = ends, image
    top, left, bottom, right = (
        min(max(share, 0.0), 1.0)
        for share in (top / h, left / w, (top + height) / h, (left + width) / w)
    )
    return top, left, bottom, right
