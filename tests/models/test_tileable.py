"""Networks on a torus."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.models.autoencoder import Autoencoder
from ldm_jax.models.conditioners import Condition
from ldm_jax.models.convolution import double
from ldm_jax.models.layers import Conv
from ldm_jax.models.tileable import tileable
from ldm_jax.models.unet import UNet2D

AUTOENCODER = cfg.Autoencoder(
    block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, mid_attention=True
)
UNET = cfg.UNet(
    in_channels=4, out_channels=4,
    block_out_channels=(8, 8), layers_per_block=1, attention=(True, False), num_heads=(2, 2),
    context_dim=8, norm_num_groups=4,
)  # fmt: skip


def normal(seed: int, *shape: int):
    return jax.random.normal(jax.random.key(seed), shape)


def parameters(net, *inputs):
    """Random ones: fresh networks have zeros and ones that would hide most of them."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(net.init, jax.random.key(0), *inputs))
    rng = np.random.default_rng(0)
    made = [jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, made)


def shift_error(run, x, shift: int, factor: float) -> float:
    """How far `run` is from commuting with a circular shift of its input by `shift`."""
    move = (shift, -2 * shift)
    out = tuple(int(m * factor) for m in move)
    expected = jnp.roll(run(x), out, (1, 2))
    found = run(jnp.roll(x, move, (1, 2)))
    return float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))


# Sums in another order: about 1e-6 in float32. Zero padding errs by far more than 1e-2.
def test_the_unet_commutes_with_shifts():
    net = UNet2D(UNET)
    x, t = normal(0, 2, 8, 12, UNET.in_channels), jnp.array([3, 500])
    condition = Condition(context=normal(1, 2, 5, 8))
    params = parameters(net, x, t, condition)

    @jax.jit
    def run(x):
        with tileable():
            return net.apply(params, x, t, condition)

    assert shift_error(run, x, UNET.factor, 1) < 1e-5
    assert shift_error(jax.jit(lambda x: net.apply(params, x, t, condition)), x, 2, 1) > 1e-2


def test_decoder_and_encoder_commute_with_shifts():
    net = Autoencoder(AUTOENCODER)
    z, images = normal(0, 1, 6, 8, AUTOENCODER.latent_channels), normal(1, 1, 12, 16, 3)
    params = parameters(net, images, z)

    @jax.jit
    def decode(z):
        with tileable():
            return net.apply(params, z, method="decode")

    @jax.jit
    def encode(images):
        with tileable():
            return net.apply(params, images, method="encode").mean

    assert shift_error(decode, z, 1, 2) < 1e-5
    assert shift_error(encode, images, 2, 0.5) < 1e-5
    plain = jax.jit(lambda z: net.apply(params, z, method="decode"))
    assert shift_error(plain, z, 1, 2) > 1e-2


@pytest.mark.parametrize(
    "stride, padding, kernel", [(1, (1, 1), 3), (2, (1, 1), 3), (2, (0, 1), 3), (1, (2, 2), 5)]
)
def test_a_convolution_on_a_torus(stride, padding, kernel):
    conv = Conv(2, kernel, stride, padding)
    x = normal(0, 1, 4, 6, 3)
    params = conv.init(jax.random.key(0), x)
    with tileable():
        found = conv.apply(params, x)
    around = jnp.pad(x, ((0, 0), padding, padding, (0, 0)), mode="wrap")
    expected = Conv(2, kernel, stride, (0, 0)).apply(params, around)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sides", [(4, 6), (24, 26)])
def test_a_convolution_of_doubled_pixels_on_a_torus(sides):
    x = normal(0, 1, *sides, 3)
    params = Conv(2).init(jax.random.key(0), x)
    with tileable():
        found = Conv(2, doubled=True).apply(params, x)
        expected = Conv(2).apply(params, double(x))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_outside_nothing_changes():
    conv, x = Conv(2), normal(0, 1, 4, 4, 3)
    params = conv.init(jax.random.key(0), x)
    before = conv.apply(params, x)
    with tileable():
        assert not np.array_equal(conv.apply(params, x), before)
        again = conv.init(jax.random.key(0), x)
    np.testing.assert_array_equal(conv.apply(params, x), before)
    assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, params)
