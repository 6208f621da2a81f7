"""Seconds and memory that it takes to bring a model from its files onto this machine's devices.

    python -m benchmarks.import_weights FOLDER_OR_FILE [--tokenizer=FOLDER]

`benchmarks.random_stable_diffusion` makes a folder of Stable Diffusion 1.5's size.
"""

import argparse
import resource
import time
from pathlib import Path

import jax

from ldm_jax.core import tree
from ldm_jax.generation.pipeline import Pipeline


def main() -> None:
    """Prints seconds, bytes of parameters, and peak memory beside what was taken before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    options = parser.parse_args()
    choices = {"tokenizer": options.tokenizer} if options.tokenizer else {}
    jax.devices()
    before = peak()
    began = time.perf_counter()
    pipeline = Pipeline(options.model, **choices)
    jax.block_until_ready((pipeline.params, pipeline.frozen))
    seconds = time.perf_counter() - began
    parts = (pipeline.params, pipeline.frozen)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(parts))
    print(f"{tree.count(parts):,} parameters, {size / 1e9:.2f} GB, in {seconds:.1f} s")
    print(f"peak memory {peak() / 1e9:.2f} GB, of which {before / 1e9:.2f} GB before; "
          f"{(peak() - before) / size:.2f} times the parameters")  # fmt: skip


def peak() -> int:
    """Most bytes that this process has held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
