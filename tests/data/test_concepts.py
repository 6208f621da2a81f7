"""Folders of subjects and classes, and the batches that are made of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.data.loader import make_loader
from ldm_jax.data.sources import DataError, open_source


def write(folder: Path, *values: int) -> None:
    folder.mkdir(parents=True)
    for value in values:
        Image.new("RGB", (8, 8), (value,) * 3).save(folder / f"{value}.png")


@pytest.fixture
def folders(tmp_path):
    write(tmp_path / "subjects/3_sks dog", 1, 2)
    write(tmp_path / "subjects/1_a red toy", 3)
    write(tmp_path / "subjects/no number", 4)
    write(tmp_path / "subjects/0_never", 5)
    write(tmp_path / "classes/1_dog", *range(100, 110))
    (tmp_path / "subjects/3_sks dog/2.caption").write_text("sks dog running\nsecond line")
    return tmp_path


def data(folders, **changes) -> cfg.Data:
    settings = {"class_path": str(folders / "classes"), "prior_weight": 0.5} | changes
    return cfg.Data(cfg.DreamBooth(path=str(folders / "subjects"), **settings), 8, batch_size=4)


def test_subjects_are_repeated_and_classes_are_the_other_half(folders):
    config = data(folders)
    source = open_source(config, "train")
    assert source.parts.sizes == (7, 10) and len(source) == 17
    assert sorted(source.captions()) == sorted(
        3 * ["sks dog", "sks dog running"] + ["a red toy"] + 10 * ["dog"]
    )
    assert "2 images of 'sks dog', 3 times each" in source.found
    loader = make_loader(source, config, seed=0, train=True)
    seen: dict[str, list[int]] = {"subject": [], "class": []}
    for _ in range(35):
        batch = next(loader)
        values = batch["image"][:, 0, 0, 0]
        np.testing.assert_array_equal(batch["importance"], [2, 1, 2, 1])
        seen["subject"] += values[::2].tolist()
        seen["class"] += values[1::2].tolist()
    loader.close()
    # Ten epochs of subjects and seven of classes.
    assert [seen["subject"].count(v) for v in (1, 2, 3, 4, 5)] == [30, 30, 10, 0, 0]
    assert all(seen["class"].count(v) == 7 for v in range(100, 110))
    assert sorted(set(seen["class"][:10])) == list(range(100, 110))  # each epoch has each once


def test_buckets_of_subjects_with_classes_beside_them(folders):
    """A wide subject's batches have classes of its size, and repeats count as before."""
    wide = Image.new("RGB", (16, 4), (50,) * 3)
    wide.save(folders / "subjects/1_a red toy/50.png")
    sizes = cfg.Buckets(sizes=((8, 8), (4, 16)))
    config = data(folders, buckets=sizes)
    source = open_source(config, "train")
    assert "subjects in 2 buckets (height x width: pictures): 8 x 8: 7, 4 x 16: 1" in source.found
    assert source.fingerprint != open_source(data(folders), "train").fingerprint
    loader = make_loader(source, config, seed=0, train=True)
    seen = []
    for _ in range(40):  # ten epochs of the eight subjects, eight of the classes
        batch = next(loader)
        values = batch["image"][:, 0, 0, 0].tolist()
        is_wide = batch["image"].shape[1:3] == (4, 16)
        assert {*values[::2]} <= ({50} if is_wide else {1, 2, 3})
        assert batch["importance"].tolist() == [2, 1, 2, 1] and min(values[1::2]) >= 100
        seen += values
    loader.close()
    assert [seen.count(v) for v in (1, 2, 3, 50)] == [30, 30, 10, 10]
    assert all(seen.count(v) == 8 for v in range(100, 110))
    with pytest.raises(cfg.ConfigError, match="batch_size is 3; it must be even"):
        replace(config, batch_size=3)


def test_a_loader_that_goes_on_and_one_of_some_rows(folders):
    config = data(folders)
    source = open_source(config, "train")
    whole = make_loader(source, config, seed=1, train=True)
    batches = [next(whole) for _ in range(4)]
    again = make_loader(source, config, seed=1, train=True, rows=(1, 3))
    again.set_state(make_state(whole, 2))
    np.testing.assert_array_equal(next(again)["image"], batches[2]["image"][[1, 3]])
    whole.close(), again.close()


def make_state(loader, step):
    return loader.get_state() | {"step": step}


def test_without_classes_all_count_alike(folders):
    config = data(folders, class_path="", prior_weight=1.0)
    source = open_source(config, "train")
    loader = make_loader(source, config, seed=0, train=True)
    assert source.parts.sizes == (7,) and "importance" not in next(loader)
    loader.close()


def test_pictures_in_the_folder_itself_have_the_prompt(folders):
    Image.new("RGB", (8, 8), (9, 9, 9)).save(folders / "subjects/9.png")
    source = open_source(data(folders, prompt="a toy", class_path="", prior_weight=1.0), "train")
    assert len(source) == 8 and source[0]["caption"] == "a toy"


def test_what_cannot_be_is_refused(folders):
    with pytest.raises(DataError, match="no validation split"):
        open_source(data(folders), "validation")
    with pytest.raises(DataError, match="class_path is .* not a folder"):
        open_source(data(folders, class_path=str(folders / "none")), "train")
    write(folders / "empty/4_x")
    with pytest.raises(DataError, match="has no pictures of concepts"):
        open_source(data(folders, class_path=str(folders / "empty")), "train")
    for changes, complaint in (
        ({"class_path": ""}, "prior_weight is 0.5; it must be 1.0 without"),
        ({"class_prompts": ("a/b",)}, "class_prompts is 'a/b'"),
    ):
        with pytest.raises(cfg.ConfigError, match=complaint):
            data(folders, **changes)


def test_broken_pictures(folders):
    (folders / "subjects/1_a red toy/3.png").write_bytes(b"broken")
    source = open_source(data(folders), "train")
    index = list(source.captions()).index("a red toy")
    with pytest.raises(DataError, match="on_broken=skip"):
        source[index]
    source = open_source(data(folders, on_broken="skip"), "train")
    assert source[index]["caption"] != "a red toy" and source[index]["importance"] == 2
    assert len(source.broken) == 1
