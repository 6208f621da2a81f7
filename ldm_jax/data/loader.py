"""Batches for training and validation: a deterministic global shuffle, of which a process loads the
rows that it is asked for, and whose position can be saved and restored exactly."""

import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

import grain
import numpy as np
from absl import flags
from jaxtyping import Float, Int, UInt8, UInt32

from ldm_jax import config as cfg
from ldm_jax.data import transforms
from ldm_jax.data.buckets import BatchOrder, buckets_of
from ldm_jax.data.example_order import ExampleOrder, spread_rows
from ldm_jax.data.sources import DataError, Example, Source, parts_of

MakeInputs = Callable[[Example, int, int], Mapping[str, np.ndarray]]
"""(example, its position, seed) → what it is conditioned on, as arrays by name, such as the tokens
of its `caption`. What is random is drawn from streams of seed and position."""


TASK_SEED = 0
"""Of what is random in the inputs of validation examples, which are the same in every run."""


class Batch(TypedDict):
    """Some or all rows of a global batch; `inputs` only where the loader was told to make them.

    A source of encoded images gives `encoded` instead of `image`, as it was stored.
    """

    image: NotRequired[UInt8[np.ndarray, "b h w 3"]]
    encoded: NotRequired[Float[np.ndarray, "b zh zw z"] | Int[np.ndarray, "b zh zw"]]
    index: UInt32[np.ndarray, " b"]
    importance: NotRequired[Float[np.ndarray, " b"]]
    """What the loss of each example counts for; absent where all count alike."""
    inputs: NotRequired[dict[str, np.ndarray]]
    """What examples are conditioned on, by name: [b, ...]."""


class Loader(Iterator[Batch]):
    """Endless batches; made by `make_loader`. Close it to stop its threads and processes."""

    def __init__(
        self,
        chosen: grain.MapDataset,
        load: Callable[[Int[np.ndarray, "b 2"]], Batch],
        workers: int,
        identity: dict[str, Any],
    ) -> None:
        """`chosen`: of each step (position, example number) of the rows that `load` makes a batch
        of."""
        self._chosen, self._steps = chosen, chosen.map(load)
        self._workers, self._identity = workers, identity
        self._step = 0
        self._batches: grain.DatasetIterator | None = None

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = _read_ahead(self._steps[self._step :], self._workers)
        batch = next(self._batches)
        self._step += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position as a JSON object: batches taken so far, and what they were taken from.

        It is the same whichever rows a process loads, and for every number of workers.
        """
        return {"step": self._step} | self._identity

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues after the batch that `state` was taken after.

        Raises:
            DataError: the state is of other data, or of another seed, batch size or shuffle, so
                that the run could not be continued exactly.
        """
        expected = {"step", *self._identity}
        if state.keys() != expected:
            raise DataError(
                f"the saved data position has the keys {sorted(state)}; "
                f"a position has {sorted(expected)}"
            )
        for name, value in self._identity.items():
            if state[name] != value:
                raise DataError(
                    f"the saved data position has {name} = {state[name]!r}, this run {value!r}; "
                    "resume with the data and settings of the saved run, or start a new one"
                )
        self.close()
        self._step = int(state["step"])

    def numbers(self) -> Int[np.ndarray, "b 2"]:
        """Position and example number of each row of the next batch, of which nothing is read."""
        return self._chosen[self._step].pairs

    def close(self) -> None:
        """Stops reading ahead. The next batch starts it again."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None


def make_loader(
    source: Source,
    data: cfg.Data,
    *,
    seed: int,
    train: bool,
    rows: Sequence[int] | None = None,
    inputs: MakeInputs | None = None,
) -> Loader:
    """Endless batches.

    Position p = step * batch_size + row of the run shows example p mod n of the source, in
    training through a permutation of the whole source that is new in every epoch; epochs follow
    each other without a gap, within a batch if need be. The global batch depends neither on the
    number of processes nor on which rows each of them loads. A source of several parts shows each
    by its weight and goes through it by itself: `ExampleOrder`. Of a source in buckets a batch is
    of one of these: `BatchOrder`; of several parts the first is in buckets.

    Args:
        seed: of the shuffle and of random crops and flips.
        train: shuffle and augment; otherwise the source's order, cropped at the centre.
        rows: those of the global batch that are wanted, such as `core.sharding.local_rows`; None
            for all.
        inputs: makes the `inputs` of an example. With `data.workers` > 0 it is pickled.

    Returns:
        an iterator of `Batch`: image uint8 [b, h, w, 3], index uint32 [b] (p, modulo 2**32) and,
        if asked for, inputs by name [b, ...], for the b rows that are wanted.

    Raises:
        DataError: the batch has no such rows, or the source is empty.
    """
    rows = _checked(source, data, rows)
    shuffle = seed if train else None
    load = functools.partial(_load_batch, source, data, shuffle, inputs)
    wanted = _rows_of_steps(source, data, shuffle, rows)
    chosen = grain.MapDataset.range(sys.maxsize // data.batch_size).map(wanted)
    identity = {
        "examples": len(source), "source": source.fingerprint, "batch_size": data.batch_size,
        "seed": seed, "train": train,
    }  # fmt: skip
    return Loader(chosen, load, data.workers, identity)


def validation_batches(
    source: Source,
    data: cfg.Data,
    n: int,
    inputs: MakeInputs | None = None,
    *,
    rows: Sequence[int] | None = None,
) -> list[Batch]:
    """The first `n` batches of the source, or `rows` of each, in its order, not augmented.

    Fewer where the source holds fewer full batches; the examples that do not fill one are left
    out. A source smaller than one batch is repeated to fill it. `index` is the position from the
    beginning of the source. Batches are as in `make_loader`, and so are the errors.
    """
    rows = _checked(source, data, rows)
    wanted = _rows_of_steps(source, data, None, rows)
    steps = range(min(n, max(1, len(source) // data.batch_size)))
    return [_load_batch(source, data, None, inputs, wanted(step)) for step in steps]


def in_order(
    source: Source, data: cfg.Data, rows: Sequence[int], sides: tuple[int, int] | None = None
) -> Iterator[Example]:
    """The examples `rows` of a source of images, each once, fitted to `sides` (those of `data` by
    default) and not augmented."""
    load = functools.partial(_load_one, source, data, sides)
    ahead = _read_ahead(grain.MapDataset.source(rows).map(load), data.workers)
    try:
        yield from ahead
    finally:
        ahead.close()


def spread(source: Source, data: cfg.Data, count: int) -> list[Example]:
    """So many examples, evenly spread over the source, or all where it has fewer; in its order,
    fitted and not augmented."""
    return examples_at(source, data, spread_rows(len(source), count))


def examples_at(source: Source, data: cfg.Data, rows: Iterable[int]) -> list[Example]:
    """The examples of some rows, fitted and not augmented."""
    return [_load_one(source, data, None, row) for row in rows]


def _checked(source: Source, data: cfg.Data, rows: Sequence[int] | None) -> tuple[int, ...]:
    """The rows of each global batch that are to be loaded."""
    if len(source) == 0:
        raise DataError("the data source has no examples")
    every = range(data.batch_size)
    rows = tuple(every if rows is None else rows)
    if not rows or not set(rows) <= set(every):
        raise DataError(
            f"rows {list(rows)} are asked for of a batch of {data.batch_size}; it has the rows 0 "
            f"to {data.batch_size - 1}, and at least one must be"
        )
    return rows


class Rows(NamedTuple):
    """Rows of a batch: which examples they are, and what size these become."""

    pairs: Int[np.ndarray, "b 2"]
    """Position and example number of each."""
    sides: tuple[int, int]


def _rows_of_steps(
    source: Source, data: cfg.Data, seed: int | None, rows: tuple[int, ...]
) -> Callable[[int], Rows]:
    """`rows` of the batch of a step."""
    if (buckets := buckets_of(source)) is not None:
        first, *others = parts_of(source).sizes
        order = BatchOrder(buckets, data.batch_size, seed, range(first, first + sum(others)))
        return functools.partial(_rows_of_bucket, order, data.batch_size, rows)
    order = ExampleOrder(parts_of(source), seed)
    return functools.partial(_rows_of_parts, order, data.batch_size, rows, data.sides)


def _rows_of_parts(
    order: ExampleOrder, batch_size: int, rows: tuple[int, ...], sides: tuple[int, int], step: int
) -> Rows:
    positions = [step * batch_size + row for row in rows]
    return Rows(np.array([(p, order[p]) for p in positions], np.int64), sides)


def _rows_of_bucket(order: BatchOrder, batch_size: int, rows: tuple[int, ...], step: int) -> Rows:
    batch = order[step]
    pairs = [(step * batch_size + row, batch.examples[row]) for row in rows]
    return Rows(np.array(pairs, np.int64), batch.sides)


def _load_batch(
    source: Source,
    data: cfg.Data,
    seed: int | None,
    inputs: MakeInputs | None,
    rows: Rows,
) -> Batch:
    """The batch of `rows`; augmented where there is a seed."""
    kind = "image" if source.has_images else "encoded"
    shown, made, importance = [], [], []
    for position, row in rows.pairs.tolist():
        example = fit_example(source[row], data, seed, position, rows.sides)
        shown.append(example[kind])
        importance.append(example.get("importance"))
        if inputs is not None:
            made.append(inputs(example, position, TASK_SEED if seed is None else seed))
    index = (rows.pairs[:, 0] % 2**32).astype(np.uint32)
    batch: Batch = {kind: np.stack(shown), "index": index}
    if None not in importance:
        batch["importance"] = np.array(importance, np.float32)
    if inputs is not None:
        batch["inputs"] = {name: np.stack([one[name] for one in made]) for name in made[0]}
    return batch


def _load_one(source: Source, data: cfg.Data, sides: tuple[int, int] | None, row: int) -> Example:
    return fit_example(source[row], data, None, row, sides)


def fit_example(
    example: Example,
    data: cfg.Data,
    seed: int | None,
    position: int,
    sides: tuple[int, int] | None = None,
) -> Example:
    """The example with its image resized, cropped and mirrored, at random where there is a seed;
    `crop` says how. What lies on the image, boxes and class map, stays as it is. `sides` are those
    that it gets, `data.sides` by default."""
    if "image" not in example:
        return example
    whole = example["image"].shape[:2]
    how = example.get("fitting", data.source)
    if isinstance(how, cfg.FittedPictures):
        below = None if seed is None else transforms.draws(seed, position)
        crop = transforms.choose_crop(whole, how, sides or data.sides, below)
        return {**example, "image": crop.image(example["image"]), "crop": crop}
    if whole != data.sides:
        raise DataError(
            f"an image of {whole[0]} x {whole[1]} pixels came from the source; "
            f"data.image_size is {data.image_size}"
        )
    return {**example, "crop": transforms.Crop(whole, whole, (0, 0), whole, False)}


def _read_ahead(steps: grain.MapDataset, workers: int) -> grain.DatasetIterator:
    """Loads batches ahead of their use, in threads or in `workers` processes."""
    # As many whole batches are in memory as there are threads, plus one that waits.
    threads = min(8, os.cpu_count() or 1)
    if workers:
        # Grain hands absl's flags to its processes, and absl refuses while nobody has parsed them.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        batches = steps.to_iter_dataset(options)
        ahead = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        return iter(batches.mp_prefetch(ahead))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    return iter(steps.to_iter_dataset(options))
