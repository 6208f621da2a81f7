"""Which example each position of a run shows, found without going through what comes before it."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

import grain
import numpy as np

from ldm_jax.data import transforms
from ldm_jax.data.sources import DataError, Parts

MOST = 2**32
"""Examples of one part, which grain shuffles by numbers of 32 bits."""


class ExampleOrder:
    """The endless order in which the parts of a source are shown.

    Each part is gone through by itself: all of its examples, with a seed through a permutation that
    is new in every epoch, then again. Whose turn it is follows from the weights alone, with the
    smallest steps that whole numbers allow: of any p positions from the first on, a part of share w
    has p * w, rounded up, of those that the parts before it leave. Equal weights take turns.
    """

    def __init__(self, parts: Parts, seed: int | None) -> None:
        """`seed`: of the shuffle; None: each part in its own order.

        Raises:
            DataError: a part is empty, or too large to be shuffled.
        """
        self._orders = []
        for end, size in zip(accumulate(parts.sizes), parts.sizes, strict=True):
            if not 0 < size <= MOST:
                raise DataError(f"a part of the data has {size} examples; it needs 1 to {MOST}")
            self._orders.append(endless(grain.MapDataset.range(end - size, end), seed))
        weights = [Fraction(weight) for weight in parts.weights]
        left = [*accumulate(reversed(weights))][::-1]
        self._shares = [weight / rest for weight, rest in zip(weights, left, strict=True)]

    def __getitem__(self, position: int) -> int:
        """The number of the example at a position of the run."""
        part, turn = self.turn(position)
        return self._orders[part][turn]

    def turn(self, position: int) -> tuple[int, int]:
        """The part that is shown at a position, and how often it was before."""
        for part, share in enumerate(self._shares[:-1]):
            before, after = _ceil(position * share), _ceil((position + 1) * share)
            if after > before:
                return part, before
            position -= before
        return len(self._shares) - 1, position


def endless(order: grain.MapDataset, seed: int | None) -> grain.MapDataset:
    """Repeated; with a seed through a permutation that is new each time."""
    return (order if seed is None else order.shuffle(seed=shuffle_seed(seed))).repeat()


def _ceil(number: Fraction) -> int:
    return -(-number.numerator // number.denominator)


def shuffle_seed(seed: int, use: int = 0) -> int:
    """What grain shuffles by, for one of several uses."""
    # Grain adds the epoch to its seed: without this, seed 0's second epoch is seed 1's first.
    return transforms.draws(seed, 2**64 - 1 - use)(2**32)


def spread_rows(length: int, count: int) -> list[int]:
    """So many of `length` rows, evenly spread, or all where there are fewer; in order."""
    count = min(count, length)
    return [i * length // count for i in range(count)]


def mixed_rows(length: int, most: int = 2**20) -> Sequence[int]:
    """All rows, or `most` that are evenly spread, in an order that is the same every time, and of
    which any part is like the whole even where the source is sorted."""
    rows = np.array(spread_rows(length, most))
    return rows[np.random.default_rng(0).permutation(len(rows))].tolist()
