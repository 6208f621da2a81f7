"""Images per second that the loader makes of JPEG files, and the cores that feed an accelerator.

    python -m benchmarks.loader [--batches=12]

Photographs are made of shapes, gradients and noise, so that files are as large as a camera's.
They are read from files, decoded, resized and cropped at random as in training, by threads
(`data.workers=0`) and by processes. Those of a core are counted by the time that one thread has
computed, so that they depend little on what else the machine does.
"""

import argparse
import json
import os
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ldm_jax import config as cfg
from ldm_jax.data.loader import fit_example, make_loader
from ldm_jax.data.sources import open_source

FILES = 64
SIZES = ((640, 480), (1024, 1024))
"""Width and height of the files."""


def photograph(size: tuple[int, int], seed: int) -> Image.Image:
    """Light that changes slowly, two hundred shapes with sharp borders, and a sensor's noise."""
    generator, (width, height) = np.random.default_rng(seed), size
    coarse = generator.integers(40, 216, (5, 5, 3), np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(200):
        x, y = generator.integers(0, width), generator.integers(0, height)
        w, h = generator.integers(4, width // 6, 2)
        shape = draw.ellipse if generator.integers(2) else draw.rectangle
        shape((x, y, x + w, y + h), fill=tuple(generator.integers(0, 256, 3).tolist()))
    noise = generator.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def write(folder: Path, size: tuple[int, int]) -> float:
    """Writes the files; returns their mean size in kB."""
    folder.mkdir()
    for number in range(FILES):
        photograph(size, number).save(folder / f"{number:03d}.jpg", quality=90)
    return sum(path.stat().st_size for path in folder.iterdir()) / FILES / 1e3


def settings(folder: Path, side: int, workers: int = 0) -> cfg.Data:
    """Random crops and mirrored pictures, as in training."""
    source = cfg.ImageFolder(path=str(folder), crop="random", flip=True)
    return cfg.Data(source, image_size=side, batch_size=32, workers=workers)


def of_core(folder: Path, side: int) -> float:
    """Images that one thread makes in a second that it computes: the best of three rounds."""
    data = settings(folder, side)
    opened = open_source(data, "train")
    spent = []
    for seed in range(3):
        began = time.thread_time()
        for row in range(len(opened)):
            fit_example(opened[row], data, seed, row)
        spent.append(time.thread_time() - began)
    return len(opened) / min(spent)


def of_loader(folder: Path, side: int, workers: int, batches: int) -> float:
    """Images that come in a second that passes, once what was read ahead is used up."""
    data = settings(folder, side, workers)
    with closing(make_loader(open_source(data, "train"), data, seed=0, train=True)) as loader:
        for _ in range(2):
            next(loader)
        began = time.perf_counter()
        for _ in range(batches):
            next(loader)
        return batches * data.batch_size / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=12, help="0: a core alone")
    arguments = parser.parse_args()
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    print(f"{cores} cores, load {load:.1f}; batches of 32, {FILES} files of each size")
    with tempfile.TemporaryDirectory() as root:
        for size in SIZES:
            folder = Path(root) / "{}x{}".format(*size)
            kilobytes = write(folder, size)
            for side in (256, 512):
                told: dict[str, Any] = {"files": folder.name, "kB": round(kilobytes), "px": side}
                told["core"] = round(of_core(folder, side), 1)
                for workers in (0, 1, 2) if arguments.batches else ():
                    rate = of_loader(folder, side, workers, arguments.batches)
                    told[f"workers={workers}"] = round(rate, 1)
                print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
