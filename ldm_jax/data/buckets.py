"""Aspect-ratio buckets: pictures that keep their proportions, in batches of one size each."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grain
import numpy as np
from jaxtyping import Int

from ldm_jax import config as cfg
from ldm_jax.config.checks import require_divisible
from ldm_jax.data.example_order import endless, shuffle_seed

Sides = tuple[int, int]
"""Height and width in pixels."""


class Bucket(NamedTuple):
    """Examples of a source that become pictures of one size."""

    sides: Sides
    rows: Int[np.ndarray, " n"] | range
    """Which examples of the source they are, in order."""


def in_buckets(sizes: Sequence[Sides], pictures: Iterable[Sides]) -> tuple[Bucket, ...]:
    """The pictures, of which heights and widths are given, each in the bucket whose width / height
    is nearest to its own; buckets without pictures are left out."""
    ratios = np.array([width / height for height, width in sizes])
    nearest = [int(np.abs(ratios - width / height).argmin()) for height, width in pictures]
    rows = [np.flatnonzero(np.array(nearest) == number) for number in range(len(sizes))]
    return tuple(Bucket(size, own) for size, own in zip(sizes, rows, strict=True) if len(own))


@runtime_checkable
class Bucketed(Protocol):
    """A source whose examples become pictures of several sizes, or may do so."""

    buckets: tuple[Bucket, ...] | None


def buckets_of(source: Any) -> tuple[Bucket, ...] | None:
    """The buckets of a source; None where all pictures become one size."""
    return source.buckets if isinstance(source, Bucketed) else None


def bucket_of(buckets: Sequence[Bucket]) -> Int[np.ndarray, " n"]:
    """The number of each example's bucket."""
    numbers = np.empty(sum(len(one.rows) for one in buckets), np.int64)
    for number, one in enumerate(buckets):
        numbers[one.rows] = number
    return numbers


def check_buckets(buckets: Sequence[Bucket] | None, model: cfg.Model) -> None:
    """Raises ConfigError unless `model` can be trained on pictures of these sizes."""
    if buckets is None:
        return
    layout = cfg.find(model.conditioners, cfg.LayoutConditioner)
    if (
        model.draws_one_size
        or cfg.find(model.conditioners, cfg.ClassMapConditioner) is not None
        or (layout is not None and layout.box_map_channels is not None)
    ):
        raise cfg.ConfigError(
            "data.source.buckets must be None for a model whose captions, class maps or boxes are "
            "drawn into a map of one size"
        )
    for bucket in buckets:
        require_divisible("data.source.buckets", bucket.sides, model.side_multiple,
                          "what first stage and U-Net can divide; set buckets.step")  # fmt: skip


def told_buckets(buckets: Sequence[Bucket]) -> str:
    """How many pictures there are of each size, in words."""
    counts = ", ".join("{} x {}: {}".format(*one.sides, len(one.rows)) for one in buckets)
    return f"{len(buckets)} buckets (height x width: pictures): {counts}"


class Batch(NamedTuple):
    """A batch of one bucket."""

    sides: Sides
    examples: Sequence[int]
    """Their numbers."""


class BatchOrder:
    """Which examples each batch has, as a function of its number.

    The batches of an epoch, in which each bucket has gone through its examples once, come in a
    random order of their own. What does not fill a batch is left for the next epoch, so that each
    example is seen as often as any other of its bucket, and buckets in proportion.
    """

    def __init__(
        self,
        buckets: Sequence[Bucket],
        batch_size: int,
        seed: int | None,
        beside: range = range(0),
    ) -> None:
        """`seed`: of the shuffles; None: each bucket in its own order. `beside`: examples that are
        in no bucket; if there are any, each second one of every batch is of these, in its size."""
        self._buckets, self._seed = tuple(buckets), seed
        self._size = batch_size // 2 if beside else batch_size
        self._beside = endless(grain.MapDataset.range(beside.start, beside.stop), seed)
        self._has_beside = bool(beside)
        self._examples = sum(len(bucket.rows) for bucket in buckets)
        self._orders = [endless(grain.MapDataset.range(len(one.rows)), seed) for one in buckets]

    def __getitem__(self, number: int) -> Batch:
        bucket, first = self.place(number)
        sides, rows = self._buckets[bucket]
        order = self._orders[bucket]
        own = [int(rows[order[first + row]]) for row in range(self._size)]
        if not self._has_beside:
            return Batch(sides, own)
        others = [self._beside[number * self._size + row] for row in range(self._size)]
        return Batch(sides, [one for pair in zip(own, others, strict=True) for one in pair])

    def place(self, number: int) -> tuple[int, int]:
        """The bucket of a batch, and where it begins in the endless order of that."""
        epoch = self._epoch(number)
        before, after = self._done(epoch), self._done(epoch + 1)
        place = self._shuffled(epoch, number - sum(before), sum(after) - sum(before))
        ends = [*accumulate(b - a for a, b in zip(before, after, strict=True))]
        bucket = bisect_right(ends, place)
        return bucket, (place - ends[bucket] + after[bucket]) * self._size

    def _done(self, epochs: int) -> list[int]:
        """Full batches of each bucket in so many epochs."""
        return [epochs * len(one.rows) // self._size for one in self._buckets]

    def _epoch(self, number: int) -> int:
        """The epoch that a batch belongs to."""
        epochs = range((number + len(self._buckets) + 1) * self._size // self._examples + 2)
        return bisect_right(epochs, number, key=lambda epoch: sum(self._done(epoch))) - 1

    def _shuffled(self, epoch: int, place: int, count: int) -> int:
        """Which of an epoch's batches, in the order of buckets, comes at a place."""
        first = shuffle_seed(self._seed or 0, use=1)
        return grain.MapDataset.range(count).shuffle(seed=(first + epoch) % 2**32)[place]
