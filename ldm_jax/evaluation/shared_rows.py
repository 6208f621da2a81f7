"""Features of one set of images that all processes of a run compute together, each of some rows."""

import jax
import numpy as np
from jaxtyping import Float64

from ldm_jax.core.distributed import wait_for_all
from ldm_jax.evaluation.feature_shards import Features


def own_rows(rows: range, index: int, count: int) -> list[int]:
    """Those of `rows` whose features process `index` of `count` computes: every `count`-th, and
    equally many in each, so that the last row may be computed by several."""
    each, last = -(-len(rows) // count), len(rows) - 1
    return [rows[min(index + count * place, last)] for place in range(each)]


def gathered(features: Features, rows: range) -> Features:
    """The features of all `rows`, bit for bit, of each of which some process has computed its own.

    All processes come here, in the same order and with the same rows.
    """
    count = jax.process_count()
    if count == 1:
        return features
    from jax.experimental import multihost_utils

    places = [np.array(own_rows(rows, index, count)) - rows.start for index in range(count)]
    mine = places[jax.process_index()]
    # One may need longer than a collective waits.
    wait_for_all("features")
    parts = multihost_utils.process_allgather({name: x[mine] for name, x in features.items()})
    whole = {name: np.empty_like(x) for name, x in features.items()}
    for name, values in parts.items():
        for place, own in zip(places, values, strict=True):
            whole[name][place] = own
    return whole


def told_by_first(values: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    """What process 0 has of these, bit for bit; all processes come here."""
    if jax.process_count() == 1:
        return values
    from jax.experimental import multihost_utils

    wait_for_all("numbers")
    # Arrays of devices have no float64.
    told = multihost_utils.broadcast_one_to_all(np.ascontiguousarray(values).view(np.uint8))
    return np.asarray(told).view(values.dtype)
