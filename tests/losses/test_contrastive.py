"""Contrastive losses have the values that can be written down, whatever matches whatever."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.losses.contrastive import (
    retrieval_accuracy,
    same_texts,
    sigmoid_loss,
    softmax_loss,
)

NOBODY_ELSE = jnp.eye(4, dtype=bool)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_even_logits_leave_a_guess_among_all():
    np.testing.assert_allclose(softmax_loss(jnp.zeros((4, 4)), NOBODY_ELSE), np.log(4), rtol=1e-6)
    np.testing.assert_allclose(
        sigmoid_loss(jnp.zeros((4, 4)), NOBODY_ELSE), 4 * np.log(2), rtol=1e-6
    )


def test_two_pairs():
    """Two pairs of cosine 1, and c to the others, at scale t: log(1 + e^(t(c - 1)))."""
    scale, cosine = 3.0, 0.2
    logits = scale * jnp.array([[1.0, cosine], [cosine, 1.0]])
    expected = np.log1p(np.exp(scale * (cosine - 1)))
    np.testing.assert_allclose(softmax_loss(logits, jnp.eye(2)), expected, rtol=1e-6)
    right, wrong = np.log1p(np.exp(-scale)), np.log1p(np.exp(scale * cosine))
    np.testing.assert_allclose(sigmoid_loss(logits, jnp.eye(2)), right + wrong, rtol=1e-6)


def test_both_directions_count():
    logits = normal(0, 4, 4)
    loss = softmax_loss(logits, NOBODY_ELSE)
    np.testing.assert_allclose(softmax_loss(logits.T, NOBODY_ELSE), loss, rtol=1e-6)
    log_of = [np.log(np.exp(x).sum(1)) - np.diag(x) for x in (np.asarray(logits), logits.T)]
    np.testing.assert_allclose(loss, np.mean(log_of), rtol=1e-6)


def test_equal_texts_share_what_is_asked_for():
    """With two equal texts a perfect model leaves log 2 for each of their pictures, and its
    gradient is zero; taken for different, it would be told to part what cannot be parted."""
    tokens = jnp.array([[1, 2], [3, 4], [1, 2]])
    matching = same_texts(tokens)
    assert matching.tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    ones = matching.astype(jnp.float32)
    logits = 40 * ones
    loss, gradient = jax.value_and_grad(softmax_loss)(logits, matching)
    np.testing.assert_allclose(loss, 2 / 3 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    apart = jax.grad(softmax_loss)(logits, jnp.eye(3))
    assert float(abs(apart).max()) > 0.1
    np.testing.assert_allclose(sigmoid_loss(80 * ones - 40, matching), 0, atol=1e-6)


@pytest.mark.parametrize("loss", [softmax_loss, sigmoid_loss])
def test_large_logits_stay_finite(loss):
    value, gradient = jax.value_and_grad(loss)(100.0 * normal(1, 4, 4), NOBODY_ELSE)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_retrieval_counts_every_match():
    matching = same_texts(jnp.array([[1], [2], [1]]))
    logits = jnp.array([[0.0, 0.1, 0.9], [0.0, 1.0, 0.0], [0.1, 0.9, 0.0]])
    np.testing.assert_allclose(retrieval_accuracy(logits, matching), 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(retrieval_accuracy(logits, jnp.eye(3) > 0), 1 / 3, rtol=1e-6)
