"""How certain a score is: over parts of the images, or over samples of them with replacement."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Spread(NamedTuple):
    """Of a score over several sets of images."""

    mean: float
    std: float
    minimum: float
    values: tuple[float, ...]


def bootstrap(
    score: Callable[[Float[np.ndarray, "n d"]], float],
    features: Float[np.ndarray, "n d"],
    *,
    samples: int,
    seed: int = 0,
) -> Spread:
    """The score of `samples` sets of as many images, drawn with replacement (Efron 1979).

    Scores that grow with repeated images, as the Fréchet distance does by its bias, come out
    larger; their spread is what is of use.
    """
    generator = np.random.default_rng(seed)
    drawn = (generator.integers(len(features), size=len(features)) for _ in range(samples))
    return spread([score(features[rows]) for rows in drawn])


def over_runs(
    score: Callable[[Float[np.ndarray, "n d"]], float],
    features: Float[np.ndarray, "n d"],
    runs: int,
) -> Spread:
    """The score of `runs` successive blocks of equally many images, as papers repeat a measurement
    with other seeds. Raises ValueError where they do not divide the images."""
    if runs < 1 or len(features) % runs:
        raise ValueError(f"{len(features)} images are not {runs} runs of equally many")
    return spread([score(block) for block in np.split(features, runs)])


def spread(values: list[float]) -> Spread:
    """Mean, standard deviation (over count - 1; 0 of one value) and minimum."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Spread(float(np.mean(values)), deviation, min(values), tuple(values))
