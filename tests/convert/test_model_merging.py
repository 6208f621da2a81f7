"""Models that are made of others."""

from dataclasses import replace

import convert_models as small
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.cli import merge
from ldm_jax.convert import load
from ldm_jax.convert.native import write_native
from ldm_jax.core import tree


@pytest.fixture
def models(tmp_path):
    """A model, another of its shapes, a third, and one that paints holes."""
    for number, name in enumerate(("sd1", "sd1", "sd1", "inpainting")):
        model = small.imported_model.make(small.MODELS[name], small.numbers(small.MODELS[name]))
        params = {
            path: (np.asarray(leaf) * (number + 1)).astype(
                np.float16 if number == 0 else leaf.dtype
            )
            for path, leaf in tree.flatten(model.params).items()
        }
        write_native(replace(model, params=tree.unflatten(params)), tmp_path / f"m{number}")
    return tmp_path


def flat(path):
    return tree.flatten(load(path).params)


def merged(models, *words):
    assert merge.main([*(str(models / w) if w[0] == "m" else w for w in words)]) == 0


def test_a_weighted_sum(models, capsys):
    merged(models, "m0", "m1", "merged", "--share=0.25")
    first, second, found = flat(models / "m0"), flat(models / "m1"), flat(models / "merged")
    assert found.keys() == first.keys()
    for path, leaf in found.items():
        assert leaf.dtype == np.float16, "as the first is stored"
        expected = 0.75 * np.asarray(first[path], np.float64) + 0.25 * second[path]
        # Half precision keeps eleven bits, below 6e-5 fewer.
        np.testing.assert_allclose(leaf, expected, rtol=1e-3, atol=1e-7)
    assert "0.75" in capsys.readouterr().out
    stage = tree.flatten(load(models / "m0").frozen["autoencoder"])
    for path, leaf in tree.flatten(load(models / "merged").frozen["autoencoder"]).items():
        np.testing.assert_array_equal(leaf, stage[path])


def test_a_difference_is_added_also_to_a_model_with_more_inputs(models):
    merged(models, "m3", "m2", "merged", f"--minus={models / 'm1'}")
    first, found = flat(models / "m3"), flat(models / "merged")
    difference = {
        path: leaf - flat(models / "m1")[path] for path, leaf in flat(models / "m2").items()
    }
    for path, leaf in found.items():
        step = difference[path]
        if path == "unet/conv_in/kernel":
            step = np.pad(step, [(0, 0), (0, 0), (0, 5), (0, 0)])
        np.testing.assert_allclose(leaf, first[path] + step, rtol=1e-6, atol=1e-7)


def test_what_does_not_fit_is_refused_and_nothing_is_written(models, capsys):
    other = small.MODELS["sd2"]
    write_native(small.imported_model.make(other, small.numbers(other)), models / "m9")
    for words, complaint in (
        (("m3", "m1"), "fewer inputs than the first model"),
        (("m0", "m9"), "use_linear_projection"),
        (("m0",), "SECOND is missing: name FIRST SECOND TARGET"),
        (("m0", "missing"), "missing"),
        (("m0", ""), "TARGET or option is empty"),
    ):
        paths = [str(models / word) if word else "" for word in words]
        assert merge.main([*paths, *([str(models / "out")] if len(words) == 2 else [])]) != 0
        assert complaint in capsys.readouterr().err
        assert not (models / "out").exists()
    assert isinstance(load(models / "m0").config, cfg.Model)
