"""Pictures for people: labelled grids, PNG files that carry text, and moving pictures."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from ldm_jax.core.files import write_atomically

GAP = 2
FONT_SIZE = 11
BESIDE = 160
"""Pixels of the words beside a row, at most."""
INK = (32, 32, 32)
LINES = 8
"""Of a label, at most."""


def grid(
    images: UInt8[np.ndarray, "n h w 3"],
    columns: int,
    labels: Sequence[str] | None = None,
    scale: int = 1,
) -> UInt8[np.ndarray, "gh gw 3"]:
    """One white picture with the images in rows, each enlarged by `scale`, its label below it.

    Labels are wrapped to the width of their image, and cut after a few lines; scale small images
    up to make room.

    Raises:
        ValueError: no images, not one label for each, or a size below 1.
    """
    if not len(images) or columns < 1 or scale < 1:
        raise ValueError(
            f"a grid of {len(images)} images in {columns} columns at scale {scale} is not "
            "possible; all three must be at least 1"
        )
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(labels)} labels for {len(images)} images; give one for each")
    height, width = images.shape[1] * scale, images.shape[2] * scale
    font = ImageFont.load_default(FONT_SIZE)
    texts = [_wrap(label, width, font) for label in labels] if labels is not None else []
    line_height = sum(font.getmetrics())
    below = max((len(text) for text in texts), default=0) * line_height
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    cell_height, cell_width = height + below + GAP, width + GAP
    picture = Image.new("RGB", (columns * cell_width + GAP, rows * cell_height + GAP), "white")
    draw = ImageDraw.Draw(picture)
    for i, image in enumerate(images):
        x, y = GAP + i % columns * cell_width, GAP + i // columns * cell_height
        large = image.repeat(scale, axis=0).repeat(scale, axis=1)
        picture.paste(Image.fromarray(large), (x, y))
        for j, line in enumerate(texts[i] if texts else []):
            draw.text((x, y + height + j * line_height), line, fill=INK, font=font)
    return np.array(picture)


def axis_grid(
    images: UInt8[np.ndarray, "n h w 3"],
    across: Sequence[str],
    down: Sequence[str] = (),
    scale: int = 1,
) -> UInt8[np.ndarray, "gh gw 3"]:
    """One white picture with the images in rows, each enlarged by `scale`: `across` has the words
    above each column, `down` those beside each row, if there are any.

    Raises:
        ValueError: no images, or not one for each column of each row.
    """
    rows = max(len(down), 1)
    if not len(images) or len(images) != len(across) * rows:
        raise ValueError(
            f"{len(images)} images for {len(across)} columns and {rows} rows; give one for each"
        )
    body = grid(images, len(across), scale=scale)
    font = ImageFont.load_default(FONT_SIZE)
    line_height = sum(font.getmetrics())
    height, width = (side * scale + GAP for side in images.shape[1:3])
    above = [_wrap(text, width - GAP, font) for text in across]
    beside = [_wrap(text, BESIDE, font) for text in down]
    top = max(map(len, above)) * line_height + GAP
    left = int(max((font.getlength(line) for text in beside for line in text), default=-1)) + 1
    left += GAP if beside else 0
    size = (left + body.shape[1], top + max(body.shape[0], rows * height))
    picture = Image.new("RGB", size, "white")
    picture.paste(Image.fromarray(body), (left, top))
    draw = ImageDraw.Draw(picture)
    for i, text in enumerate(above):
        _write(draw, text, (left + GAP + i * width, 0), font)
    for i, text in enumerate(beside):
        _write(draw, text[: height // line_height or 1], (GAP, top + i * height), font)
    return np.array(picture)


def _write(
    draw: ImageDraw.ImageDraw, lines: Sequence[str], at: tuple[int, int],
    font: ImageFont.FreeTypeFont,
) -> None:  # fmt: skip
    for number, line in enumerate(lines):
        draw.text((at[0], at[1] + number * sum(font.getmetrics())), line, fill=INK, font=font)


def _wrap(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Lines of at most `width` pixels; breaks between words, and inside words that are longer.
    Of more than `LINES` the last ends in dots."""
    lines = [""]
    for word in text.split():
        if len(lines) > LINES:
            break
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word[: LINES * width]:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    if len(lines) > LINES:
        lines[LINES - 1 :] = [f"{lines[LINES - 1][:-1]}…"]
    return lines


def see_through_grid(
    images: UInt8[np.ndarray, "n h w 3"], columns: int
) -> UInt8[np.ndarray, "gh gw 4"]:
    """The images in rows as in `grid`, with nothing between and beside them: RGB and opacity, for
    pages that may be light or dark."""
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    cells = np.zeros((rows * columns, height + GAP, width + GAP, 4), np.uint8)
    cells[:count, :height, :width] = np.pad(
        images, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=255
    )
    cells = cells.reshape(rows, columns, *cells.shape[1:]).swapaxes(1, 2)
    return cells.reshape(rows * (height + GAP), -1, 4)[:-GAP, :-GAP]


def save_png(
    path: Path, image: UInt8[np.ndarray, "h w 3"], text: Mapping[str, str] | None = None
) -> None:
    """Writes `png_bytes`; the file appears complete or not at all."""
    write_atomically(path, png_bytes(image, text))


def png_bytes(image: UInt8[np.ndarray, "h w 3"], text: Mapping[str, str] | None = None) -> bytes:
    """A PNG with `text` as its text chunks."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        chunks.add_itxt(key, value)
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG", pnginfo=chunks)
    return content.getvalue()


def save_webp(path: Path, frames: UInt8[np.ndarray, "n h w 3"]) -> None:
    """Writes an animated WebP, without loss, that shows `frames` in three seconds, over and over;
    the last stays for a second longer."""
    each = round(3000 / len(frames))
    durations = [each] * (len(frames) - 1) + [each + 1000]
    first, *others = (Image.fromarray(frame) for frame in frames)
    content = io.BytesIO()
    first.save(
        content, format="WEBP", save_all=True, append_images=others, duration=durations, loop=0,
        lossless=True,
    )  # fmt: skip
    write_atomically(path, content.getvalue())
