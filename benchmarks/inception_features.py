"""Features of images by Inception on this machine's CPU, ours beside torch-fidelity's.

    python -m benchmarks.inception_features [--batch=16] [--side=256] [--repeats=5]

Both take the same images of 8 bits and the same random weights, resize and compute in float32, and
give the 2048 features of FID and the logits of IS. Prints a row for RESULTS.md. Needs the extra
`parity`.
"""

import argparse
import statistics
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from benchmarks import timing, torchvision_python  # noqa: F401
from ldm_jax.convert import inception_weights
from ldm_jax.convert.state_dicts import leaves
from ldm_jax.evaluation.features.extractors import read_extractor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/parity"))

TAPS = ("2048", "logits_unbiased")


def random_weights(path: Path) -> None:
    """A file of weights that keep activations near 1."""
    random = np.random.default_rng(0)
    state = {}
    for leaf in leaves(inception_weights._shapes()):
        values = random.standard_normal(leaf.torch_shape, np.float32)
        if values.ndim > 1:
            values *= np.sqrt(2 / np.prod(leaf.torch_shape[1:]), dtype=np.float32)
        elif leaf.name.endswith(("bn.weight", "running_var")):
            values = np.abs(1 + 0.1 * values)
        state[leaf.name] = torch.from_numpy(values)
    torch.save(state, path)


def theirs(path: Path) -> object:
    """torch-fidelity's network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    return FeatureExtractorInceptionV3("inception", list(TAPS), str(path))


def main() -> None:
    """Prints the times, their ratio, the difference of the features, and a row of a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("batch", 16), ("side", 256), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    shape = (given.batch, given.side, given.side, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        random_weights(path)
        peer = theirs(path)
        extractor = read_extractor("torch-fidelity", path, taps=TAPS, batch_size=given.batch)

    def forward() -> object:
        with torch.inference_mode():
            return peer(torch.from_numpy(images).permute(0, 3, 1, 2))

    programs = {"torch-fidelity": forward, "ldm_jax": lambda: extractor.features(images)}
    want, found = forward()[0].numpy(), extractor.features(images)["2048"]
    difference = np.abs(found - want).max() / np.abs(want).max()
    seconds = timing.in_turn(programs, given.repeats)
    title = f"Inception's features, batch {given.batch}, {given.side} px, float32"
    timing.report(title, seconds, "ldm_jax", "torch-fidelity")
    print(f"  features differ by {difference:.1e} of the largest")
    rates = [given.batch / statistics.median(seconds[name]) for name in programs]
    ratio = rates[0] / rates[1]
    command = f"`python -m benchmarks.inception_features --batch={given.batch} --side={given.side}`"
    print(f"| {command} | {rates[0]:.1f} images/s | {rates[1]:.1f} images/s | {ratio:.2f} |")


if __name__ == "__main__":
    main()
