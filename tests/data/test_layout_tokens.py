import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.data import transforms
from ldm_jax.data.layout_tokens import (
    box_map,
    boxes_of_tokens,
    crop_of_tokens,
    empty_layout,
    layout_tokens,
)
from ldm_jax.data.random_stream import RandomStream
from ldm_jax.data.transforms import Crop

SMALL = cfg.LayoutTokens(num_classes=3, max_objects=4, grid=5, vocab_size=26)
BOXES = np.array([[0.0, 0.0, 0.5, 0.25], [0.5, 0.25, 1.0, 1.0], [0.1, 0.6, 0.4, 0.9]])
CLASSES = np.array([2, 0, 1])


def test_a_layout_by_hand():
    tokens = layout_tokens(BOXES, CLASSES, SMALL)
    # Rows 0.4 and 1.6 of the grid and columns 2.4 and 3.6; then padding, then the whole picture.
    assert tokens.tolist() == [2, 0, 11, 0, 11, 24, 1, 2, 14, 25, 25, 25, 0, 24]
    boxes, classes = boxes_of_tokens(tokens, SMALL)
    np.testing.assert_array_equal(classes, CLASSES)
    np.testing.assert_array_equal(boxes[:2], BOXES[:2])
    np.testing.assert_allclose(boxes, BOXES, atol=0.5 / 4)
    assert empty_layout(SMALL).tolist() == 12 * [25] + [0, 24]
    assert boxes_of_tokens(empty_layout(SMALL), SMALL)[0].shape == (0, 4)
    halves = np.array([[0.125, 0.375, 0.625, 0.875]])  # 0.5, 1.5, 2.5, 3.5: to even numbers
    assert layout_tokens(halves, CLASSES[:1], SMALL)[1:3].tolist() == [0 * 5 + 2, 2 * 5 + 4]


@pytest.mark.parametrize("mirrored", [False, True])
def test_crops_are_told_and_boxes_outside_are_dropped(mirrored):
    crop = Crop((40, 80), (20, 40), (0, 20), (20, 20), mirrored)  # the right half
    assert crop.shown == (0.0, 0.5, 1.0, 1.0)
    tokens = layout_tokens(BOXES, CLASSES, SMALL, crop)
    boxes, classes = boxes_of_tokens(tokens, SMALL)
    assert classes.tolist() == [0, 1]
    box, seen = ([0.5, 0.0, 1.0, 0.75], (0.0, 0.0, 1.0, 0.5)) if mirrored else (
        [0.5, 0.25, 1.0, 1.0], (0.0, 0.5, 1.0, 1.0))  # fmt: skip
    assert boxes[0].tolist() == box and crop_of_tokens(tokens, SMALL) == seen
    inside = cfg.LayoutTokens(3, max_objects=4, grid=5, vocab_size=26, crop=False)
    tokens = layout_tokens(BOXES, CLASSES, inside, crop)
    assert len(tokens) == 12 and crop_of_tokens(tokens, inside) == (0, 0, 1, 1)
    boxes, _ = boxes_of_tokens(tokens, inside)
    assert boxes[0].tolist() == [0.5, 0.0, 1.0, 1.0]
    assert boxes[1].tolist() == ([0.0, 0.25, 0.5, 0.75])


def test_order_is_random_in_training_only():
    orders = {
        tuple(boxes_of_tokens(layout_tokens(BOXES, CLASSES, SMALL, None, stream), SMALL)[1])
        for stream in (RandomStream(0, p, "boxes") for p in range(60))
    }
    assert len(orders) == 6


def test_flags_are_part_of_class_tokens():
    how = cfg.LayoutTokens(3, ("group", "inside"), 4, 5, 64)
    tokens = layout_tokens(BOXES, CLASSES, how, flags=np.array([0b1111, 0b0001, 0b0010]))
    assert tokens[:9:3].tolist() == [2 + 3 * 9, 0 + 3, 1]
    assert boxes_of_tokens(tokens, how)[1].tolist() == [2, 0, 1]
    with pytest.raises(cfg.ConfigError, match="vocab_size is 40; it must be at least 49"):
        cfg.LayoutTokens(3, ("inside",), 4, 5, 40)
    with pytest.raises(cfg.ConfigError, match="in order"):
        cfg.LayoutTokens(flags=("inside", "group"))


@pytest.mark.parametrize("whole", [True, False])
def test_boxes_are_painted_as_a_class_map(whole):
    """As the crop, which mirrors, cuts the map of the whole picture; small boxes over large."""
    how = cfg.LayoutTokens(num_classes=3, max_objects=4, grid=9, vocab_size=128, crop=whole)
    boxes = np.array([[2, 2, 4, 4], [0, 0, 8, 6], [4, 4, 6, 8], [5, 0, 5, 0]]) / 8
    crop = Crop((16, 16), (16, 16), (4, 0), (8, 16), True)
    tokens = layout_tokens(boxes, np.array([2, 0, 1, 2]), how, crop)
    expected = np.full((16, 16), -1)
    expected[:, :12], expected[4:8, 4:8], expected[8:12, 8:] = 0, 2, 1
    np.testing.assert_array_equal(box_map(tokens, how, (8, 16)), expected[4:12, ::-1])
    assert (box_map(empty_layout(how), how, (8, 16)) == -1).all()
    # The thinnest of boxes, here at the very end, is seen too.
    thin = layout_tokens(np.array([[0, 0.99, 1, 1]]), np.array([1]), how)
    assert (box_map(thin, how, (2, 2)) == [[-1, 1], [-1, 1]]).all()


def test_too_many_boxes_are_refused_or_the_largest_kept():
    boxes = np.array([[0, 0, 1, share] for share in (0.5, 0.2, 1.0, 0.0, 0.6, 0.1)])
    classes = np.array([0, 0, 1, 1, 2, 2])
    with pytest.raises(ValueError, match="has 5 boxes, but a layout has places for 2"):
        layout_tokens(boxes, classes, cfg.LayoutTokens(max_objects=2))
    largest = cfg.LayoutTokens(max_objects=2, too_many="largest")
    assert boxes_of_tokens(layout_tokens(boxes, classes, largest), largest)[1].tolist() == [1, 2]


def test_unsound_boxes_are_refused():
    with pytest.raises(ValueError, match="class 3; a layout has the classes 0 to 2"):
        layout_tokens(BOXES, CLASSES + 1, SMALL)
    for bad in (BOXES[:, [2, 1, 0, 3]], BOXES * np.nan):
        with pytest.raises(ValueError, match="must be top, left, bottom and right"):
            layout_tokens(bad, CLASSES, SMALL)


def test_boxes_and_class_maps_move_with_the_image():
    """A box painted into the image is where the crop says it is, in image and map alike."""
    folder = cfg.ImageFolder(path="x", crop="random", flip=True)
    image, map_ = np.zeros((60, 90, 3), np.uint8), np.zeros((120, 180), np.int16)
    image[12:48, 30:66], map_[24:96, 60:132] = 255, 7
    box = np.array([[12 / 60, 30 / 90, 48 / 60, 66 / 90]], np.float32)
    for position in range(20):
        crop = transforms.choose_crop((60, 90), folder, (30, 32), transforms.draws(0, position))
        seen, classes = crop.image(image)[..., 0] > 127, crop.class_map(map_)
        assert set(np.unique(classes)) <= {0, 7}
        top, left, bottom, right = crop.boxes(box)[0] * (30, 32, 30, 32)
        y, x = np.arange(30)[:, None] + 0.5, np.arange(32) + 0.5
        painted = (top < y) & (y < bottom) & (left < x) & (x < right)
        # But for the lines of pixels that a border runs through.
        assert (painted != (classes == 7)).sum() <= 62 and (painted != seen).sum() <= 62
    whole = Crop((60, 90), (60, 90), (0, 0), (60, 90), False)
    np.testing.assert_array_equal(whole.class_map(map_), map_[1::2, 1::2])
