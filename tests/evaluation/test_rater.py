"""The rater reads unseen handwriting, and is not fooled by what it was made to refuse."""

import os

import numpy as np
import pytest

from ldm_jax.data import digit_scenes
from ldm_jax.data.digit_scenes import SIZES
from ldm_jax.evaluation import rater as raters
from ldm_jax.evaluation.rater import Rater


@pytest.fixture(scope="module")
def rater():
    return raters.train_rater()


def _alone(split):
    """Every scan of a split alone, coloured at random, with its caption."""
    random, scans = np.random.default_rng(0), digit_scenes.load_scans()
    images, captions = [], []
    for scan in scans.of(split).tolist():
        colour = list(digit_scenes.COLOURS)[random.integers(6)]
        described = digit_scenes.describe([(colour, int(scans.digits[scan]))], ())
        images.append(digit_scenes.render(digit_scenes.Scene(described, (scan,)))["image"])
        captions.append(described.caption)
    return np.stack(images), captions


def test_it_reads_test_handwriting(rater):
    assert raters.accuracy(rater, *_alone("test"))["digits"] >= 0.97


@pytest.mark.parametrize("size", SIZES)
def test_it_reads_scenes_of_every_size(rater, size):
    found = raters.accuracy(rater, *digit_scenes.pictures("test", 300, size))
    assert set(found) == {"single", "double", "triple", "all", "digits"}
    assert min(found.values()) >= 0.93


def test_it_reads_slightly_blurred_pictures(rater):
    images, captions = digit_scenes.pictures("test", 300)
    wide = np.pad(images.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    rows = 0.12 * (wide[:, :-2] + wide[:, 2:]) + 0.76 * wide[:, 1:-1]
    blurred = 0.12 * (rows[:, :, :-2] + rows[:, :, 2:]) + 0.76 * rows[:, :, 1:-1]
    found = raters.accuracy(rater, np.round(blurred).astype(np.uint8), captions)
    assert found["all"] >= 0.9


def test_it_names_what_it_sees_and_marks_wrong_captions_wrong(rater):
    scans = digit_scenes.load_scans()
    ones, zeros = (scans.of("train")[scans.digits[scans.of("train")] == d] for d in (1, 0))
    scene = digit_scenes.Scene(
        digit_scenes.parse_caption("a red zero left of a blue one"),
        (int(zeros[0]), int(ones[0])),
    )
    captions = [
        "a red zero left of a blue one",
        "a blue one right of a red zero",
        "a blue one left of a red zero",
        "a blue zero left of a red one",
        "a red one left of a blue zero",
        "a red zero left of a blue seven",
    ]
    images = np.stack([digit_scenes.render(scene)["image"]] * len(captions))
    assert rater.correct(images, captions).tolist() == [True, True, False, False, False, False]
    marks = rater.read(images, captions)[1].marks
    assert [(m.digit, m.colour) for m in marks] == [(1, "blue"), (0, "red")]


def test_a_second_digit_is_not_alone(rater):
    """One digit in the middle, and a stray one beside it."""
    images, captions = digit_scenes.pictures("test", 30)
    single = [n for n, c in enumerate(captions) if c.endswith("alone")]
    images, captions = images[single], [captions[n] for n in single]
    assert rater.correct(images, captions).mean() > 0.8
    crowded = images.copy()
    crowded[:, :, :2] = 255
    crowded[:, :, 14:] = 255
    assert not rater.correct(crowded, captions).any()


def test_it_refuses_pictures_without_digits(rater):
    prompts = digit_scenes.held_out_prompts(30)
    random = np.random.default_rng(0)
    black = np.zeros((30, 16, 16, 3), np.uint8)
    noise = random.integers(0, 256, black.shape, dtype=np.uint8)
    for images in (black, noise):
        for reading in rater.read(images, prompts):
            assert all(mark.digit is None and mark.colour is None for mark in reading.marks)
    assert not rater.correct(black + np.uint8(255), prompts).any()


def test_a_saved_rater_reads_alike_and_other_files_are_refused(rater, tmp_path):
    images, captions = digit_scenes.pictures("test", 20)
    rater.save(tmp_path / "deep" / "rater.npz")
    loaded = Rater.load(tmp_path / "deep" / "rater.npz")
    assert loaded.read(images, captions) == rater.read(images, captions)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["rater.npz"]
    (tmp_path / "text.npz").write_text("no rater")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    for name in ("text.npz", "other.npz", "objects.npz"):
        with pytest.raises(ValueError, match=name):
            Rater.load(tmp_path / name)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "deep/rater.npz").read_bytes()[:5000])
    os.mkfifo(tmp_path / "pipe.npz")
    for name in ("none.npz", "cut.npz", "pipe.npz"):
        with pytest.raises(ValueError, match=name):
            Rater.load(tmp_path / name)


def test_the_same_seed_trains_the_same_rater():
    one, two = (raters.train_rater(seed=3, steps=10).parameters for _ in range(2))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_wrong_inputs_are_named(rater):
    images, captions = digit_scenes.pictures("test", 2)
    with pytest.raises(ValueError, match="2 images and 1 captions"):
        rater.read(images, captions[:1])
    with pytest.raises(ValueError, match="24 x 24"):
        rater.read(np.zeros((1, 24, 24, 3), np.uint8), captions[:1])
    with pytest.raises(ValueError, match="no pictures"):
        raters.accuracy(rater, images[:0], [])
