"""What is measured on the validation examples as training goes on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.training.gradients import Metrics
from ldm_jax.workdir.checkpoints import Criterion


@dataclass(frozen=True)
class Evaluator:
    """Sums over batches, and what follows from the sums of all batches.

    Sums, and never means of means, are added up, so that a result does not depend on how the
    examples were cut into batches.
    """

    name: str
    """Comes before the names of its results: `validation` → `validation_loss`."""
    every: int
    """Steps between two evaluations."""
    sums: Callable[[Any, Any, Any], Any]
    """`(params, frozen, batch) -> sums`, pure and not yet compiled; any tree of arrays."""
    results: Callable[[Any], Mapping[str, float]]
    """What follows from the sums, as numpy float64, of all batches."""


@runtime_checkable
class Judge(Protocol):
    """What is measured of pictures that are drawn as training goes on."""

    every: int
    """Steps between two measurements."""
    criterion: Criterion | None
    """By which of the results the best checkpoint is kept; None: by the validation loss."""

    def measure(
        self, step: int, stage: Any, mesh: jax.sharding.Mesh, params: Any, frozen: Any
    ) -> Mapping[str, float]:
        """Results by their names, the same on all processes."""
        ...


def means(name: str, every: int, scores: Callable[[Any, Any, Any], Metrics]) -> Evaluator:
    """The evaluator of mean scores, of which `scores` gives those of one batch's examples."""

    def sums(params: Any, frozen: Any, batch: Any) -> Any:
        rows = jnp.float32(len(batch["index"]))
        return rows, jax.tree.map(lambda mean: rows * mean, scores(params, frozen, batch))

    def results(totals: Any) -> dict[str, float]:
        rows, scores = totals
        return {name: float(total / rows) for name, total in scores.items()}

    return Evaluator(name, every, sums, results)


def added(totals: Any, sums: Any) -> Any:
    """`totals` with the sums of one more batch, in float64; None is no batch yet."""
    sums = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), sums)
    return sums if totals is None else jax.tree.map(np.add, totals, sums)
