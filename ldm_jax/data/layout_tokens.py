"""Boxes with classes as tokens for layout models, as taming-transformers and latent diffusion count
them, and back."""

import numpy as np
from jaxtyping import Float, Float64, Int, Int16, Int32, Int64

from ldm_jax import config as cfg
from ldm_jax.data.random_stream import RandomStream
from ldm_jax.data.transforms import Crop, mirrored_boxes

_WHOLE = ((0.0, 0.0, 1.0, 1.0),)


def layout_tokens(
    boxes: Float[np.ndarray, "n 4"],
    classes: Int[np.ndarray, " n"],
    how: cfg.LayoutTokens,
    crop: Crop | None = None,
    stream: RandomStream | None = None,
    flags: Int[np.ndarray, " n"] | None = None,
) -> Int32[np.ndarray, " l"]:
    """The tokens of boxes (top, left, bottom, right as shares of the whole picture).

    Boxes outside of the crop, and those without an area, are dropped. A class token is class +
    num_classes * flags; a corner's is the nearest of grid x grid points, row by row, halves to even
    numbers; places without an object hold the padding token.

    Args:
        crop: what is shown of the picture; None: all of it.
        stream: what draws the order of the objects, as in training; None: as given.
        flags: of each object, bit i for `cfg.FLAGS[i]`; those that `how.flags` does not name are
            ignored.

    Raises:
        ValueError: a class that there is not, a box whose ends are exchanged or no numbers, or
            more boxes than `how` has places for, if it is to stop there.
    """
    boxes = np.asarray(boxes, np.float64)
    _check(boxes, classes, how)
    whole = np.array(_WHOLE if crop is None else [crop.shown])
    areas = _areas(boxes, whole[0])
    kept = np.flatnonzero(areas > 0)
    if len(kept) > how.max_objects:
        if how.too_many == "stop":
            raise ValueError(
                f"a picture has {len(kept)} boxes, but a layout has places for {how.max_objects}; "
                "use fewer, keep the largest with too_many=largest, or train with more max_objects"
            )
        kept = np.sort(kept[np.argsort(-areas[kept], kind="stable")[: how.max_objects]])
    if stream is not None:
        kept = kept[stream.order(len(kept))]

    boxes = boxes[kept]
    if crop is not None and not how.crop:
        boxes = crop.boxes(boxes)
    elif crop is not None and crop.mirrored:
        boxes, whole = mirrored_boxes(boxes), mirrored_boxes(whole)
    numbers = np.zeros(len(kept), np.int64) if flags is None else flags[kept].astype(np.int64)
    told = sum(1 << cfg.FLAGS.index(name) for name in how.flags)

    tokens = np.full(how.length, how.padding, np.int32)
    objects = tokens[: 3 * len(kept)].reshape(-1, 3)
    objects[:, 0] = classes[kept] + how.num_classes * (numbers & told)
    objects[:, 1:] = _corners(boxes, how)
    if how.crop:
        tokens[-2:] = _corners(whole, how)[0]
    return tokens


def empty_layout(how: cfg.LayoutTokens) -> Int32[np.ndarray, " l"]:
    """The tokens of a whole picture without any boxes, which stand for no condition."""
    return layout_tokens(np.zeros((0, 4)), np.zeros(0, np.int64), how)


def boxes_of_tokens(
    tokens: Int[np.ndarray, " l"], how: cfg.LayoutTokens
) -> tuple[Float64[np.ndarray, "n 4"], Int64[np.ndarray, " n"]]:
    """The boxes of a layout, each corner where its grid point is, and their classes, without
    flags. Padding is left out."""
    objects = tokens[: 3 * how.max_objects].reshape(-1, 3).astype(np.int64)
    objects = objects[objects[:, 0] != how.padding]
    return _boxes(objects[:, 1:], how), objects[:, 0] % how.num_classes


def box_map(
    tokens: Int[np.ndarray, " l"], how: cfg.LayoutTokens, sides: tuple[int, int]
) -> Int16[np.ndarray, "h w"]:
    """The classes of a layout's boxes painted on an image of these sides, smaller boxes over
    larger ones; -1 where there is none. A box covers the pixels whose middles lie in it, and one
    at least."""
    boxes, classes = boxes_of_tokens(tokens, how)
    top, left, bottom, right = crop_of_tokens(tokens, how)
    origin, size = np.array([top, left] * 2), np.array([bottom - top, right - left] * 2)
    ends = (boxes - origin) / size * np.array([*sides] * 2)
    order = np.argsort(-_areas(boxes, np.array(_WHOLE[0])), kind="stable")
    painted = np.full(sides, -1, np.int16)
    for box, number in zip(ends[order], classes[order].tolist(), strict=True):
        first = np.clip(np.ceil(box[:2] - 0.5), 0, np.array(sides) - 1).astype(int)
        last = np.maximum(np.ceil(box[2:] - 0.5).astype(int), first + 1)
        painted[first[0] : last[0], first[1] : last[1]] = number
    return painted


def crop_of_tokens(
    tokens: Int[np.ndarray, " l"], how: cfg.LayoutTokens
) -> tuple[float, float, float, float]:
    """Top, left, bottom, right of the crop that a layout is for, as shares of the whole picture, on
    the grid."""
    if not how.crop:
        return _WHOLE[0]
    top, left, bottom, right = _boxes(tokens[None, -2:].astype(np.int64), how)[0].tolist()
    return top, left, bottom, right


def _check(
    boxes: Float64[np.ndarray, "n 4"], classes: Int[np.ndarray, " n"], how: cfg.LayoutTokens
) -> None:
    unknown = classes[(classes < 0) | (classes >= how.num_classes)]
    if unknown.size:
        raise ValueError(
            f"a box is of class {unknown[0]}; a layout has the classes 0 to {how.num_classes - 1}"
        )
    sound = np.isfinite(boxes).all(1) & (boxes[:, :2] <= boxes[:, 2:]).all(1)
    if not sound.all():
        raise ValueError(
            f"a box is {boxes[~sound][0].tolist()}; it must be top, left, bottom and right, as "
            "shares of the picture from its upper left corner, the smaller ones first"
        )


def _areas(
    boxes: Float64[np.ndarray, "n 4"], part: Float64[np.ndarray, "4"]
) -> Float64[np.ndarray, " n"]:
    """The area of each box inside another."""
    ends = np.minimum(boxes[:, 2:], part[2:]), np.maximum(boxes[:, :2], part[:2])
    return np.clip(ends[0] - ends[1], 0, None).prod(1)


def _corners(boxes: Float64[np.ndarray, "n 4"], how: cfg.LayoutTokens) -> Int64[np.ndarray, "n 2"]:
    """Tokens of upper left and lower right corners."""
    points = np.rint(np.clip(boxes, 0, 1) * (how.grid - 1)).astype(np.int64).reshape(-1, 2, 2)
    return points[..., 0] * how.grid + points[..., 1]


def _boxes(corners: Int64[np.ndarray, "n 2"], how: cfg.LayoutTokens) -> Float64[np.ndarray, "n 4"]:
    points = np.stack([corners // how.grid, corners % how.grid], -1)
    return points.reshape(-1, 4) / (how.grid - 1)
