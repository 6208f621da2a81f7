"""Time and memory of scores of 50,000 images, from features that are there: everything but the
networks.

    python -m benchmarks.score_cost [--images 50000]

Draws random features of Inception's shape into files as `ldm_jax.evaluation` keeps them, in a
temporary folder (300 MB for 50,000 images), and prints a row for each score of torch-fidelity's
mode: seconds, and how far the process's memory rose above what it held before.
"""

import argparse
import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ldm_jax.evaluation.evaluators import EVALUATORS
from ldm_jax.evaluation.feature_shards import FeatureSet, FeatureShards

EVALUATOR = "torch-fidelity"
WIDTHS = {"2048": 2048, "logits_unbiased": 1008}


def random_features(folder: Path, images: int, seed: int) -> FeatureSet:
    """A set with positive features, as those of Inception are."""
    shards = FeatureShards(folder, images, {"seed": seed})
    for shard in shards.missing():
        generator = np.random.default_rng((seed, shard))
        rows = len(shards.rows(shard))
        shards.write(
            shard,
            {
                f"{EVALUATOR}/{tap}": np.abs(generator.normal(0.4, 0.3, (rows, width))).astype("f4")
                for tap, width in WIDTHS.items()
            },
        )
    return FeatureSet(shards)


def peak() -> float:
    """The most memory that the process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        sets = [random_features(Path(folder) / str(i), given.images, i) for i in range(2)]
        print(f"| score of {given.images:,} images | seconds | memory beyond the start |")
        print("|---|---|---|")
        for name in ("fid", "inception_score", "kid"):
            score, before, began = EVALUATORS[EVALUATOR][name], peak(), time.perf_counter()
            score.compute(*sets, score.layer)
            seconds = time.perf_counter() - began
            print(f"| {name} | {seconds:.1f} | {max(0.0, peak() - before):.0f} MB |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
