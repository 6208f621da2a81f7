"""Prepared data sets of TFDS, by the names of their features."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.data import digit_scenes, digit_scenes_builder
from ldm_jax.data.sources import DataError, open_source
from ldm_jax.data.stored_pictures import Storing


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    builder = digit_scenes_builder.builder(folder, 16, train=12, validation=4, test=2)
    digit_scenes_builder.prepare(builder)
    return cfg.TFDS(
        path=str(folder), name=f"digit_scenes/{builder.builder_config.name}", caption="caption",
        label="label", validation_split="validation",
    )  # fmt: skip


def _open(source, split="train"):
    return open_source(cfg.Data(source, 16), split)


def test_examples_are_those_that_were_prepared(built):
    source = _open(built)
    assert len(source) == 12 and source.has_captions and source.class_names == digit_scenes.DIGITS
    for row in (11, 0, 5):
        scene = digit_scenes.example("train", row, 16)
        example = source[row]
        np.testing.assert_array_equal(example["image"], scene["image"])
        assert (example["caption"], example["label"]) == (scene["caption"], scene["label"])
        assert example["name"] == f"train/{row}"
    assert isinstance(source, Storing) and len(_open(built, "validation")) == 4
    assert pickle.loads(pickle.dumps(source))[3]["caption"] == source[3]["caption"]
    bare = _open(replace(built, caption="", label=""))
    assert not bare.has_captions and bare.class_names == () and bare[0]["caption"] == ""
    assert bare.fingerprint != source.fingerprint


def test_parts_of_splits(built):
    part = replace(built, split="train[:75%]", validation_split="train[75%:]")
    whole, first, last = _open(built), _open(part), _open(part, "validation")
    assert (len(first), len(last)) == (9, 3)
    assert [*first.captions(), *last.captions()] == [*whole.captions()]


def test_what_is_not_there_is_refused(built, tmp_path):
    for changes, message in (
        ({"path": str(tmp_path)}, r"is not prepared in .*; nothing is downloaded here: prepare it"),
        ({"name": "no_such_data"}, r"no_such_data is not prepared in .*tfds.builder\('no_such_d"),
        ({"name": ""}, "data.source.name is missing"),
        ({"split": "tests"}, "has no split 'tests'; it has .*train.*, and parts of these"),
        ({"image": "caption"}, "data.source.image is 'caption', which is not a picture in .*image"),
        ({"caption": "label"}, "data.source.caption is 'label', which is not a text in"),
        ({"label": "digit"}, "data.source.label is 'digit', which is not a class in"),
    ):
        with pytest.raises(DataError, match=message):
            _open(replace(built, **changes))
    with pytest.raises(DataError, match="no validation split is named"):
        _open(replace(built, validation_split=""), "validation")
    with pytest.raises(DataError, match="no test split is named"):
        _open(built, "test")


def test_other_formats_are_refused(built, tmp_path):
    import shutil

    folder = shutil.copytree(built.path, tmp_path / "copy")
    (path,) = folder.glob("*/*/*/dataset_info.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(DataError, match="has files of the format tfrecord, which cannot be read"):
        _open(replace(built, path=str(folder)))
