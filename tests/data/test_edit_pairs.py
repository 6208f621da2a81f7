"""Folders of pictures with the pictures that they are edited versions of."""

import json

import numpy as np
import pytest
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.core.reading import FileFormatError
from ldm_jax.data.inputs import InputMaker, check_source
from ldm_jax.data.loader import fit_example
from ldm_jax.data.sources import DataError, open_source


def picture(path, value, sides=(16, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = np.arange(sides[1], dtype=np.uint8)
    image = np.broadcast_to((columns + value)[None, :, None], (*sides, 3)).copy()
    Image.fromarray(image).save(path)


def listed(folder, *lines):
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return str(folder / "metadata.jsonl")


@pytest.fixture
def pairs(tmp_path):
    """Two edits of one picture, and one of an edited picture."""
    for name, value in (("before/0.png", 0), ("after/0.png", 50), ("after/1.png", 100)):
        picture(tmp_path / name, value)
    names = [("after/0.png", "before/0.png"), ("after/1.png", "after/0.png")]
    listed(tmp_path, *(
        {"file_name": image, "edit_image": original, "text": f"as {image}"}
        for image, original in names
    ))  # fmt: skip
    return tmp_path


def data(folder, **source):
    return cfg.Data(
        cfg.ImageFolder(str(folder), validation_fraction=0.0, **source), image_size=16, batch_size=1
    )


def test_a_list_names_the_pairs_and_mere_originals_are_no_examples(pairs):
    source = open_source(data(pairs, edit_images=str(pairs / "metadata.jsonl")), "train")
    assert list(source.names()) == ["after/0.png", "after/1.png"]
    assert source.beside == {"edit_image"} and "pictures to edit from" in source.found
    first, second = source[0], source[1]
    assert (first["image"][0, 0, 0], first["edit_image"][0, 0, 0]) == (50, 0)
    assert (second["image"][0, 0, 0], second["edit_image"][0, 0, 0]) == (100, 50)
    assert first["caption"] == "as after/0.png"
    check_source((cfg.TextConditioner(), cfg.EditConditioner()), source, "it")


def test_a_folder_has_the_originals_under_the_same_names(tmp_path):
    picture(tmp_path / "after/x/0.png", 50)
    picture(tmp_path / "before/x/0.webp", 0)
    source = open_source(data(tmp_path / "after", edit_images=str(tmp_path / "before")), "train")
    assert source[0]["edit_image"].shape == (16, 24, 3)
    other = open_source(data(tmp_path / "after"), "train")
    with pytest.raises(cfg.ConfigError, match="no pictures to edit, .* data.source.edit_images"):
        check_source((cfg.EditConditioner(),), other, "it")
    with pytest.raises(cfg.ConfigError, match="no depth maps, .* data.source.depth_maps"):
        check_source((cfg.DepthConditioner(),), other, "it")
    picture(tmp_path / "after/x/1.png", 50)
    with pytest.raises(DataError, match=r"1 of 2 images have no picture to edit .* x/1.png"):
        open_source(data(tmp_path / "after", edit_images=str(tmp_path / "before")), "train")


def test_both_are_cropped_and_mirrored_alike(pairs):
    how = data(pairs, edit_images=str(pairs / "metadata.jsonl"), crop="random", flip=True)
    source, seen = open_source(how, "train"), set()
    make = InputMaker((cfg.EditConditioner(),), None, (16, 16), 4)
    for position in range(12):
        example = fit_example(source[0], how, 0, position)
        inputs = make(example, position, 0)
        np.testing.assert_array_equal(inputs["edit_image"], example["image"] - 50)
        assert inputs["edit_given"] == 1
        seen.add(tuple(example["image"][0, :2, 0].tolist()))
    assert len(seen) > 4, "crops and mirror images of several kinds"
    assert make.uncond() == {"edit_given": 0}


def test_a_pair_of_other_proportions_is_refused(pairs):
    picture(pairs / "before/0.png", 0, (24, 24))
    how = data(pairs, edit_images=str(pairs / "metadata.jsonl"))
    example = fit_example(open_source(how, "train")[0], how, 0, 0)
    with pytest.raises(DataError, match="after/0.png has 16 x 24 pixels .* edit 24 x 24; both"):
        InputMaker((cfg.EditConditioner(),), None, (16, 16), 4)(example, 0, 0)
    # The same in twice the size is the same.
    picture(pairs / "before/0.png", 0, (32, 48))
    example = fit_example(open_source(how, "train")[0], how, 0, 0)
    made = InputMaker((cfg.EditConditioner(),), None, (16, 16), 4)(example, 0, 0)
    assert made["edit_image"].shape == (16, 16, 3)


def test_a_broken_original_stops_or_is_skipped(pairs):
    (pairs / "before/0.png").write_bytes(b"no picture")
    where = str(pairs / "metadata.jsonl")
    with pytest.raises(DataError, match="before/0.png"):
        open_source(data(pairs, edit_images=where), "train")[0]
    source = open_source(data(pairs, edit_images=where, on_broken="skip"), "train")
    assert source[0]["name"] == "after/1.png" and [*source.broken] == ["after/0.png"]


@pytest.mark.parametrize(
    ("lines", "error", "complaint"),
    [
        ([{"file_name": "after/0.png", "text": "a"}], FileFormatError, 'line 1 needs "file_name"'),
        (
            [{"file_name": "after/0.png", "edit_image": "before/0.png", "text": "a"}] * 2,
            FileFormatError, "line 2 names 'after/0.png' for the second time",
        ),
        (
            [{"file_name": f"after/{i}.png", "edit_image": "before/9.png", "text": "a"}
             for i in range(2)] + [{"file_name": "before/0.png", "edit_image": "x", "text": "a"}],
            DataError, "3 of 3 images have no picture to edit by",
        ),
    ],
)  # fmt: skip
def test_lists_that_are_wrong_say_where(pairs, lines, error, complaint):
    where = listed(pairs, *lines)
    with pytest.raises(error, match=complaint):
        open_source(data(pairs, edit_images=where), "train")


def test_dropping_more_together_than_either_is_refused():
    text = cfg.TextConditioner(dropout=0.1)
    with pytest.raises(cfg.ConfigError, match="dropped_with_caption is 0.05; it must be at most 0"):
        cfg.slots_of((text, cfg.EditConditioner(dropout=0.02)), 4)
    with pytest.raises(cfg.ConfigError, match="dropped_with_caption is 0.05; it must be at least"):
        cfg.slots_of((text, cfg.EditConditioner(dropout=1.0)), 4)
    assert cfg.slots_of((text, cfg.EditConditioner()), 4).concat == 4
