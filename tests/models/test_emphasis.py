"""Weights on token states."""

import jax.numpy as jnp
import numpy as np

from ldm_jax.models.emphasis import weigh


def test_weights_of_one_change_no_bit():
    context = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 5)), jnp.float32)
    for dtype in (jnp.float32, jnp.bfloat16):
        same = weigh(context.astype(dtype), jnp.ones((2, 7)))
        assert same.dtype == dtype
        np.testing.assert_array_equal(same, context.astype(dtype))


def test_tokens_are_scaled_and_each_mean_kept():
    rng = np.random.default_rng(1)
    context, weights = rng.normal(0.3, 1, (2, 7, 5)), rng.uniform(0.5, 1.5, (2, 7))
    out = np.asarray(weigh(jnp.asarray(context, jnp.float32), jnp.asarray(weights, jnp.float32)))
    for x, w, y in zip(context, weights, out, strict=True):
        scaled = x * w[:, None]
        # 1e-5: two means of 35 float32 numbers and their quotient
        np.testing.assert_allclose(y, scaled * x.mean() / scaled.mean(), rtol=1e-5)


def test_examples_do_not_see_each_other():
    rng = np.random.default_rng(2)
    context = jnp.asarray(rng.normal(1, 1, (3, 4, 2)), jnp.float32)
    weights = jnp.asarray(rng.uniform(0.5, 2, (3, 4)), jnp.float32)
    np.testing.assert_array_equal(weigh(context, weights)[1:2], weigh(context[1:2], weights[1:2]))


def test_zeros_stay_zeros():
    assert (weigh(jnp.zeros((1, 3, 2)), jnp.ones((1, 3))) == 0).all()
