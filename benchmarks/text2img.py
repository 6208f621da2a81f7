"""20-step guided text-to-image at Stable Diffusion 1.5's size on this machine, beside diffusers.

    python -m benchmarks.text2img [--size=512] [--steps=20] [--folder=FOLDER]

Both read the same folder (made by `benchmarks.random_stable_diffusion` if it is absent) and start
from the same noise with DDIM, guidance 7.5, float32; the relative difference of their latents is
printed beside the times. The first call compiles, which is timed apart. Needs the extra `parity`
and 12 GB of memory.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from benchmarks import random_stable_diffusion, torchvision_python  # noqa: F401
from ldm_jax import config as cfg
from ldm_jax.generation.defaults import Picture
from ldm_jax.generation.pipeline import Pipeline

PROMPT = "a photograph of an astronaut riding a horse"
GUIDANCE = 7.5


def theirs(folder: Path, noise: np.ndarray, steps: int) -> np.ndarray:
    """diffusers' picture, uint8 [h, w, 3]."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)

    def call() -> np.ndarray:
        latents = torch.from_numpy(noise.transpose(0, 3, 1, 2).copy())
        height, width = (8 * n for n in noise.shape[1:3])
        images = pipeline(
            PROMPT, num_inference_steps=steps, guidance_scale=GUIDANCE, latents=latents,
            height=height, width=width, output_type="np",
        ).images  # fmt: skip
        return (images[0] * 255).round().astype(np.uint8)

    return call


def ours(folder: Path, noise: np.ndarray, steps: int) -> Any:
    """A call that makes our picture, uint8 [h, w, 3]."""
    pipeline = Pipeline(folder)
    height, width = (8 * n for n in noise.shape[1:3])
    sampling = cfg.Sampling(
        steps=steps, guidance_scale=GUIDANCE, height=height, width=width, batch_size=1
    )
    return lambda: pipeline.generate([PROMPT], sampling=sampling, picture=Picture(noise=noise))[0]


def main() -> None:
    """Prints seconds of loading, first and later calls, and how far the pictures differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    temporary = tempfile.TemporaryDirectory()
    folder = options.folder or Path(temporary.name) / "model"
    if not (folder / "model_index.json").exists():
        random_stable_diffusion.write(folder)
    side = options.size // 8
    noise = np.random.default_rng(0).standard_normal((1, side, side, 4)).astype(np.float32)
    calls, images = {}, {}
    for name, load in (("diffusers", theirs), ("ldm_jax", ours)):
        begin = time.perf_counter()
        calls[name] = load(folder, noise, options.steps)
        loaded = time.perf_counter()
        images[name] = calls[name]()
        print(f"{name:10} loading {loaded - begin:7.1f} s, first picture "
              f"{time.perf_counter() - loaded:7.1f} s", flush=True)  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.repeats):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:10} {value:7.1f} s a picture of {options.size} x {options.size}")
    print(f"ratio {medians['ldm_jax'] / medians['diffusers']:.2f}")
    difference = np.abs(images["ldm_jax"].astype(int) - images["diffusers"])
    print(f"grey levels apart: mean {difference.mean():.4f}, most {difference.max()}")
    temporary.cleanup()


if __name__ == "__main__":
    main()
