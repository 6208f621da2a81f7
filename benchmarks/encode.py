"""Images per second that first stages encode, as `python -m ldm_jax.cli.encode` runs them.

    python -m benchmarks.encode [--names demo kl-f8] [--compute=float32] [--repeats=3]

With random parameters; from uint8 images in memory to arrays in memory.
"""

import argparse
import os
import statistics
import time

import jax
import numpy as np

from ldm_jax import config as cfg
from ldm_jax.config import published_models
from ldm_jax.convert import imported_model
from ldm_jax.convert.parts import FirstStage
from ldm_jax.generation.encoding import Encoder, Storage

STAGES = {  # name → config, pixels of a side, images at once
    "demo": (cfg.load("configs/digit_scenes_autoencoder.py").autoencoder, 16, 64),
    "kl-f8": (published_models.KL_F8, 256, 1),
}


def measure(name: str, compute: str, repeats: int) -> str:
    """A line with the median and the best rate."""
    config, side, batch = STAGES[name]
    generator = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: generator.standard_normal(leaf.shape, np.float32) * 0.02,
        imported_model.autoencoder_shapes(config),
    )
    storage = Storage(compute=compute, batch_size=batch)
    encoder = Encoder(FirstStage(config, params, None, name), storage)
    shape = (encoder.rows, side, side, 3)
    examples = [{"image": one} for one in generator.integers(0, 256, shape, np.uint8)]
    began = time.perf_counter()
    np.asarray(encoder(examples)["encoded"])
    first = time.perf_counter() - began
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        np.asarray(encoder(examples)["encoded"])
        seconds.append(time.perf_counter() - began)
    median, best = (encoder.rows / s for s in (statistics.median(seconds), min(seconds)))
    return (
        f"{name}, {side} px, batch {encoder.rows}, {compute}: {median:.2f} images/s, "
        f"at best {best:.2f}; first call {first:.1f} s"
    )


def main() -> None:
    """Prints a line for each first stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--compute", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    device = jax.devices()[0]
    machine = f"{len(jax.devices())} x {device.device_kind}, {os.cpu_count()} cores"
    print(f"{machine}, jax {jax.__version__}")
    for name in given.names:
        print(measure(name, given.compute, given.repeats), flush=True)


if __name__ == "__main__":
    main()
