"""Which picture each image of a folder is an edited version of."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ldm_jax.core.reading import FileFormatError, parse_json, printable, read_lines, shown
from ldm_jax.core.stores import as_path
from ldm_jax.data.alike import find_alike
from ldm_jax.data.sources import DataError
from ldm_jax.images.picture_files import SUFFIXES

KEY = "edit_image"
"""Of a line's picture to edit, beside its `file_name` and its `text`, the instruction."""


def read_edit_pairs(path: str | Path) -> dict[str, str]:
    """The picture to edit of each image that a `metadata.jsonl` names; both relative to its folder,
    with '/'.

    Raises:
        FileFormatError: a line that is malformed, or names an image twice; says which.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        entry = parse_json(path, f"line {number}", line)
        names = [entry.get("file_name"), entry.get(KEY)]
        if not all(isinstance(name, str) and name for name in names):
            raise FileFormatError(
                path, f'line {number} needs "file_name" and "{KEY}", the picture to edit'
            )
        image, original = (PurePosixPath(name).as_posix() for name in names)
        if image in found:
            raise FileFormatError(path, f"line {number} names {shown(image)} for the second time")
        found[image] = original
    return found


def only_edited(names: Sequence[str], pairs: Mapping[str, str]) -> tuple[str, ...]:
    """Those of the images `names` that are no mere pictures to edit."""
    originals = {os.path.normpath(original) for original in pairs.values()} - pairs.keys()
    return tuple(name for name in names if name not in originals)


def find_edit_images(where: str | Path, names: Sequence[str]) -> dict[str, Path]:
    """The file of each image's picture to edit, as `where` says: a `metadata.jsonl`, or a folder
    which has them under the images' names, with any suffix of pictures.

    Args:
        names: paths of the images, relative to their own folder, with '/'.

    Raises:
        DataError: images without such a picture, or two that would have the same.
        FileFormatError: as `read_edit_pairs`.
    """
    if not is_list(where):
        return find_alike(where, names, dict.fromkeys(SUFFIXES, "a picture"), "picture to edit")
    pairs, folder = read_edit_pairs(where), as_path(where).parent
    missing = [name for name in names if not (name in pairs and (folder / pairs[name]).is_file())]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} images have no picture to edit by {where}, among them "
            f"{', '.join(map(printable, missing[:5]))}; each needs a line that names a file with "
            f'"{KEY}"'
        )
    return {name: folder / pairs[name] for name in names}


def is_list(where: str | Path) -> bool:
    """Whether `where` is a file that lists pairs, not a folder."""
    return str(where).lower().endswith(".jsonl")
