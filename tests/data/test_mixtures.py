"""Mixtures of sources: their shares, their order, and sources that do not fit each other."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.config.choices import choose
from ldm_jax.config.command_line import overridden
from ldm_jax.data.loader import make_loader, validation_batches
from ldm_jax.data.sources import DataError, open_source
from ldm_jax.workdir.run_config import is_free


def _folder(root, count, colour, captions=True, classes=()):
    for i in range(count):
        path = root / (classes[i % len(classes)] if classes else "") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), (colour, i, 0)).save(path)
        if captions:
            path.with_suffix(".txt").write_text(f"{colour} {i}")
    return cfg.ImageFolder(path=str(root), validation_fraction=0.0)


def _data(*sources, batch_size=4, weights=()):
    return cfg.Data(cfg.Mixture(sources, weights), 8, batch_size)


@pytest.fixture
def two(tmp_path):
    return _folder(tmp_path / "a", 4, 10), _folder(tmp_path / "b", 12, 20)


def _shown(batch):
    return [tuple(image[0, 0, :2].tolist()) for image in batch["image"]]


def _take(data, count, position=None):
    loader = make_loader(open_source(data, "train"), data, seed=5, train=True)
    if position is not None:
        loader.set_state(position)
    found = [_shown(next(loader)) for _ in range(count)]
    position = loader.get_state()
    loader.close()
    return found, position


def test_batches_have_shares_by_weight_and_go_on_exactly(two):
    data = _data(*two, weights=(1.0, 3.0))
    batches, _ = _take(data, 12)
    for batch in batches:
        assert [colour for colour, _ in batch] == [10, 20, 20, 20]
    first = [number for batch in batches for colour, number in batch if colour == 10]
    second = [number for batch in batches for colour, number in batch if colour == 20]
    # Each source is gone through by itself: three epochs of four, and three of twelve.
    assert all(sorted(first[i : i + 4]) == [*range(4)] for i in (0, 4, 8))
    assert all(sorted(second[i : i + 12]) == [*range(12)] for i in (0, 12, 24))
    _, position = _take(data, 5)
    rest, _ = _take(data, 7, json.loads(json.dumps(position)))
    assert rest == batches[5:]
    with pytest.raises(DataError, match="source = "):
        _take(_data(*two, weights=(1.0, 2.0)), 1, position)


def test_without_weights_all_examples_count_alike(two):
    batches, _ = _take(_data(*two), 4)
    shown = [one for batch in batches for one in batch]
    assert len({*shown}) == 16


def test_each_source_is_fitted_as_it_says(two, tmp_path):
    left = cfg.ImageFolder(path=two[0].path, validation_fraction=0.0, resize="exact")
    source = open_source(_data(left, two[1]), "train")
    assert source[0]["fitting"] == left and source[15]["fitting"] == two[1]
    assert pickle.loads(pickle.dumps(source))[15]["name"] == source[15]["name"]
    assert source.found.startswith("25.00% of 4 images in ") and "; 75.00% of 12" in source.found


def test_validation_is_of_all_that_keep_some(two, tmp_path):
    held = cfg.ImageFolder(path=two[1].path, validation_path=two[0].path)
    data = _data(two[1], held)
    found = open_source(data, "validation")
    assert len(found) == 4 and [*found.captions()] == [f"10 {i}" for i in range(4)]
    data = _data(held, held)
    (batch,) = validation_batches(open_source(data, "validation"), data, 1)
    assert _shown(batch) == [(10, 0), (10, 0), (10, 1), (10, 1)]


def test_sources_that_do_not_agree_are_refused(two, tmp_path):
    bare = _folder(tmp_path / "c", 2, 30, captions=False)
    with pytest.raises(DataError, match="same captions: yes in 4 images in .*; none in 2 images"):
        open_source(_data(two[0], bare), "train")
    cats = _folder(tmp_path / "d", 2, 30, classes=("ant", "cat"))
    with pytest.raises(DataError, match="same classes: none in 4 images in .*; ant, cat in 2"):
        open_source(_data(two[0], cats), "train")
    with pytest.raises(DataError, match="data.source.sources is empty"):
        open_source(_data(), "train")
    with pytest.raises(cfg.ConfigError, match=r"weights is \(1.0,\); it must be one for each of"):
        _data(*two, weights=(1.0,))


def test_settings_survive_json_and_the_command_line(two):
    data = _data(*two, weights=(1.0, 3.0))
    run = cfg.AutoencoderRun(data, cfg.Autoencoder(block_out_channels=(8,), norm_num_groups=4))
    assert cfg.from_json(cfg.to_json(run)) == run
    words = [
        "--data.source=Mixture", "--data.source.sources=Shards,ImageFolder",
        "--data.source.sources.0.path=x", "--data.source.sources.1.path=y",
        "--data.source.weights", "3", "1", "--data.source.sources.1.flip",
    ]  # fmt: skip
    chosen = overridden(*choose(replace(run, data=cfg.Data(image_size=16)), words), "test")
    expected = cfg.Mixture((cfg.Shards(path="x"), cfg.ImageFolder(path="y", flip=True)), (3.0, 1.0))
    assert chosen.data.source == expected
    assert is_free("data.source.sources.1.path") and not is_free("data.source.sources.1.flip")
    assert [str(path) for path in cfg.folders_of(expected)] == ["x", "y"]


def test_a_mixture_of_shapes_is_a_batch(two):
    (batch,) = validation_batches(open_source(_data(*two), "train"), _data(*two), 1)
    assert batch["image"].shape == (4, 8, 8, 3) and batch["image"].dtype == np.uint8
