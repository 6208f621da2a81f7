"""The networks of features have torchvision's layers. `tests/parity` has their values."""

import jax
import jax.numpy as jnp
import pytest

from ldm_jax.core import tree
from ldm_jax.models.backbones import BACKBONES, VGG16, VGG16_TAPS
from ldm_jax.models.lpips import LPIPS


def test_vgg16():
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    found, variables = jax.eval_shape(VGG16().init_with_output, jax.random.key(0), images)
    assert {name: leaf.shape[1] for name, leaf in found.items()} == VGG16_TAPS
    flat = tree.flatten(variables["params"])
    assert flat["classifier/0/kernel"].shape == (512 * 7 * 7, 4096)
    # torchvision's has 138,357,544, with the last layer.
    assert sum(leaf.size for leaf in flat.values()) == 138_357_544 - 4097 * 1000


@pytest.mark.parametrize("network", BACKBONES)
def test_least_side(network):
    """One pixel is left of it, and of less there would be none."""
    backbone, module = BACKBONES[network], LPIPS(network=network)
    assert len(backbone.widths) == len(backbone.stages) == 5

    def distance(side):
        images = jnp.zeros((1, side, 40, 3))
        return jax.eval_shape(module.init_with_output, jax.random.key(0), images, images)[0]

    assert distance(backbone.least).shape == (1,)
    with pytest.raises(ValueError, match=f"{backbone.least - 1}x40"):
        distance(backbone.least - 1)
