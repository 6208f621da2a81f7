"""Which images lie among the other set's neighbours."""

import numpy as np
import pytest

from ldm_jax.evaluation.scores import neighbourhoods as room
from ldm_jax.evaluation.scores.neighbourhoods import neighbourhoods


def by_hand(x, y, k, within):
    """Generated x, real y, from all distances at once."""

    def distances(a, b):
        return np.linalg.norm(a[:, None] - b[None], axis=-1)

    radius_x, radius_y = (np.sort(distances(s, s), 1)[:, k] for s in (x, y))
    inside = within(distances(x, y), radius_y)
    return (
        inside.any(1).mean(),
        within(distances(y, x), radius_x).any(1).mean(),
        inside.sum(1).mean() / k,
        within(distances(x, y).min(0), radius_y).mean(),
    )


@pytest.mark.parametrize("edge", [True, False])
@pytest.mark.parametrize("block", [7, 100])
def test_in_blocks_as_with_all_distances_at_once(monkeypatch, block, edge):
    monkeypatch.setattr(room, "BLOCK", block)
    generator = np.random.default_rng(0)
    # Far from zero, where squared distances cancel.
    x = generator.normal(50.2, 0.8, (60, 5)).astype(np.float32)
    y = generator.normal(50.0, 1.0, (45, 5)).astype(np.float32)
    expected = by_hand(x, y, 3, np.less_equal if edge else np.less)
    np.testing.assert_allclose(neighbourhoods(x, y, 3, edge=edge), expected, rtol=1e-6)


def test_a_set_is_in_its_own_neighbourhood():
    x = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)
    found = neighbourhoods(x, x, 3)
    assert found.precision == found.recall == found.coverage == 1
    assert neighbourhoods(x, x + 1000, 3)[:2] == (0, 0)


def test_copies_of_one_image_have_balls_without_size():
    same = np.ones((10, 3), np.float32)
    assert neighbourhoods(same, same, 3).precision == 1
    assert neighbourhoods(same, same, 3, edge=False).precision == 0


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="3 images have no 3 neighbours"):
        neighbourhoods(np.zeros((3, 2), np.float32), np.zeros((9, 2), np.float32), 3)
