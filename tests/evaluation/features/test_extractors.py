"""Extractors give the features of every image once, whatever the batch and the devices.

A network of one matrix stands for Inception, whose values are compared in `tests/parity`."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ldm_jax.convert.feature_weights import FeatureWeights
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.evaluation.evaluators import EVALUATORS
from ldm_jax.evaluation.features.extractors import (
    MODES,
    Extractor,
    Mode,
    Network,
    read_extractor,
)
from ldm_jax.evaluation.features.preprocessing import Preprocessing


class Small(nn.Module):
    """The sum and the mean of an image's pixels."""

    @nn.compact
    def __call__(self, x):
        weight = self.param("weight", nn.initializers.ones_init(), (1,), jnp.float32)
        return {"sum": x.sum((1, 2)) * weight[None], "mean": x.mean((1, 2, 3))[:, None]}


WEIGHTS = FeatureWeights({"weight": np.full((1,), 2, np.float32)}, "0" * 64, False)
NETWORK = Network("small", Small(), {"sum": 3, "mean": 1}, lambda path: WEIGHTS)
MODE = Mode(NETWORK, Preprocessing("torch_bilinear", 6, (128.0,) * 3, (128.0,) * 3), ("sum",))
IMAGES = np.random.default_rng(0).integers(0, 256, (19, 6, 6, 3), np.uint8)


@pytest.mark.parametrize("batch_size", [1, 8, 16, 24])
def test_every_image_once(batch_size):
    extractor = Extractor("small", MODE, WEIGHTS, ("sum", "mean"), batch_size)
    found = extractor.features(IMAGES)
    pixels = (IMAGES.astype(np.float64) - 128) / 128
    np.testing.assert_allclose(found["sum"], 2 * pixels.sum((1, 2)), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found["mean"], pixels.mean((1, 2, 3))[:, None], atol=1e-6)
    none = extractor.features(IMAGES[:0])
    assert {name: values.shape for name, values in none.items()} == {"sum": (0, 3), "mean": (0, 1)}


def test_what_is_told(monkeypatch):
    monkeypatch.setitem(MODES, "small", MODE)
    extractor = read_extractor("small")
    assert list(extractor.features(IMAGES)) == ["sum"]
    told = extractor.describe()
    assert json.loads(json.dumps(told)) == told
    assert told["extractor"] == "small" and told["features"] == ["sum"]
    assert told["weights_sha256"] == extractor.weights_sha256 == "0" * 64
    assert told["resize"] == "torch_bilinear" and not told["weights_known"]


def test_unknown_names(monkeypatch):
    monkeypatch.setitem(MODES, "small", MODE)
    with pytest.raises(ValueError, match="no features 'fid'; choose one of adm, torch-fidelity"):
        read_extractor("fid")
    with pytest.raises(ValueError, match="small has no features '2048'; it has sum, mean"):
        read_extractor("small", taps=("2048",))


def test_a_missing_file_is_said(monkeypatch):
    monkeypatch.delenv("LDM_JAX_INCEPTION", raising=False)
    with pytest.raises(ConvertError, match="pytorch-fid"):
        read_extractor("adm")


@pytest.mark.parametrize("mode", MODES)
def test_modes_name_features_of_their_networks(mode):
    assert set(MODES[mode].taps) <= set(MODES[mode].network.taps)


def test_scores_are_of_features_that_there_are():
    """And of those that the program itself takes: torch-fidelity's after the ReLU."""
    used = [score for scores in EVALUATORS.values() for score in scores.values()]
    assert {score.mode for score in used} >= MODES.keys()
    for score in used:
        assert score.mode not in MODES or score.tap in MODES[score.mode].taps
