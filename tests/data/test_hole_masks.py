import dataclasses

import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.data.hole_masks import draw_mask, draw_segment
from ldm_jax.data.random_stream import RandomStream

PRESETS = {
    "training": cfg.Masks.training(), "thick": cfg.Masks.thick(), "medium": cfg.Masks.medium(),
    "thin": cfg.Masks.thin(), "thick512": cfg.Masks.thick(512), "medium512": cfg.Masks.medium(512),
    "thin512": cfg.Masks.thin(512),
}  # fmt: skip
STROKES, BOXES = cfg.Boxes(weight=0.0), cfg.Strokes(weight=0.0)


def _drawn(how, sides, count):
    return [draw_mask(sides, how, RandomStream(0, p, "mask")) for p in range(count)]


@pytest.mark.parametrize("how", PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize("sides", [(16, 16), (64, 40)])
def test_masks_fit_images_of_any_size(how, sides):
    """Lengths are in proportion, so that shares are nearly those of the size they are made for."""
    masks = _drawn(how, sides, 40)
    assert all(mask.shape == sides and mask.dtype == np.uint8 for mask in masks)
    shares = np.array([mask.mean() for mask in masks])
    assert shares.min() > 0 and shares.max() <= how.max_share
    assert 0.1 < shares.mean() < 0.6
    assert len({mask.tobytes() for mask in masks}) > 35


def test_masks_depend_on_the_stream_only():
    how = cfg.Masks()
    np.testing.assert_array_equal(_drawn(how, (32, 32), 3), _drawn(how, (32, 32), 3))


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 4)])
def test_counts_include_both_ends_and_no_more(low, high):
    """LaMa's own code draws up to one stroke more than it is told."""
    begun = []

    class Stream(RandomStream):
        def within(self, low, high):
            begun.append((low, high))
            return super().within(low, high)

    for position in range(200):
        strokes = cfg.Strokes(min_count=low, max_count=high)
        before = len(begun)
        draw_mask((32, 32), cfg.Masks(strokes, STROKES), Stream(0, position, "mask"))
        strokes_drawn = sum(ends == (1, 5) for ends in begun[before:])
        assert low <= strokes_drawn <= high
    boxes = cfg.Boxes(min_count=1, max_count=1, min_side=30, max_side=40)
    for mask in _drawn(cfg.Masks(BOXES, boxes), (256, 256), 50):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns) and {len(rows), len(columns)} <= {
            *range(30, 41)
        }
        assert rows[0] >= 10 and rows[-1] < 246 and columns[0] >= 10 and columns[-1] < 246


def test_the_share_of_images_that_are_masked_as_a_whole():
    whole = [mask.all() for mask in _drawn(cfg.Masks.thick(), (16, 16), 100)]
    assert not any(whole)
    how = dataclasses.replace(cfg.Masks.thick(), all_masked=0.25)
    assert 35 < sum(mask.all() for mask in _drawn(how, (16, 16), 200)) < 65


def test_weights_choose_between_strokes_and_boxes():
    box = cfg.Boxes(weight=3.0, min_count=1, max_count=1)

    def is_box(mask):
        return mask.sum() == mask.any(0).sum() * mask.any(1).sum()

    boxes = sum(map(is_box, _drawn(cfg.Masks(cfg.Strokes(), box), (64, 64), 200)))
    assert 130 < boxes < 180


def test_segments_are_as_wide_as_asked_with_round_ends():
    mask = np.zeros((21, 41), np.uint8)
    draw_segment(mask, (10, 10), (10, 30), 5.0)
    assert mask[:, 20].sum() == 5 and mask[10].sum() == 25 and mask[8, 8] == 0
    draw_segment(mask, (50, 50), (60, 60), 5.0)
    draw_segment(mask, (0, 41), (21, 41), 1.0)
    assert mask.sum() == 5 * 21 + 2 * (5 + 3)


def test_what_does_not_fit_is_refused():
    with pytest.raises(cfg.ConfigError, match="max_side is 250; it must be at most 236"):
        cfg.Masks(boxes=cfg.Boxes(max_side=250))
    with pytest.raises(cfg.ConfigError, match=r"Strokes.max_count is 5; it must be at least min_c"):
        cfg.Strokes(min_count=6)
    with pytest.raises(cfg.ConfigError, match="weight is 0.0; it must be above 0"):
        cfg.Masks(BOXES, STROKES)
    pixels = cfg.Masks(BOXES, side=None)
    assert draw_mask((60, 60), pixels, RandomStream(0, 0, "mask")).sum() >= 900
    with pytest.raises(ValueError, match="40 x 60 pixels has no room for a box of 30"):
        draw_mask((40, 60), pixels, RandomStream(0, 0, "mask"))
    with pytest.raises(ValueError, match="covers at most 0.01 of the image"):
        draw_mask((8, 8), cfg.Masks(max_share=0.01), RandomStream(0, 0, "mask"))
