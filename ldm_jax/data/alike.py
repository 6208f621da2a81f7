"""Files that belong to images by having their names."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ldm_jax.core.reading import printable
from ldm_jax.core.stores import as_path
from ldm_jax.data.sources import DataError


def find_alike(
    folder: str | Path, names: Sequence[str], suffixes: Mapping[str, str], what: str
) -> dict[str, Path]:
    """The file of each image in `folder`, which has `a/b.png` for the image `a/b.jpg`.

    Args:
        folder: of the files.
        names: paths of the images, relative to their own folder, with '/'.
        suffixes: of the files, in the order in which they are looked for, each with what it is
            called: {".png": "a PNG"}.
        what: what such a file is called.

    Raises:
        DataError: images without a file, or two images that would have the same.
    """
    folder = as_path(folder)
    found: dict[str, Path] = {}
    owners: dict[str, str] = {}
    missing = []
    for name in names:
        paths = [PurePosixPath(name).with_suffix(suffix).as_posix() for suffix in suffixes]
        there = next((path for path in paths if (folder / path).is_file()), None)
        stem = paths[0] if there is None else there
        if stem in owners:
            raise DataError(
                f"{printable(stem)} in {folder} would be the {what} of two images, "
                f"{printable(owners[stem])} and {printable(name)}; rename one of them"
            )
        owners[stem], found[name] = name, folder / stem
        if there is None:
            missing.append(name)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} images have no {what} in {folder}, among them "
            f"{', '.join(map(printable, missing[:5]))}; add "
            f"{' or '.join(dict.fromkeys(suffixes.values()))} of the same name for each"
        )
    return found
