"""Random parameters without compiling an initialisation."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest


@pytest.fixture
def parameters() -> Callable[..., Any]:
    """`parameters(module, *inputs)`: its variables, all non-zero, near their usual size."""

    def draw(module: nn.Module, *inputs: Any, **kwargs: Any) -> Any:
        random = np.random.default_rng(0)
        shapes = jax.eval_shape(lambda *a: module.init(jax.random.key(0), *a, **kwargs), *inputs)

        def leaf(path: Any, shape: jax.ShapeDtypeStruct) -> jax.Array:
            width = np.prod(shape.shape[:-1]) if len(shape.shape) > 1 else 100
            value = random.normal(size=shape.shape) / np.sqrt(width)
            return jax.numpy.asarray(value + (path[-1].key == "scale"), shape.dtype)

        return jax.tree_util.tree_map_with_path(leaf, shapes)

    return draw
