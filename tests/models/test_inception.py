"""The Inception network of scores has the shapes of its graph. `tests/parity` has its values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.core import tree
from ldm_jax.models.inception import TAPS, Inception, _average, _maximum


def shapes(side=299, batch=2):
    images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
    return jax.eval_shape(Inception().init_with_output, jax.random.key(0), images)


def test_features_and_parameters():
    found, variables = shapes()
    assert {name: leaf.shape for name, leaf in found.items()} == {
        name: (2, size) for name, size in TAPS.items()
    }
    flat = tree.flatten(variables["params"])
    assert len(flat) == 94 * 5 + 2
    assert flat["Mixed_6d/branch7x7_2/conv/kernel"].shape == (1, 7, 160, 160)
    assert flat["Mixed_7c/branch3x3dbl_3b/bn/running_var"].shape == (384,)
    # The file has 95.6 MB of float32, less names and padding.
    assert sum(leaf.size for leaf in flat.values()) == 23_885_392


def test_padding_does_not_count():
    x = -jnp.ones((1, 3, 3, 1))
    np.testing.assert_allclose(_average(x), -1)
    np.testing.assert_allclose(_maximum(x), -1)


def test_other_sides_are_refused():
    with pytest.raises(ValueError, match="299x299 pixels, not 224x224"):
        shapes(side=224)
