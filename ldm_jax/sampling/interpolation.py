"""Polynomials through what a solver remembers, integrated over the step ahead.

Linear multistep methods of every kind are this integral: Adams-Bashforth and LMS with weight 1,
DEIS and DPM-Solver with the exponential that the linear part of the flow brings.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

_POINTS, _MASS = np.polynomial.legendre.leggauss(16)
# Exact for polynomials to degree 31, and to 1e-9 times e^(20 u).
POINTS = ((_POINTS + 1) / 2).astype(np.float32)
MASS = (_MASS / 2).astype(np.float32)


def weights(
    nodes: Sequence[Float32[Array, ""]], rate: float | Float32[Array, ""]
) -> Float32[Array, "n"]:
    """w with sum_k w_k f(nodes_k) = the mean of p over [0, 1] under the density e^(rate u).

    p is the polynomial through f at the nodes, which lie anywhere but on each other; u = 0 is
    where the step begins and u = 1 where it ends. By Gauss' rule, which unlike closed forms does
    not cancel for short steps.
    """
    density = MASS * jnp.exp(rate * POINTS - jnp.maximum(rate, 0.0))
    density = density / density.sum()
    found = []
    for k, node in enumerate(nodes):
        basis = density
        for j, other in enumerate(nodes):
            if j != k:
                basis = basis * (POINTS - other) / (node - other)
        found.append(basis.sum())
    return jnp.stack(found)


def change(
    values: Sequence[Float32[Array, "b *d"]],
    nodes: Sequence[Float32[Array, ""]],
    rate: float | Float32[Array, ""],
    known: Int[Array, ""],
) -> Float32[Array, "b *d"]:
    """How far the mean of `weights` is from values[0], by the first `known` (1 or more) values.

    The others, and their nodes, may be anything.
    """
    count = len(values)
    table = [
        jnp.pad(weights(nodes[:some], rate), (0, count - some)) for some in range(1, count + 1)
    ]
    share = jnp.stack(table)[jnp.clip(known, 1, count) - 1]
    total = jnp.zeros_like(values[0])
    for k in range(1, count):
        total = total + share[k] * (values[k] - values[0])
    return total
