"""Which codes temperature, top-k and top-p leave, compared with the definition in words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.core import rngs
from ldm_jax.sampling.code_choice import choose, limit

LOGITS = np.random.default_rng(0).standard_normal((4, 20)).astype(np.float32)


def left(logits, k, p):
    """The codes that may be drawn: one after the other, likeliest first."""
    order = np.argsort(-logits)[:k]
    shares = np.exp(logits[order]) / np.exp(logits[order]).sum()
    count = next((i for i, share in enumerate(np.cumsum(shares), 1) if share >= p), len(order))
    return set(order[:count].tolist())


@pytest.mark.parametrize(
    ("k", "p"), [(20, 1.0), (5, 1.0), (20, 0.6), (7, 0.5), (1, 1.0), (9, 1e-6)]
)
def test_the_likely_codes_stay(k, p):
    found = limit(jnp.asarray(LOGITS), jnp.int32(k), jnp.float32(p))
    for row, kept in zip(LOGITS, np.asarray(found), strict=True):
        assert set(np.flatnonzero(np.isfinite(kept)).tolist()) == left(row, k, p)
        np.testing.assert_array_equal(kept[np.isfinite(kept)], row[np.isfinite(kept)])


def test_codes_are_drawn_with_their_probabilities():
    logits = jnp.broadcast_to(jnp.asarray([0.0, 1.0, 2.0, -9.0]), (4000, 4))
    keys = rngs.example_keys(rngs.stream(0, "test"), jnp.arange(4000))
    found = choose(logits, keys, jnp.float32(2.0), jnp.int32(3), jnp.float32(1.0))
    shares = np.bincount(np.asarray(found), minlength=4) / 4000
    np.testing.assert_allclose(shares[:3], jax.nn.softmax(jnp.asarray([0.0, 0.5, 1.0])), atol=0.03)
    assert shares[3] == 0
