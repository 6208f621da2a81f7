"""Precision, recall, density and coverage: which images lie among the nearest neighbours of the
other set's images."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

BLOCK = 2048
"""Rows of a matrix of distances that are held at once."""


class Neighbourhoods(NamedTuple):
    """What two sets have in common; all but `density` are shares from 0 to 1."""

    precision: float
    """Of generated images, those within the ball of any real one (Kynkäänniemi 2019)."""
    recall: float
    """Of real images, those within the ball of any generated one."""
    density: float
    """How many real balls a generated image is in, over the k of which one expects them
    (Naeem 2020)."""
    coverage: float
    """Of real images, those whose ball has a generated image in it."""


def neighbourhoods(
    generated: Float[np.ndarray, "n d"],
    real: Float[np.ndarray, "m d"],
    k: int,
    *,
    edge: bool = True,
) -> Neighbourhoods:
    """The ball of an image reaches to its k-th nearest neighbour in its own set, itself not
    counted; with `edge`, what lies at its very edge is within.

    Distances are computed in float32 about the real set's mean, at the highest precision of the
    device.

    Raises:
        ValueError: a set of k images or fewer.
    """
    fewest = min(len(generated), len(real))
    if fewest <= k:
        raise ValueError(f"{fewest} images have no {k} neighbours; take more images or a smaller k")
    centre = real.mean(0, dtype=np.float64)
    x, y = (np.asarray(one - centre, np.float32) for one in (generated, real))
    radii_x, radii_y = _radii(x, k), _radii(y, k)
    precise, balls, recalled = 0, 0, np.zeros(len(y), bool)
    nearest = np.full(len(y), np.inf)
    within = np.less_equal if edge else np.less
    for rows, squares in _blocks(x, y):
        inside = within(squares, radii_y)
        balls += int(inside.sum())
        precise += int(inside.any(1).sum())
        recalled |= within(squares, radii_x[rows, None]).any(0)
        nearest = np.minimum(nearest, squares.min(0))
    return Neighbourhoods(
        precise / len(x), float(recalled.mean()), balls / (k * len(x)),
        float(within(nearest, radii_y).mean()),
    )  # fmt: skip


def _radii(x: Float32[np.ndarray, "n d"], k: int) -> Float32[np.ndarray, " n"]:
    """Squared distances to the k-th nearest other row."""
    radii = np.empty(len(x), np.float32)
    for rows, squares in _blocks(x, x):
        # Rounding leaves a row a little away from itself.
        squares[np.arange(len(squares)), np.arange(rows.start, rows.start + len(squares))] = -1
        radii[rows] = np.partition(squares, k, axis=1)[:, k]
    return radii


def _blocks(
    x: Float32[np.ndarray, "n d"], y: Float32[np.ndarray, "m d"]
) -> Iterator[tuple[slice, Float32[np.ndarray, "b m"]]]:
    others = jnp.asarray(y)
    for start in range(0, len(x), BLOCK):
        rows = slice(start, min(start + BLOCK, len(x)))
        padded = np.zeros((min(BLOCK, len(x)), x.shape[1]), np.float32)
        padded[: rows.stop - start] = x[rows]
        yield rows, np.array(_squares(padded, others))[: rows.stop - start]


@jax.jit
def _squares(x: Float32[Array, "b d"], y: Float32[Array, "m d"]) -> Float32[Array, "b m"]:
    product = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum((x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * product, 0)
