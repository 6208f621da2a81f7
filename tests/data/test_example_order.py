import pytest

from ldm_jax.data.example_order import ExampleOrder, mixed_rows
from ldm_jax.data.sources import DataError, Parts


def _turns(parts, count, start=0):
    order = ExampleOrder(parts, 0)
    return [order.turn(position) for position in range(start, start + count)]


def test_equal_weights_take_turns():
    for k in (1, 2, 3, 5):
        assert _turns(Parts((4,) * k, (2.5,) * k), 12) == [(p % k, p // k) for p in range(12)]


def test_parts_are_shown_by_their_weights_and_gone_through_without_a_gap():
    weights = (0.1, 3.0, 0.37, 1.0)
    turns = _turns(Parts((10,) * 4, weights), 4000)
    counts = [0] * 4
    for position, (part, before) in enumerate(turns, start=1):
        assert before == counts[part]
        counts[part] += 1
        for shown, weight in zip(counts, weights, strict=True):
            assert abs(shown - position * weight / sum(weights)) < 3
    # Any position is found without the ones before it.
    assert _turns(Parts((10,) * 4, weights), 5, 3000) == turns[3000:3005]


def test_each_part_is_shuffled_by_itself():
    order = ExampleOrder(Parts((5, 10), (1.0, 2.0)), seed=3)
    shown = [order[p] for p in range(30)]
    first, second = [n for n in shown if n < 5], [n for n in shown if n >= 5]
    assert sorted(first[:5]) == [*range(5)] == sorted(first[5:]) and first[:5] != first[5:]
    assert sorted(second[:10]) == [*range(5, 15)] == sorted(second[10:])
    still = ExampleOrder(Parts((5, 10), (1.0, 2.0)), None)
    assert [n for n in (still[p] for p in range(30)) if n < 5] == [*range(5)] * 2


def test_positions_far_away():
    """More positions, and more examples, than 31 bits count."""
    far = 2**33 + 7
    order = ExampleOrder(Parts((10,), (1.0,)), seed=1)
    epoch = far // 10 * 10
    assert sorted(order[epoch + i] for i in range(10)) == [*range(10)]
    length = 3 * 10**9
    large = ExampleOrder(Parts((length,), (1.0,)), seed=1)
    seen = {large[2**31 + i * 10**5] for i in range(5000)}
    assert len(seen) == 5000 and max(seen) < length
    # A tenth of them in each tenth of the examples.
    tenths = [sum(n * 10 // length == tenth for n in seen) for tenth in range(10)]
    assert all(400 < count < 600 for count in tenths)
    turns = _turns(Parts((length, 10), (1.0, 2.0)), 3, 3 * far)
    assert turns == [(0, far), (1, 2 * far), (1, 2 * far + 1)]


def test_sizes_that_cannot_be():
    for size in (0, 2**32 + 1):
        with pytest.raises(DataError, match=f"has {size} examples; it needs 1 to"):
            ExampleOrder(Parts((4, size), (1.0, 1.0)), 0)


def test_mixed_rows_are_bounded():
    assert sorted(mixed_rows(10)) == [*range(10)]
    rows = mixed_rows(10**9, most=1000)
    assert len(rows) == 1000 and sorted(rows)[1] == 10**6
