"""ControlNet: its size and names, that a fresh one adds nothing, and what a U-Net does with it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.core import tree
from ldm_jax.models.build import build_control, build_unet
from ldm_jax.models.conditioners import Condition, Hint
from ldm_jax.models.control_net import controlled, embed_hint

UNET = cfg.UNet(
    in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
    attention=(False, True), num_heads=(2, 2), norm_num_groups=4, context_dim=6,
)  # fmt: skip
BRANCH = cfg.ControlBranch(UNET, hint_widths=(4, 6, 8))
T = jnp.array([3, 900])
CONDITION = Condition(context=jax.random.normal(jax.random.key(0), (2, 3, 6)))
X = jax.random.normal(jax.random.key(1), (2, 4, 4, 4))
HINT = jax.random.uniform(jax.random.key(2), (2, 16, 16, 3))


def test_size_and_names_of_stable_diffusions():
    net, condition = build_control(cfg.ControlBranch()), Condition(context=jnp.zeros((1, 77, 768)))
    x, t, hint = jnp.zeros((1, 8, 8, 4)), jnp.zeros(1), jnp.zeros((1, 64, 64, 3))
    control, variables = jax.eval_shape(
        net.init_with_output, jax.random.key(0), x, t, condition, hint
    )
    flat = tree.flatten(variables["params"])
    assert sum(leaf.size for leaf in flat.values()) == 361_279_120
    assert len(control.skips) + 1 == net.branch.residuals == 13
    assert {
        "controlnet_cond_embedding/conv_in/kernel", "controlnet_cond_embedding/blocks/5/bias",
        "controlnet_cond_embedding/conv_out/kernel", "controlnet_down_blocks/11/kernel",
        "controlnet_mid_block/bias", "mid_block/attentions/0/proj_in/kernel",
    } <= flat.keys()  # fmt: skip
    assert flat["controlnet_cond_embedding/blocks/5/kernel"].shape == (3, 3, 96, 256)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"concat_channels": 2},
        {"class_count": 3, "pooled_dim": 5},
        {"attention": (False, False)},
        {"resblock_updown": True},
    ],
)
def test_a_fresh_one_changes_nothing_bit_for_bit(change, parameters):
    config = dataclasses.replace(UNET, **change)
    normal = jax.random.normal(jax.random.key(3), (2, 4, 4, 5))
    condition = CONDITION._replace(
        concat=normal[..., :2] if config.concat_channels else None,
        pooled=normal[:, 0, 0] if config.pooled_dim else None,
        label=jnp.array([0, 2]) if config.class_count else None,
    )
    unet, net = build_unet(config), build_control(cfg.ControlBranch(config, hint_widths=(4, 6, 8)))
    variables = parameters(unet, X, T, condition)
    fresh = jax.jit(net.init)(jax.random.key(4), X, T, condition, HINT)

    @jax.jit
    def both(variables, fresh):
        control = net.apply(fresh, X, T, condition, HINT)
        plain = unet.apply(variables, X, T, condition)
        return plain, unet.apply(variables, X, T, condition, None, control)

    plain, added = both(variables, fresh)
    np.testing.assert_array_equal(added, plain)


def _hint(net, params, strengths, times=(1e9, -1e9)):
    rows = jnp.asarray(strengths, jnp.float32)
    rows = jnp.broadcast_to(rows, (2, net.branch.residuals))
    return Hint(embed_hint(net, params, HINT), rows, jnp.broadcast_to(jnp.array(times), (2, 2)))


@pytest.fixture
def made(parameters):
    net = build_control(BRANCH)
    return net, parameters(net, X, T, CONDITION, HINT)["params"]


def test_embedding_a_hint_apart_is_the_same(made):
    net, params = made
    whole = net.apply({"params": params}, X, T, CONDITION, HINT)
    condition = CONDITION._replace(hints=(_hint(net, params, 1.0),))
    apart = controlled((net,), {"0": params}, X, T, condition)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(apart), strict=True):
        np.testing.assert_array_equal(one, other)
        assert float(jnp.abs(one).max()) > 0.01


def test_several_are_summed_as_strongly_as_their_rows_say(made):
    net, params = made
    one = net.apply({"params": params}, X, T, CONDITION, HINT)
    strengths = np.array([[0.5], [0.0]])
    hints = (_hint(net, params, strengths), _hint(net, params, np.arange(net.branch.residuals)))
    found = controlled(
        (net, net), {"0": params, "1": params}, X, T, CONDITION._replace(hints=hints)
    )
    for i, skip in enumerate(one.skips):
        np.testing.assert_allclose(found.skips[i][0], (0.5 + i) * skip[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.skips[i][1], i * skip[1], rtol=1e-5, atol=1e-6)


def test_it_acts_between_its_times_only(made):
    net, params = made
    hint = _hint(net, params, 1.0, times=(900.0, 3.0))
    found = controlled((net,), {"0": params}, X, T, CONDITION._replace(hints=(hint,)))
    assert not np.any(found.middle[0]) and np.any(found.middle[1])


def test_pooled_over_the_picture(made):
    net, params = made
    pooled = build_control(dataclasses.replace(BRANCH, global_pool=True))
    one = net.apply({"params": params}, X, T, CONDITION, HINT)
    other = pooled.apply({"params": params}, X, T, CONDITION, HINT)
    assert other.middle.shape == (2, 1, 1, 16)
    np.testing.assert_allclose(other.skips[0][:, 0, 0], one.skips[0].mean((1, 2)), rtol=1e-4)


def test_hints_of_other_sizes_are_refused(made):
    net, params = made
    with pytest.raises(ValueError, match="4 times as large"):
        net.apply({"params": params}, X, T, CONDITION, HINT[:, :8])
    with pytest.raises(ValueError, match="multiples of 4"):
        net.apply({"params": params}, X, T, CONDITION, HINT[:, :7])


def test_a_new_one_fits_the_first_stage():
    stage = cfg.Autoencoder(block_out_channels=(32, 32, 32, 32))
    assert cfg.control_of(UNET, stage) == cfg.ControlBranch(UNET)
    assert cfg.control_of(UNET, cfg.Pixels()).hint_factor == 1
    with pytest.raises(cfg.ConfigError, match="power of two"):
        cfg.control_of(UNET, dataclasses.replace(stage, patch_size=3))
