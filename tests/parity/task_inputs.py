"""Inputs of the originals of conditional tasks, made from nothing but NumPy."""

import numpy as np

SCALE = 4
SIDE = 64
COUNT = 8
"""Pictures that are degraded."""

CROPS = ((300, 400, 256, 341, 0, 40, 256), (500, 300, 427, 256, 100, 0, 256),
         (256, 256, 256, 256, 0, 0, 256))  # fmt: skip
"""Height and width, those after resizing, top, left and side of the crop."""


def picture(number: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """uint8 [h w 3]: waves of several lengths, edges, and some grain."""
    generator = np.random.RandomState(number)
    y, x = np.mgrid[:height, :width] / 64.0
    channels = np.zeros((height, width, 3))
    for _ in range(6):
        a, b, phase = generator.uniform(-1, 1, 3) * (12, 12, 3)
        wave = np.sin(a * y + b * x + phase)
        channels += (
            generator.uniform(-1, 1, 3) * (wave if generator.rand() < 0.6 else wave > 0)[..., None]
        )
    channels += generator.normal(0, 0.08, channels.shape)
    return np.uint8(np.clip(127.5 + 60 * channels, 0, 255))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Of uint8 pictures, in dB."""
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def objects(number: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (left, top, width, height, as shares), classes, and flags of four bits."""
    generator = np.random.RandomState(number)
    corner = generator.uniform(0, 0.8, (count, 2))
    size = generator.uniform(0.01, 1, (count, 2)) * (1 - corner)
    # Some in the middle between grid points of 90, which are rounded to even ones; of those along x
    # only the one that stays there exactly when it is mirrored.
    corner[::3, 1] = np.floor(corner[::3, 1] * 89) / 89 + 0.5 / 89
    corner[1::4, 0], size[1::4, 0] = 0.5, 0.25
    size = np.minimum(size, 1 - corner)
    boxes = np.concatenate([corner, size], 1)
    return boxes, generator.randint(classes, size=count), generator.randint(16, size=count)
