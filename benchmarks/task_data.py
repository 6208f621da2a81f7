"""Examples per second that one core makes of the data of conditional tasks.

    python -m benchmarks.task_data [--repeats=3]

From a picture in memory to the arrays of one example. Everything runs in one thread.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.data.degradation import degrade
from ldm_jax.data.hole_masks import draw_mask
from ldm_jax.data.layout_tokens import layout_tokens
from ldm_jax.data.random_stream import RandomStream
from ldm_jax.data.transforms import choose_crop, draws

Example = Callable[[int], object]
"""Makes the example at a position."""


def super_resolution(side: int, how: cfg.Degradation) -> Example:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    return lambda position: degrade(image, 4, how, RandomStream(0, position, "degradation"))


def inpainting(side: int, how: cfg.Masks) -> Example:
    return lambda position: draw_mask((side, side), how, RandomStream(0, position, "mask"))


def layout(count: int) -> Example:
    generator = np.random.default_rng(0)
    ends = np.sort(generator.uniform(0, 1, (2, count, 2)), 0)
    boxes, classes = np.concatenate([ends[0], ends[1]], 1), generator.integers(0, 171, count)
    how, folder = cfg.LayoutTokens(171), cfg.ImageFolder(path="-", crop="random", flip=True)

    def make(position: int) -> object:
        crop = choose_crop((480, 640), folder, (256, 256), draws(0, position))
        return layout_tokens(boxes, classes, how, crop, RandomStream(0, position, "boxes"))

    return make


def semantic(side: int) -> Example:
    class_map = np.random.default_rng(0).integers(0, 182, (480, 640)).astype(np.int32)
    folder = cfg.ImageFolder(path="-", crop="random", flip=True)
    return lambda position: choose_crop(
        (480, 640), folder, (side, side), draws(0, position)
    ).class_map(class_map)


TASKS: dict[str, Example] = {
    "super-resolution, bicubic, 256 to 64 px": super_resolution(256, cfg.Bicubic()),
    "super-resolution, BSRGAN, 256 to 64 px": super_resolution(256, cfg.BSRGAN()),
    "super-resolution, BSRGAN light, 256 to 64 px": super_resolution(256, cfg.BSRGAN(light=True)),
    "super-resolution, BSRGAN light, 64 to 16 px": super_resolution(64, cfg.BSRGAN(light=True)),
    "inpainting, training masks, 256 px": inpainting(256, cfg.Masks()),
    "inpainting, thin masks, 256 px": inpainting(256, cfg.Masks.thin()),
    "inpainting, training masks, 512 px": inpainting(512, cfg.Masks()),
    "inpainting, training masks, 16 px": inpainting(16, cfg.Masks()),
    "layout, 20 boxes, with its crop": layout(20),
    "semantic maps, 256 px of 480 x 640": semantic(256),
}


def rate(make: Example) -> float:
    """Examples per second of processor time, over at least half a second."""
    make(0)
    count, began = 0, time.process_time()
    while time.process_time() - began < 0.5:
        count += 1
        make(count)
    return count / (time.process_time() - began)


def main() -> None:
    """Prints a line for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    print(f"{os.cpu_count()} cores; NumPy {np.__version__}, Pillow {Image.__version__}")
    for name, make in TASKS.items():
        rates = [rate(make) for _ in range(repeats)]
        print(f"{name}: {statistics.median(rates):,.0f} a second ({min(rates):,.0f} at least)")


if __name__ == "__main__":
    main()
