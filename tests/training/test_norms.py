"""Norms of gradients and updates by the parts of networks."""

import jax.numpy as jnp
import pytest

from ldm_jax.training.norms import norms, part_of

TREE = {
    "unet": {
        "conv_in": {"kernel": jnp.array([3.0]), "bias": jnp.array([4.0])},
        "up_blocks": {"0": {"conv": {"kernel": jnp.array([12.0])}}},
    }
}


def test_parts_are_told_beside_the_whole():
    assert norms(TREE, "gradient_norm", 0) == {"gradient_norm": 13.0}
    assert norms(TREE, "gradient_norm", 2) == {
        "gradient_norm": 13.0, "gradient_norm/unet/conv_in": 5.0,
        "gradient_norm/unet/up_blocks": 12.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("logit_scale", ["logit_scale"] * 3),
        ("unet/conv_in/kernel", ["unet", "unet/conv_in", "unet/conv_in"]),
        (
            "unet/adapters/0/down_blocks/0/attentions/0/to_q/down",
            ["unet", "unet/down_blocks", "unet/down_blocks/0"],
        ),
        (
            "adapters/control/0/mid_block/resnets/0/conv1/kernel",
            ["control", "control/mid_block", "control/mid_block/resnets"],
        ),
    ],
)
def test_the_part_of_a_parameter(path, parts):
    assert [part_of(path, depth) for depth in (1, 2, 3)] == parts
