"""Edges of pictures, and pictures fitted to the size of drawing, beside OpenCV."""

import sys

import numpy as np
import pytest

from ldm_jax.data.edges import EdgesError, canny_edges
from ldm_jax.generation.control_hints import resized


def _picture(height, width):
    smooth = np.add.outer(np.sin(np.arange(height) / 5), np.cos(np.arange(width) / 7))
    noise = np.random.default_rng(0).normal(size=(height, width, 3))
    return np.clip(60 * smooth[..., None] + 10 * noise + 128, 0, 255).astype(np.uint8)


def test_edges_are_where_brightness_changes():
    pytest.importorskip("cv2")
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:, 8:] = 255
    edges = canny_edges(picture)
    assert edges.shape == picture.shape and set(np.unique(edges)) == {0, 255}
    assert set(np.nonzero(edges)[1]) <= {7, 8} and edges[3:-3].any()
    assert not canny_edges(picture // 8).any()
    assert canny_edges(picture // 8, 10.0, 20.0).any()


def test_without_opencv_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(EdgesError, match=r"pip install 'ldm_jax\[edges\]'"):
        canny_edges(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("sides", [(48, 64), (16, 24), (40, 56), (24, 32)])
def test_pictures_are_fitted_as_opencv_does(sides):
    cv2 = pytest.importorskip("cv2")
    picture = _picture(32, 48)
    grows = min(sides) > 32
    how = cv2.INTER_LANCZOS4 if grows else cv2.INTER_AREA
    expected = cv2.resize(picture, sides[::-1], interpolation=how)
    # OpenCV's weights are of 11 bits.
    assert np.abs(resized(picture, sides).astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(resized(picture, (32, 48)), picture)
