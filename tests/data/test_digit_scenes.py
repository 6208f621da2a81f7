"""DigitScenes: what its captions, pictures, splits and files promise."""

import hashlib
import io
import socket

import numpy as np
import pytest
from PIL import Image

from ldm_jax.data import digit_scenes, digit_scenes_builder
from ldm_jax.data.digit_scenes import COLOURS, SIZES, SPLITS


def _arrays(found):
    return (found["image"], found["class_map"], found["boxes"], found["classes"])


def test_scans_are_in_one_split_each_and_every_digit_is_in_every_split():
    scans = digit_scenes.load_scans()
    members = [scans.of(split) for split in SPLITS]
    assert sorted(np.concatenate(members).tolist()) == list(range(1797))
    shares = [len(m) / 1797 for m in members]
    assert np.allclose(shares, [0.7, 0.1, 0.2], atol=0.01)
    for part in members:
        assert set(scans.digits[part].tolist()) == set(range(10))


def test_scenes_draw_only_their_own_splits_scans_of_the_named_digits():
    scans = digit_scenes.load_scans()
    for split in SPLITS:
        own = set(scans.of(split).tolist())
        for index in range(100):
            scene = digit_scenes.draw_scene(split, index)
            assert own.issuperset(scene.scans)
            named = [thing.digit for thing in scene.description.things]
            assert scans.digits[list(scene.scans)].tolist() == named


def test_captions_are_disjoint_and_parse_back():
    captions = {}
    for split in SPLITS:
        scenes = [digit_scenes.draw_scene(split, index) for index in range(600)]
        captions[split] = {scene.description.caption for scene in scenes}
        for scene in scenes:
            parsed = digit_scenes.parse_caption(scene.description.caption)
            assert parsed == scene.description
            assert digit_scenes.caption_split(parsed) == split
    assert not captions["train"] & captions["test"]
    assert not captions["train"] & captions["validation"]
    assert not captions["validation"] & captions["test"]


def test_both_wordings_of_one_picture_are_in_one_split():
    for one, other in (
        ("a red three left of a blue seven", "a blue seven right of a red three"),
        ("a red three below a blue seven", "a blue seven above a red three"),
        (
            "a red three left of a blue seven above a green one",
            "a green one below a blue seven right of a red three",
        ),
    ):
        one, other = digit_scenes.parse_caption(one), digit_scenes.parse_caption(other)
        assert set(one.things) == set(other.things)
        assert digit_scenes.caption_split(one) == digit_scenes.caption_split(other)


@pytest.mark.parametrize(
    ("caption", "corners"),
    [
        ("a red three alone", [(4, 4)]),
        ("a red three left of a blue seven", [(4, 0), (4, 8)]),
        ("a red three right of a blue seven", [(4, 8), (4, 0)]),
        ("a red three above a blue seven", [(0, 4), (8, 4)]),
        ("a red three below a blue seven", [(8, 4), (0, 4)]),
        ("a red three left of a blue seven above a green one", [(0, 0), (0, 8), (8, 4)]),
        ("a red three right of a blue seven below a green one", [(8, 8), (8, 0), (0, 4)]),
        ("a green one above a red three left of a blue seven", [(0, 4), (8, 0), (8, 8)]),
        ("a green one below a red three right of a blue seven", [(8, 4), (0, 8), (0, 0)]),
    ],
)
def test_places_are_where_the_words_say(caption, corners):
    found = digit_scenes.places(digit_scenes.parse_caption(caption))
    assert [(place.y, place.x) for place in found] == corners


@pytest.mark.parametrize(
    ("caption", "complaint"),
    [
        ("", "expected a"),
        ("a red three", "its end, expected alone or left of"),
        ("a orange three alone", "'orange', expected red"),
        ("a red eleven alone", "'eleven', expected zero"),
        ("a red three left a blue two", "'left', expected alone or left of"),
        ("a red three alone above a blue two", "follows 'alone'"),
        ("a red three above  a blue two", "expected a"),
        ("A red three alone", "expected a"),
        ("a red one above a red two above a red three", "not a scene"),
        ("a red one above a red two left of a red three above a red six", "not a scene"),
    ],
)
def test_a_caption_outside_the_grammar_is_refused_by_name(caption, complaint):
    with pytest.raises(ValueError, match=complaint):
        digit_scenes.parse_caption(caption)


@pytest.mark.parametrize("size", SIZES)
def test_boxes_and_class_map_agree_with_the_picture(size):
    for index in range(30):
        scene = digit_scenes.draw_scene("train", index)
        found = digit_scenes.render(scene, size)
        image, class_map, boxes, classes = _arrays(found)
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        # The brightest channel is the stroke's alpha over a background of 8 to 12: half is 132-134.
        brightest = image.max(-1)
        assert brightest[class_map > 0].min() >= 132
        assert brightest[class_map == 0].max() <= 134
        covered = np.zeros_like(class_map)
        for box, digit, thing in zip(boxes, classes, scene.description.things, strict=True):
            top, left, bottom, right = np.round(box * size).astype(int)
            inside = class_map[top:bottom, left:right]
            covered[top:bottom, left:right] = 1
            assert set(np.unique(inside)) <= {0, digit + 1}
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()
            strongest = image[top:bottom, left:right].reshape(-1, 3).astype(int)
            strongest = strongest[strongest.max(1).argmax()]
            nearest = min(COLOURS, key=lambda n: np.abs(strongest - COLOURS[n]).sum())
            assert nearest == thing.colour
        assert not class_map[covered == 0].any()


def test_examples_are_the_same_for_ever():
    digest = hashlib.sha256()
    for split in SPLITS:
        for index in (0, 1, 2, 1000):
            found = digit_scenes.example(split, index)
            digest.update(found["caption"].encode())
            digest.update(np.array([found["label"], found["count"], found["index"]], "<i8"))
            for array in _arrays(found):
                digest.update(np.ascontiguousarray(array).tobytes())
    assert digest.hexdigest() == (
        "a1fdd7718d4a101d8fad2045c36a65b39d3ab70c027007ac5c2dd5bf0dac33c4"
    )


def test_counts_of_digits():
    train = [digit_scenes.draw_scene("train", i).description.things for i in range(1000)]
    shares = np.bincount([len(t) for t in train], minlength=4)[1:] / 1000
    assert np.allclose(shares, [0.4, 0.3, 0.3], atol=0.05)
    assert [digit_scenes.example("test", i)["count"] for i in range(6)] == [1, 2, 3, 1, 2, 3]


def test_held_out_prompts():
    prompts = digit_scenes.held_out_prompts(300)
    assert digit_scenes.held_out_prompts(7) == prompts[:7]
    parsed = [digit_scenes.parse_caption(prompt) for prompt in prompts]
    assert [len(p.things) for p in parsed] == [1, 2, 3] * 100
    assert {digit_scenes.caption_split(p) for p in parsed} == {"test"}
    assert len(set(prompts[0::3])) == 10 and len(set(prompts[:30:3])) == 10
    assert len(set(prompts[1::3])) == len(set(prompts[2::3])) == 100
    with pytest.raises(ValueError, match="train.*not held out"):
        digit_scenes.held_out_prompts(3, "train")


def test_unknown_sizes_and_splits_are_refused():
    with pytest.raises(ValueError, match="size 17"):
        digit_scenes.example("test", 0, 17)
    with pytest.raises(ValueError, match="'dev'"):
        digit_scenes.draw_scene("dev", 0)
    with pytest.raises(ValueError, match="size of DigitScenes is 17"):
        digit_scenes_builder.DigitScenesConfig(size=17)


def _refuse(*_, **__):
    raise AssertionError("the builder reached for the network")


def test_the_builder_writes_the_same_files_twice_without_network(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(socket.socket, "connect", _refuse)
    monkeypatch.setattr(socket, "getaddrinfo", _refuse)
    files = []
    for name in ("one", "two"):
        counts = {"train": 12, "validation": 3, "test": 4}
        found = digit_scenes_builder.builder(tmp_path / name, 16, **counts)
        assert not digit_scenes_builder.is_built(found)
        digit_scenes_builder.prepare(found)
        assert digit_scenes_builder.is_built(found)
        records = sorted((tmp_path / name).rglob("*.array_record*"))
        assert len(records) == 3
        files.append({path.name: path.read_bytes() for path in records})
    assert files[0] == files[1]

    source = found.as_data_source("train")
    assert len(source) == 12
    for index in range(12):
        read, made = source[index], digit_scenes.example("train", index)
        assert read["caption"].decode() == made["caption"]
        assert (read["label"], read["count"]) == (made["label"], made["count"])
        assert read["index"] == index
        assert np.array_equal(read["class_map"][:, :, 0], made["class_map"])
        for key in ("image", "boxes", "classes"):
            assert np.array_equal(read[key], made[key])

    arguments = [f"--data_dir={tmp_path / 'one'}", "--train=12", "--validation=3", "--test=4"]
    digit_scenes_builder.main(arguments)
    assert "already built" in capsys.readouterr().out


def test_a_full_disk_is_named(tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise RuntimeError(FULL)

    found = digit_scenes_builder.builder
    monkeypatch.setattr(digit_scenes_builder.DigitScenes, "download_and_prepare", full)
    assert digit_scenes_builder.main([f"--data_dir={tmp_path}"]) == 1
    said = capsys.readouterr().err
    assert f"{found(tmp_path).data_path} cannot be written: the disk is full" in said


FULL = (
    'Failed to finalize writing of split "train": write() failed: No space left on device; '
    "writing FILE; at byte 61440; Failed to close chunk_writer"
)
"""As TFDS says it."""


def test_standard_data_and_data_of_other_counts_have_different_names(tmp_path):
    assert digit_scenes_builder.builder(tmp_path, 32).info.full_name == "digit_scenes/32px/1.0.0"
    other = digit_scenes_builder.builder(tmp_path, 32, train=5)
    assert other.info.full_name == "digit_scenes/32px_5_1024_1024/1.0.0"


def test_png_bytes_decode_to_the_picture():
    image, class_map, _, _ = _arrays(digit_scenes.example("test", 2, 64))
    for array in (image, class_map):
        decoded = Image.open(io.BytesIO(digit_scenes_builder.encode_png(array)))
        assert np.array_equal(np.asarray(decoded), array)
