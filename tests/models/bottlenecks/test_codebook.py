"""Averaged codebooks: means, revival, statistics, on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ldm_jax.models.bottlenecks import (
    init_codebook_state,
    nearest,
    perplexity,
    revive,
    update_codebook,
    usage,
    uses,
)

RNG = np.random.default_rng(0)


def _batch(shape=(8, 2, 3, 2), size=5):
    latents = jnp.asarray(RNG.normal(size=shape), jnp.float32)
    return latents, jnp.asarray(RNG.integers(0, size, shape[:-1]), jnp.int32)


def test_with_decay_0_vectors_are_the_means_of_their_latents():
    latents, indices = _batch(size=4)
    start = jnp.ones((5, 2))
    state, vectors = update_codebook(init_codebook_state(start), start, latents, indices, 0.0)
    for code in range(4):
        mean = np.asarray(latents)[np.asarray(indices) == code].mean(0)
        np.testing.assert_allclose(vectors[code], mean, rtol=1e-5, atol=1e-6)
    # The last has none, and stays.
    np.testing.assert_array_equal(vectors[4], start[4])
    np.testing.assert_array_equal(state.idle, [0, 0, 0, 0, 1])


def test_averages_remember_nothing_of_the_first_vectors():
    start = jnp.full((5, 2), 1e3)
    state, vectors = init_codebook_state(start), start
    sums, counts = np.zeros((5, 2)), np.zeros(5)
    for _ in range(3):
        latents, indices = _batch()
        state, vectors = update_codebook(state, vectors, latents, indices, 0.9)
        hot = np.eye(5)[np.asarray(indices).ravel()]
        counts = 0.9 * counts + 0.1 * hot.sum(0)
        sums = 0.9 * sums + 0.1 * hot.T @ np.asarray(latents).reshape(-1, 2)
    np.testing.assert_allclose(vectors, sums / counts[:, None], rtol=1e-4, atol=1e-6)
    # The total, corrected by 1 - decay**n, is the number of latents in a batch.
    np.testing.assert_allclose(state.counts.sum() / (1 - 0.9**3), indices.size, rtol=1e-5)


def test_an_unused_vector_stays_where_its_average_put_it():
    vectors = jnp.zeros((2, 1))
    state = init_codebook_state(vectors)
    step = jax.jit(update_codebook, static_argnames="decay")
    first, rest = jnp.full((1, 1, 1, 1), 3.0), jnp.full((1, 1, 1, 1), -1.0)
    one, zero = jnp.ones((1, 1, 1), jnp.int32), jnp.zeros((1, 1, 1), jnp.int32)
    state, vectors = step(state, vectors, first, one, decay=0.5)
    for _ in range(200):
        state, vectors = step(state, vectors, rest, zero, decay=0.5)
    # 0.5**200 is below float32: neither 0 / 0 nor drift.
    np.testing.assert_allclose(vectors, [[-1.0], [3.0]], rtol=1e-6)
    assert state.idle[1] == 200


def test_vectors_that_gradients_train_are_only_watched():
    latents, indices = _batch(size=4)
    start = jnp.ones((5, 2))
    state, vectors = update_codebook(init_codebook_state(start), start, latents, indices, None)
    np.testing.assert_array_equal(vectors, start)
    np.testing.assert_array_equal(state.idle, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(state.counts, np.zeros(5))


def test_only_the_long_idle_become_latents_of_the_batch_all_different():
    latents, _ = _batch((2, 4, 4, 2))
    vectors = jnp.zeros((6, 2))
    state = init_codebook_state(vectors)
    state = state.replace(counts=jnp.ones(6), idle=jnp.array([0, 3, 9, 4, 2, 3]))
    new, revived = revive(state, vectors, latents, after=3, seed=1, step=10)
    dead = np.array([False, True, True, True, False, True])
    rows = {tuple(row) for row in np.asarray(latents).reshape(-1, 2)}
    found = [tuple(row) for row in np.asarray(revived)[dead]]
    assert set(found) <= rows and len(set(found)) == 4
    np.testing.assert_array_equal(np.asarray(revived)[~dead], 0)
    np.testing.assert_array_equal(new.counts, np.where(dead, 0, 1))
    np.testing.assert_array_equal(new.idle, [0, 0, 0, 0, 2, 0])
    again = revive(state, vectors, latents, after=3, seed=1, step=10)[1]
    np.testing.assert_array_equal(revived, again)
    for other in ({"seed": 1, "step": 11}, {"seed": 2, "step": 10}):
        assert np.any(revive(state, vectors, latents, after=3, **other)[1] != revived)


def test_fewer_latents_than_vectors_revive_too():
    latents, vectors = jnp.full((1, 1, 2, 1), 7.0), jnp.zeros((5, 1))
    state = init_codebook_state(vectors)
    np.testing.assert_array_equal(
        revive(state, vectors, latents, after=0, seed=0, step=0)[1], jnp.full((5, 1), 7.0)
    )


def test_devices_change_nothing():
    latents, indices = _batch()
    vectors = jnp.asarray(RNG.normal(size=(9, 2)), jnp.float32)

    @jax.jit
    def step(state, vectors, latents, indices, number):
        state, vectors = update_codebook(state, vectors, latents, indices, 0.9)
        return revive(state, vectors, latents, after=1, seed=3, step=number)

    results = []
    for count in (1, 8):
        mesh = Mesh(jax.devices()[:count], ("data",))
        shard = NamedSharding(mesh, PartitionSpec("data"))
        whole = NamedSharding(mesh, PartitionSpec())
        state = jax.device_put((init_codebook_state(vectors), vectors), whole)
        batch = jax.device_put((latents, indices), shard)
        results.append(jax.tree.map(np.asarray, step(*state, *batch, jnp.int32(4))))
    (one, a), (eight, b) = results
    # Codes 5 to 8 were idle: they are latents as they were, whatever the devices.
    np.testing.assert_array_equal(a[5:], b[5:])
    np.testing.assert_array_equal(one.idle, eight.idle)
    # Sums are rounded in another order.
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one.sums, eight.sums, rtol=1e-5, atol=1e-6)


def test_usage_and_perplexity():
    counts = uses(jnp.array([[[0, 1], [1, 3]]]), 8)
    np.testing.assert_array_equal(counts, [1, 2, 0, 1, 0, 0, 0, 0])
    assert usage(counts) == 3 / 8
    np.testing.assert_allclose(perplexity(counts), np.exp(1.5 * np.log(2)), rtol=1e-6)
    np.testing.assert_allclose(perplexity(jnp.full(8, 5, jnp.int32)), 8, rtol=1e-6)
    assert perplexity(jnp.array([0, 4])) == 1
    assert perplexity(jnp.zeros(8)) == 1  # nothing seen
    np.testing.assert_allclose(perplexity(jnp.full(4, 2e9)), 4, rtol=1e-6)


@pytest.mark.parametrize("averaged", [False, True])
def test_plain_vectors_collapse_and_revived_averages_do_not(averaged):
    """64 vectors begin in a corner, far from latents that are spread over a square."""
    size, steps = 64, 60
    data = jnp.asarray(RNG.uniform(-1, 1, (steps, 1, 16, 32, 2)), jnp.float32)
    start = jnp.asarray(3 + 0.01 * RNG.normal(size=(size, 2)), jnp.float32)

    def step(carry, latents):
        state, vectors, number = carry
        indices = nearest(latents.reshape(-1, 2), vectors).reshape(latents.shape[:-1])
        if averaged:
            state, vectors = update_codebook(state, vectors, latents, indices, 0.9)
            state, vectors = revive(state, vectors, latents, after=5, seed=0, step=number)
        else:
            flat = latents.reshape(-1, 2)
            term = lambda v: jnp.mean((v[indices.ravel()] - flat) ** 2)  # noqa: E731
            vectors = vectors - 0.5 * jax.grad(term)(vectors)
        return (state, vectors, number + 1), usage(uses(indices, size))

    carry = init_codebook_state(start), start, jnp.int32(0)
    used = np.asarray(jax.jit(lambda c: jax.lax.scan(step, c, data))(carry)[1])
    if averaged:
        assert used[-10:].min() >= 0.9
    else:
        assert used[-10:].max() < 0.2
