"""LPIPS is a distance, and its gradient exists everywhere. `tests/parity` has its values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.lpips import LPIPS, _unit

X = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3), minval=-1)
Y = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3), minval=-1)


@pytest.fixture(scope="module")
def distance():
    model = LPIPS()
    shapes = jax.eval_shape(model.init, jax.random.key(0), X, Y)
    # Random features with positive heads; a constant would make all channels alike.
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(
            random.standard_normal(leaf.shape, np.float32) * (2 / np.prod(leaf.shape[:3])) ** 0.5
            if leaf.ndim == 4 and leaf.shape[-1] > 1 else np.full(leaf.shape, 0.1, np.float32)
        ), shapes,
    )  # fmt: skip
    return jax.jit(lambda x, y: model.apply(variables, x, y))


def test_distance(distance):
    found = distance(X, Y)
    assert found.shape == (2,) and (found > 0).all()
    np.testing.assert_allclose(distance(Y, X), found, rtol=1e-5)
    np.testing.assert_array_equal(distance(X, X), 0)


def test_pixels_without_features_have_a_gradient():
    slope = jax.grad(lambda x: _unit(jax.nn.relu(x)).sum())(jnp.zeros((1, 1, 1, 4)))
    np.testing.assert_array_equal(slope, 0)


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="15x16"):
        jax.eval_shape(LPIPS().init, jax.random.key(0), X[:, :15], X[:, :15])
