"""Pictures and masks for image-to-image and inpainting, on the host: reading, resizing, blurring,
cropping to what is painted anew, and laying the result back over the original."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageFilter

from ldm_jax.core.reading import FileFormatError
from ldm_jax.images.picture_files import open_picture, read_picture

THRESHOLD = 128
"""Grey from here on (128 / 255 > 0.5) is painted anew, as in diffusers."""


class MaskError(ValueError):
    """A picture or mask that cannot be read, or that do not fit each other."""


@dataclass(frozen=True)
class Box:
    """Rows `top` to `bottom` and columns `left` to `right` of a picture, the last ones excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def rows_columns(self) -> tuple[slice, slice]:
        """What picks the box out of an array [h, w, ...]."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True)
class Inpainting:
    """What the model sees, and where its picture belongs."""

    image: UInt8[np.ndarray, "h w 3"]
    """At the model's size: the whole picture, or the box."""
    mask: Float32[np.ndarray, "h w"]
    """At the same size: 1 where the model paints anew, 0 where it keeps."""
    original: UInt8[np.ndarray, "height width 3"]
    """What is pasted into: the given picture; resized like `image` where nothing was cropped."""
    alpha: UInt8[np.ndarray, "height width"]
    """Beside `original`: the blurred mask, 255 where only the new picture shows."""
    box: Box
    """Where `image` lies in `original`."""

    def paste(self, painted: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "height width 3"]:
        """`original` with the painted picture blended in by `alpha`.

        Pixels where `alpha` is 0 are the original's, bit for bit.
        """
        rows_columns = self.box.rows_columns
        old = self.original[rows_columns].astype(np.int32)
        new = resize(painted, *old.shape[:2]).astype(np.int32)
        alpha = self.alpha[rows_columns].astype(np.int32)[..., None]
        result = self.original.copy()
        result[rows_columns] = (alpha * new + (255 - alpha) * old + 127) // 255
        return result


# ---------------------------------------------------------------------------------------- files


def load_image(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    """A picture file in RGB; `images.picture_files.read_picture` says how.

    Raises:
        MaskError: no such file, or one that cannot be read.
    """
    try:
        return read_picture(path)
    except FileFormatError as error:
        raise MaskError(str(error)) from error


def load_mask(path: str | Path) -> UInt8[np.ndarray, "h w"]:
    """A mask file in grey: white is painted anew, black is kept. Colours count by their luma.

    Raises:
        MaskError: no such file, one that cannot be read, or one with transparency, which could
            mean either.
    """
    try:
        with open_picture(path) as image:
            clear = image.has_transparency_data and (
                image.convert("RGBA").getchannel("A").getextrema()[0] < 255
            )
    except FileFormatError as error:
        raise MaskError(str(error)) from error
    if clear:
        raise MaskError(
            f"the mask {path} has transparent pixels, which could mean either; save it without: "
            "white where the picture is painted anew, black where it is kept"
        )
    return np.asarray(Image.fromarray(load_image(path)).convert("L"))


# --------------------------------------------------------------------------------------- pixels


def resize(
    image: UInt8[np.ndarray, "h w *c"], height: int, width: int
) -> UInt8[np.ndarray, "height width *c"]:
    """Resized with Lanczos' kernel, as diffusers does; the same size changes no bit."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def size_for(sides: tuple[int, int], factor: int) -> tuple[int, int]:
    """The height and width of a picture, each rounded down to a multiple of `factor`.

    Raises:
        MaskError: a side shorter than `factor`.
    """
    height, width = (side - side % factor for side in sides)
    if not height or not width:
        raise MaskError(
            f"the picture has {sides[0]}x{sides[1]} pixels; this model needs at least "
            f"{factor} along each side"
        )
    return height, width


def prepare(
    image: UInt8[np.ndarray, "h0 w0 3"],
    mask: UInt8[np.ndarray, "h1 w1"],
    height: int,
    width: int,
    *,
    blur: float = 0.0,
    invert: bool = False,
    only_masked: int | None = None,
) -> Inpainting:
    """What the model needs to paint `image` anew where `mask` is white.

    Image and mask are resized to `height` x `width` with Lanczos' kernel; then the mask is cut at
    one half. Their proportions change if those differ.

    Args:
        blur: radius in pixels of the original (standard deviation of a Gaussian), by which the
            mask's edge is softened before it is cut, and the new picture fades into the old.
        invert: paints where the mask is black.
        only_masked: crops to the blurred mask and so many pixels around it, and to the
            proportions of `height` and `width` as far as the picture has room; the new picture is
            pasted back into the original at its full size.

    Raises:
        MaskError: image and mask differ in size, the mask is nowhere one half or more once it is
            blurred and resized, or the blur or the margin is negative.
    """
    if image.shape[:2] != mask.shape:
        raise MaskError(
            f"the picture has {image.shape[0]}x{image.shape[1]} pixels (height x width), the mask "
            f"{mask.shape[0]}x{mask.shape[1]}; they must have the same size"
        )
    if not 0 <= blur < np.inf or (only_masked or 0) < 0:
        raise MaskError(
            f"the mask's blur is {blur} and its margin {only_masked}; neither can be negative"
        )
    alpha = 255 - mask if invert else mask
    _check_not_empty(alpha, "inverted, " if invert else "")
    if blur:
        alpha = np.asarray(Image.fromarray(alpha).filter(ImageFilter.GaussianBlur(blur)))
        _check_not_empty(alpha, f"blurred by {blur}, ")
    if only_masked is None:
        image, alpha = resize(image, height, width), resize(alpha, height, width)
        box = Box(0, 0, height, width)
    else:
        box = crop_box(alpha, height, width, only_masked)
    seen = resize(image[box.rows_columns], height, width)
    cut = resize(alpha[box.rows_columns], height, width)
    _check_not_empty(cut, f"resized to {height}x{width}, ")
    return Inpainting(seen, (cut >= THRESHOLD).astype(np.float32), image, alpha, box)


def _check_not_empty(mask: UInt8[np.ndarray, "h w"], how: str) -> None:
    if mask.max(initial=0) < THRESHOLD:
        raise MaskError(
            f"the mask is {how}nowhere {THRESHOLD} or more of 255, so that "
            "nothing would be painted; white is painted anew, black is kept, and less blur leaves "
            "more of small masks"
        )


def crop_box(mask: UInt8[np.ndarray, "h w"], height: int, width: int, margin: int) -> Box:
    """The box around all of a mask above 0 and `margin` pixels, widened to the proportions of
    `height` and `width` as far as the picture has room, and inside the picture.

    Raises:
        MaskError: a mask of zeros.
    """
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not rows.size:
        raise MaskError("the mask is black everywhere; white is painted anew")
    limits = mask.shape
    top, bottom = max(int(rows[0]) - margin, 0), min(int(rows[-1]) + 1 + margin, limits[0])
    left, right = max(int(columns[0]) - margin, 0), min(int(columns[-1]) + 1 + margin, limits[1])
    tall = max(bottom - top, round((right - left) * height / width))
    wide = max(right - left, round((bottom - top) * width / height))
    top, bottom = _widen(top, bottom, tall, limits[0])
    left, right = _widen(left, right, wide, limits[1])
    return Box(top, left, bottom, right)


def _widen(start: int, stop: int, length: int, limit: int) -> tuple[int, int]:
    """A stretch of `length`, or of `limit` if that is less, inside 0…limit and about the middle
    of start…stop, which it contains."""
    length = min(length, limit)
    start -= (length - (stop - start)) // 2
    start = min(max(start, 0), limit - length)
    return start, start + length


# ---------------------------------------------------------------------------------------- model


def latent_mask(mask: Float32[np.ndarray, "h w"], factor: int) -> Float32[np.ndarray, "h2 w2"]:
    """A mask beside the latents: of each factor x factor pixels the upper left one, as diffusers
    has it (torch's nearest-neighbour interpolation).

    Raises:
        MaskError: sides that are no multiples of `factor`, or a mask so thin that nothing is left.
    """
    if mask.shape[0] % factor or mask.shape[1] % factor:
        raise MaskError(
            f"the mask has {mask.shape[0]}x{mask.shape[1]} pixels; both sides must be multiples "
            f"of {factor}"
        )
    small = mask[::factor, ::factor]
    if mask.any() and not small.any():
        raise MaskError(
            f"the mask is so thin that none of it is left at 1/{factor} of its size; widen it"
        )
    return small
