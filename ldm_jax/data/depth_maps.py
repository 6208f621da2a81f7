"""Reading depth maps: files where each pixel has a number that is larger where it is nearer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from ldm_jax.core.npy import read_matrix
from ldm_jax.core.reading import FileFormatError
from ldm_jax.core.stores import as_path
from ldm_jax.data.alike import find_alike
from ldm_jax.images.picture_files import MAX_PIXELS, open_picture

_GREY = ("L", "I", "I;16", "I;16B", "I;16L")


def read_depth_map(path: str | Path) -> Float32[np.ndarray, "h w"]:
    """The depth of each pixel, in the file's own unit: a PNG file in grey of 8 or 16 bits (or in
    RGB whose colours are all grey), or a `.npy` file of numbers, [height, width].

    Raises:
        FileFormatError: no such file, colours, transparency, a palette, or one depth everywhere;
            says what is wrong.
    """
    if as_path(path).suffix.lower() == ".npy":
        depth = read_matrix(path, MAX_PIXELS)
    else:
        with open_picture(path, ("PNG",)) as image:
            if image.mode not in (*_GREY, "RGB") or image.has_transparency_data:
                raise FileFormatError(
                    path,
                    f"has pixels of the kind {image.mode}, not one number each; save the depth map "
                    "as PNG in grey with 8 or 16 bits, without transparency",
                )
            depth = np.asarray(image).astype(np.float32)
    if depth.ndim == 3:
        if (depth != depth[..., :1]).any():
            row, column = np.argwhere((depth != depth[..., :1]).any(-1))[0].tolist()
            raise FileFormatError(
                path,
                f"has a colour in row {row}, column {column} (from 0), where a depth map is grey; "
                "save it in grey",
            )
        depth = np.ascontiguousarray(depth[..., 0])
    if depth.min() == depth.max():
        raise FileFormatError(
            path, f"has the same depth everywhere, {depth.min():g}, so it says nothing"
        )
    return depth


def to_unit_range(depth: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """From -1, the least depth, to 1, the largest, as first stages of depth take it."""
    low, high = depth.min(), depth.max()
    return 2 * (depth - low) / (high - low) - 1


def find_depth_maps(folder: str | Path, names: Sequence[str]) -> dict[str, Path]:
    """The file of each image's depth map: `folder` has `a/b.png` or `a/b.npy` for `a/b.jpg`.

    Args:
        names: paths of the images, relative to their own folder, with '/'.

    Raises:
        DataError: images without a map, or two images that would have the same.
    """
    return find_alike(folder, names, {".png": "a PNG", ".npy": "a .npy file"}, "depth map")
