"""Norms and resampling against plain references."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.core import rngs, sharding
from ldm_jax.models import layers
from ldm_jax.training.gradients import over_parts


def _normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def test_a_row_that_many_tokens_take_learns_from_all():
    """In bfloat16 a sum of ones would stay at 256."""
    embed = layers.Embed(3, 4, dtype=jnp.bfloat16)
    tokens = jnp.ones((1, 1000), jnp.int32)
    params = embed.init(jax.random.key(0), tokens)
    out = embed.apply(params, tokens)
    np.testing.assert_array_equal(out[0, 0], embed.apply(params, 2, method="first")[1])
    gradient = jax.grad(lambda p: embed.apply(p, tokens).astype(jnp.float32).sum())(params)
    np.testing.assert_array_equal(gradient["params"]["embedding"], np.outer([0, 1000, 0], [1] * 4))


@pytest.mark.parametrize("shape", [(2, 5, 3, 12), (3, 7, 12)])
def test_group_norm_is_flax_group_norm(shape):
    x = 3 * _normal(0, *shape) + 1
    ours = layers.GroupNorm(4, 1e-5)
    theirs = nn.GroupNorm(4, epsilon=1e-5)
    params = {"params": {"scale": _normal(1, 12), "bias": _normal(2, 12)}}
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x)) == jax.tree.map(
        jnp.shape, params
    )
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), atol=1e-5)
    grads = [
        jax.grad(lambda p, x, m=m: jnp.sum(jnp.sin(m.apply(p, x))), (0, 1))(params, x)
        for m in (ours, theirs)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), *grads)


def test_group_norm_of_bfloat16_has_float32_statistics():
    x = (_normal(0, 2, 16, 16, 8) + 30).astype(jnp.bfloat16)
    norm = layers.GroupNorm(2, 1e-5, jnp.bfloat16)
    y = norm.apply(norm.init(jax.random.key(0), x), x)
    assert y.dtype == jnp.bfloat16
    want = nn.GroupNorm(2, use_bias=False, use_scale=False).apply({}, x.astype(jnp.float32))
    np.testing.assert_allclose(y.astype(jnp.float32), want, atol=0.03)


def test_group_norm_of_a_shifted_input():
    x, shift = _normal(0, 2, 5, 3, 12), _normal(1, 2, 12)
    norm = layers.GroupNorm(4, 1e-5)
    params = norm.init(jax.random.key(0), x)

    def summed(form):
        return lambda x, shift: jnp.sum(jnp.sin(form(x, shift)))

    forms = [
        lambda x, shift: norm.apply(params, x, shift),
        lambda x, shift: norm.apply(params, x + shift[:, None, None]),
    ]
    np.testing.assert_allclose(*(form(x, shift) for form in forms), atol=1e-5)
    for one, other in zip(*(jax.grad(summed(f), (0, 1))(x, shift) for f in forms), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_downsampling_pads_after_the_end_or_on_both_sides():
    kernel, x = jnp.zeros((3, 3, 1, 1)).at[0, 0, 0, 0].set(1.0), _normal(0, 1, 6, 6, 1)
    params = {"params": {"conv": {"kernel": kernel, "bias": jnp.zeros(1)}}}
    # The top left tap sees pixel (2i, 2j) without padding before it, (2i - 1, 2j - 1) with one.
    after = layers.Downsample(1, (0, 1)).apply(params, x)
    np.testing.assert_array_equal(after, x[:, ::2, ::2])
    both = layers.Downsample(1, (1, 1)).apply(params, x)
    np.testing.assert_array_equal(both[:, 1:, 1:], x[:, 1:-1:2, 1:-1:2])
    np.testing.assert_array_equal(both[:, 0], 0)


def test_doubling_repeats_pixels():
    x = _normal(0, 2, 3, 4, 5)
    np.testing.assert_array_equal(layers.double(x), x.repeat(2, axis=1).repeat(2, axis=2))


def test_timestep_embedding_is_cosine_then_sine_without_shift():
    got = layers.timestep_embedding(jnp.array([0.0, 2.5]), 6)
    angles = 2.5 * np.exp(-np.log(10000) * np.arange(3) / 3)
    np.testing.assert_allclose(got[0], [1, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(got[1], [*np.cos(angles), *np.sin(angles)], atol=1e-6)


def test_film_scales_then_shifts_the_second_norm():
    block = layers.ResnetBlock(4, 2, 1e-5, time_scale_shift=True)
    x, time = _normal(0, 2, 4, 4, 4), _normal(1, 2, 8)
    params = block.init(jax.random.key(0), x, time)["params"]
    assert params["time_emb_proj"]["kernel"].shape == (8, 8)
    # A scale of -1 and a shift of 0 leave the second convolution only its bias.
    params["time_emb_proj"] = {
        "kernel": jnp.zeros((8, 8)),
        "bias": jnp.array([-1.0] * 4 + [0.0] * 4),
    }
    np.testing.assert_allclose(block.apply({"params": params}, x, time), x, atol=1e-6)


def test_indivisible_sides_are_named():
    with pytest.raises(ValueError, match="the latent has sides 6x8; both must be multiples of 4"):
        layers.check_sides(jnp.zeros((1, 6, 8, 3)), 4, "the latent")


class TwoDropouts(nn.Module):
    """The masks of two layers, one after the other along the last axis."""

    @nn.compact
    def __call__(self, x, keys):
        masks = [layers.Dropout(0.25, name=name)(x, keys) for name in ("first", "second")]
        return jnp.concatenate(masks, axis=-1)


def _masks(index, devices=1, parts=1):
    mesh = sharding.make_mesh(cfg.Mesh(), jax.devices()[:devices])
    keys = rngs.example_keys(rngs.stream(0, "dropout"), np.asarray(index, np.uint32))
    batch = jax.device_put((jnp.ones((len(index), 6, 50)), keys), sharding.batch_sharding(mesh))

    def masks(part):
        return (), TwoDropouts().apply({}, *part)

    return np.asarray(jax.jit(lambda batch: over_parts(masks, batch, parts)[1])(batch))


@pytest.mark.parametrize(("devices", "parts"), [(1, 2), (1, 4), (2, 1), (8, 1), (2, 4), (8, 2)])
def test_dropout_belongs_to_the_example(devices, parts):
    whole = _masks(range(16))
    np.testing.assert_array_equal(_masks(range(16), devices, parts), whole)
    order = [3, 15, 0, 7]  # whatever else the batch holds
    np.testing.assert_array_equal(_masks(order), whole[order])


def test_dropout_keeps_the_mean_and_differs_by_layer_and_example():
    masks = _masks(range(16))
    assert set(np.unique(masks)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((masks > 0).mean() - 0.75) < 0.02
    rows = np.concatenate(np.split(masks, 2, axis=-1))
    assert len({row.tobytes() for row in rows}) == 32
    x, keys = jnp.ones((2, 3)), jax.random.split(jax.random.key(0), 2)
    np.testing.assert_array_equal(layers.Dropout(0.5).apply({}, x, None), x)
    np.testing.assert_array_equal(layers.Dropout(0.0).apply({}, x, keys), x)
    np.testing.assert_array_equal(layers.Dropout(1.0).apply({}, x, keys), jnp.zeros_like(x))
