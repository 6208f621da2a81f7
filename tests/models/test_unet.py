"""The U-Net in all its kinds: shapes, conditions, dtypes, time, dropout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.models.build import build_unet
from ldm_jax.models.conditioners import Condition

TINY = cfg.UNet(
    in_channels=4, out_channels=4,
    block_out_channels=(8, 16), layers_per_block=1, attention=(False, True), num_heads=(2, 2),
    norm_num_groups=4, context_dim=6,
)  # fmt: skip
ONE_LEVEL = {"block_out_channels": (8,), "attention": (False,), "num_heads": (2,)}
KINDS = {
    "cross-attention": {},
    "linear projection": {"use_linear_projection": True, "transformer_layers": 2},
    "transformer without context": {"context_dim": None},
    "plain attention": {"attention_kind": "plain", "context_dim": None},
    "no attention but the middle's": {"attention": (False, False)},
    "pooled vector": {"pooled_dim": 5},
    "class": {"context_dim": None, "class_count": 4},
    "concatenation": {"concat_channels": 3, "context_dim": None},
    "FiLM": {"time_scale_shift": True},
    "resampling residual blocks": {"resblock_updown": True, "time_scale_shift": True},
    "patches": {"patch_size": 2, "concat_channels": 1, **ONE_LEVEL},
    "everything": {
        "pooled_dim": 5,
        "class_count": 4,
        "concat_channels": 1,
        "dropout": 0.1,
        "resblock_updown": True,
    },
}


def _condition(config, seed=0):
    key = jax.random.key(seed)
    normal = jax.random.normal
    return Condition(
        context=normal(key, (2, 3, config.context_dim)) if config.context_dim else None,
        pooled=normal(key, (2, config.pooled_dim)) if config.pooled_dim else None,
        label=jnp.array([0, seed % 4]) if config.class_count else None,
        concat=normal(key, (2, 4, 4, config.concat_channels)) if config.concat_channels else None,
    )


def _inputs(config):
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, config.in_channels))
    return x, jnp.array([3, 900]), _condition(config)


@pytest.fixture
def build(parameters):
    """Config, module, parameters and inputs of `TINY` with changes."""

    def build(**change):
        config = dataclasses.replace(TINY, **change)
        module, inputs = build_unet(config), _inputs(config)
        return config, module, parameters(module, *inputs), inputs

    return build


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_builds_and_keeps_the_shape(kind):
    config = dataclasses.replace(TINY, out_channels=5, **KINDS[kind])
    out, variables = jax.eval_shape(
        build_unet(config).init_with_output, jax.random.key(0), *_inputs(config)
    )
    assert out.shape == (2, 4, 4, 5) and out.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_every_part_of_the_condition_and_the_time_count(build):
    config, module, variables, (x, t, condition) = build(**KINDS["everything"])
    apply = jax.jit(lambda *args: module.apply(variables, *args))
    base = apply(x, t, condition)
    other = _condition(config, 1)
    for name in ("context", "pooled", "label", "concat"):
        changed = condition._replace(**{name: getattr(other, name)})
        assert not np.allclose(apply(x, t, changed)[1], base[1], atol=1e-3), name
    assert not np.allclose(apply(x, t + 50, condition), base, atol=1e-3)
    np.testing.assert_allclose(apply(x, t.astype(jnp.float32), condition), base, atol=1e-6)


def test_examples_do_not_see_each_other(build):
    _, module, variables, (x, t, condition) = build()
    apply = jax.jit(module.apply)
    both = apply(variables, x, t, condition)
    one = apply(variables, x[1:], t[1:], jax.tree.map(lambda a: a[1:], condition))
    np.testing.assert_allclose(both[1:], one, atol=1e-5)


def test_a_fresh_unet_predicts_zero():
    config = dataclasses.replace(TINY, **ONE_LEVEL)
    out, _ = jax.jit(build_unet(config).init_with_output)(jax.random.key(0), *_inputs(config))
    np.testing.assert_array_equal(out, 0)


# The roundings of a dozen layers, of 2^-9 and 2^-12 each.
@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.05), ("float16", 0.006)])
def test_half_precision_is_close_and_returns_float32(dtype, tolerance, build):
    config, module, variables, inputs = build(**KINDS["everything"])
    out = jax.jit(build_unet(config, dtype).apply)(variables, *inputs)
    assert out.dtype == jnp.float32
    want = jax.jit(module.apply)(variables, *inputs)
    np.testing.assert_allclose(out, want, atol=tolerance * float(jnp.abs(want).max()))


def test_resampling_blocks_start_as_mean_and_repetition(build):
    _, module, variables, inputs = build(resblock_updown=True)
    blocks = [variables["params"][f"{way}_blocks"]["0"] for way in ("down", "up")]
    for level, kind in zip(blocks, ("downsamplers", "upsamplers"), strict=True):
        assert sorted(level[kind]["0"]) == ["conv1", "conv2", "norm1", "norm2", "time_emb_proj"]
        closing = level[kind]["0"]["conv2"]
        closing |= {name: jnp.zeros_like(leaf) for name, leaf in closing.items()}
    capture = {"capture_intermediates": True, "mutable": "intermediates"}
    _, state = jax.jit(lambda v: module.apply(v, *inputs, **capture))(variables)
    down, up = (state["intermediates"][f"{way}_blocks"]["0"] for way in ("down", "up"))
    (before,), (after,) = (down[kind]["0"]["__call__"] for kind in ("resnets", "downsamplers"))
    means = before.reshape(2, 2, 2, 2, 2, -1).mean((2, 4))
    np.testing.assert_allclose(after, means, atol=1e-5)
    # The last block of the level has attention after it.
    (before,), (after,) = up["attentions"]["1"]["__call__"], up["upsamplers"]["0"]["__call__"]
    np.testing.assert_allclose(after, before.repeat(2, 1).repeat(2, 2), atol=1e-5)


@pytest.mark.parametrize("kind", ["cross-attention", "plain attention"])
def test_remat_changes_no_gradient(kind, build):
    config, _, variables, inputs = build(dropout=0.2, **ONE_LEVEL, **KINDS[kind])

    def gradient(remat):
        def loss(variables):
            module = build_unet(config, remat=remat)
            keys = jax.random.split(jax.random.key(3), 2)
            return jnp.sum(module.apply(variables, *inputs, keys) ** 2)

        return jax.jit(jax.grad(loss))(variables)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        gradient(False), gradient(True),
    )  # fmt: skip


def test_dropout_only_in_training(build):
    _, module, variables, inputs = build(dropout=0.5)
    apply = jax.jit(module.apply)
    still = apply(variables, *inputs)
    assert not np.allclose(still, apply(variables, *inputs, jax.random.split(jax.random.key(3), 2)))


def test_a_condition_that_does_not_fit_is_refused():
    module, (x, t, condition) = build_unet(TINY), _inputs(TINY)

    def apply(*args):
        jax.eval_shape(module.init, jax.random.key(0), *args)

    with pytest.raises(ValueError, match="the condition lacks 'context'"):
        apply(x, t, Condition())
    with pytest.raises(ValueError, match="the condition has 'label'"):
        apply(x, t, condition._replace(label=jnp.array([0, 1])))
    with pytest.raises(ValueError, match=r"condition.context has 7 channels; .* says 6"):
        apply(x, t, Condition(context=jnp.zeros((2, 3, 7))))


def test_odd_sides_are_drawn_but_where_blocks_average_over_two(build):
    _, module, variables, (x, t, condition) = build()
    odd = jnp.ones((x.shape[0], 5, 7, x.shape[3]))
    assert module.apply(variables, odd, t, condition).shape[:3] == odd.shape[:3]
    config = dataclasses.replace(TINY, resblock_updown=True)
    with pytest.raises(ValueError, match="the latent has sides 5x7; both must be multiples of 2"):
        jax.eval_shape(build_unet(config).init, jax.random.key(0), odd, t, condition)
