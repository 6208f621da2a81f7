"""Pictures without captions: real ones are scenes of as many digits as they have, others none."""

import numpy as np
import pytest

from ldm_jax.data import digit_scenes
from ldm_jax.evaluation import rater as raters
from ldm_jax.evaluation.scenes import LAYOUTS, read_scenes, scene_quality


@pytest.fixture(scope="module")
def rater():
    return raters.train_rater()


def test_layouts_are_all_arrangements_of_the_data():
    _, captions = digit_scenes.pictures("train", 200)
    known = {frozenset(_places(layout)) for layout in LAYOUTS}
    assert len(known) == len(LAYOUTS)
    assert {frozenset(_places(caption)) for caption in captions} == known


def _places(caption):
    return digit_scenes.places(digit_scenes.parse_caption(caption))


def test_real_scenes_are_valid_and_counted(rater):
    images, captions = digit_scenes.pictures("test", 150)
    scenes = read_scenes(rater, images)
    counts = np.array([len(_places(caption)) for caption in captions])
    assert np.mean(scenes.digits == counts) > 0.95
    quality = scene_quality(rater, images)
    assert quality["valid"] > 0.95 and quality["places"] > 0.97 and quality["stray"] < 0.05


def test_noise_and_emptiness_are_no_scenes(rater):
    images = np.zeros((8, 16, 16, 3), np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
    for spoilt in (images, noise, images + np.uint8(255)):
        assert not read_scenes(rater, spoilt).digits.any()
    with pytest.raises(ValueError, match="no pictures"):
        scene_quality(rater, images[:0])
