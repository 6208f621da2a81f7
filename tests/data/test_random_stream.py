import numpy as np
import pytest
from scipy import stats

from ldm_jax.data.random_stream import RandomStream


def test_streams_depend_on_seed_position_and_name_and_stay_the_same_for_ever():
    def first(*names):
        stream = RandomStream(*names)
        return [stream.below(1000) for _ in range(4)]

    assert first(0, 5, "masks") == [423, 758, 567, 460]
    keys = (
        (0, 5, "masks"),
        (1, 5, "masks"),
        (0, 6, "masks"),
        (0, 5, "order"),
        (-3, 2**40, "masks"),
    )
    others = [first(*key) for key in keys]
    assert len({tuple(other) for other in others}) == len(others)


def test_distributions():
    stream = RandomStream(0, 0, "test")
    normals = stream.normals((101, 99))
    assert normals.shape == (101, 99) and normals.dtype == np.float64
    assert stats.kstest(normals.ravel(), "norm").pvalue > 0.01
    pairs = np.array([stream.normals(2) for _ in range(2000)])
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.1
    assert stats.kstest(stream.uniforms((50, 7, 3)).ravel(), "uniform").pvalue > 0.01
    singles = [stream.uniform(2.0, 5.0) for _ in range(1000)]
    assert stats.kstest(singles, "uniform", (2.0, 3.0)).pvalue > 0.01
    assert 230 < sum(stream.chance(0.25) for _ in range(1000)) < 270
    assert {stream.within(3, 5) for _ in range(100)} == {3, 4, 5}
    assert stats.chisquare(np.bincount([stream.below(7) for _ in range(2000)])).pvalue > 0.01


def test_orders_are_permutations():
    stream = RandomStream(0, 0, "test")
    orders = {tuple(stream.order(3).tolist()) for _ in range(100)}
    assert len(orders) == 6 and all(sorted(order) == [0, 1, 2] for order in orders)
    assert stream.order(0).shape == (0,) and stream.normals(0).shape == (0,)
    with pytest.raises(ValueError, match="at least 1"):
        stream.below(0)
