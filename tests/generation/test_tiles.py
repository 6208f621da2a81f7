"""Encoding and decoding in tiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_jax.generation import tiles
from ldm_jax.models.bottlenecks import Gaussian
from ldm_jax.models.conditioners import Condition
from ldm_jax.models.convolution import conv2d, double

RNG = np.random.default_rng(0)
KERNEL = jnp.asarray(RNG.normal(size=(3, 3, 4, 3)), jnp.float32)


def local(x):
    """A decoder of factor 2 that reaches one latent far."""
    return double(conv2d(x, KERNEL))


def latents(h: int, w: int):
    return jnp.asarray(RNG.normal(size=(2, h, w, 4)), jnp.float32)


@pytest.mark.parametrize(
    "h, w, tile, overlap", [(16, 16, 8, 4), (21, 13, 9, 5), (8, 20, 8, 4), (5, 6, 8, 4)]
)
def test_a_local_decoder_is_reproduced_without_seams(h, w, tile, overlap):
    x = latents(h, w)
    tiled = jax.jit(lambda x: tiles.decode_tiled(local, x, tile, overlap, 2))(x)
    # Weights and sums are float32.
    np.testing.assert_allclose(tiled, local(x), rtol=1e-5, atol=1e-5)


def test_less_overlap_than_the_decoder_reaches_shows():
    for side, overlap in ((24, 0), (22, 1)):
        x = latents(side, side)
        tiled = tiles.decode_tiled(local, x, 8, overlap, 2)
        assert np.abs(tiled - local(x)).max() > 0.1


def test_no_overlap_suits_a_pointwise_decoder():
    x = latents(16, 11)
    tiled = tiles.decode_tiled(double, x, 5, 0, 2)
    np.testing.assert_allclose(tiled, double(x), rtol=1e-6, atol=1e-6)


def test_one_tile_is_the_plain_decoder():
    x = latents(8, 6)
    tiled = tiles.decode_tiled(local, x, 8, 4, 2)
    np.testing.assert_array_equal(tiled, local(x))


def test_a_brightness_that_differs_between_tiles_fades():
    x = jnp.broadcast_to(jnp.arange(32, dtype=jnp.float32)[None, None, :, None], (1, 16, 32, 1))
    tiled = tiles.decode_tiled(
        lambda p: double(jnp.broadcast_to(p.mean((1, 2), keepdims=True), p.shape)), x, 16, 8, 2
    )
    # Tiles are 8 apart, and fade over half of 8 latents, 8 pixels: a step of 1 at each.
    steps = np.diff(np.asarray(tiled)[0, 0, :, 0])
    assert 0.9 < steps.max() < 1.1 and steps.min() == 0


def test_the_decoder_keeps_its_dtype():
    x = latents(12, 12).astype(jnp.bfloat16)
    assert tiles.decode_tiled(double, x, 8, 4, 2).dtype == jnp.bfloat16


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.data(), st.sampled_from([1, 2, 4, 8]))
def test_weights_sum_to_one_and_vanish_at_inner_edges(length, tile, data, factor):
    overlap = data.draw(st.integers(0, tile - 1))
    tile = min(tile, length)
    starts, weights = tiles._layout(length, tile, min(overlap, tile), factor)
    total = np.zeros(length * factor)
    for start, weight in zip(starts, weights, strict=True):
        total[start * factor :][: tile * factor] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert weights.min() >= 0
    assert starts[0] == 0 and starts[-1] == length - tile
    margin = int(overlap / 4 * factor)
    if margin:
        assert (weights[1:, :margin] == 0).all() and (weights[:-1, -margin:] == 0).all()


def test_bad_tiles_are_refused():
    with pytest.raises(ValueError, match="cannot overlap by 8"):
        tiles.decode_tiled(local, latents(16, 16), 8, 8, 2)
    with pytest.raises(ValueError, match="a tile of 8x8 becomes 16x16, where 64x64 are expected"):
        tiles.decode_tiled(local, latents(16, 16), 8, 4, 8)
    with pytest.raises(ValueError, match="the sides are 16x15; both must be multiples of 2"):
        tiles.encode_tiled(local, latents(16, 15), 8, 4, 2)


def halve(x):
    """An encoder of factor 2 that reaches one latent far, to a mean and a log-variance."""
    x = conv2d(x, KERNEL)
    small = x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, 3).mean((2, 4))
    return Gaussian(small, small - 1)


@pytest.mark.parametrize("h, w, tile, overlap", [(32, 32, 8, 4), (42, 26, 9, 5), (10, 12, 8, 4)])
def test_moments_of_a_local_encoder_are_reproduced_without_seams(h, w, tile, overlap):
    x = latents(h, w)
    tiled = jax.jit(lambda x: tiles.encode_tiled(halve, x, tile, overlap, 2))(x)
    assert isinstance(tiled, Gaussian)
    for got, want in zip(tiled, halve(x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


class LocalUNet:
    """A U-Net that reaches one latent far and sees the concatenated channels."""

    def apply(self, variables, x, t, condition, dropout=None):
        both = jnp.concatenate([x, condition.concat], axis=-1)
        return conv2d(both, KERNEL) + condition.pooled[:, None, None]


@pytest.mark.parametrize("h, w", [(8, 9), (21, 13)])
def test_a_local_unet_draws_in_tiles_what_it_draws_of_the_whole(h, w):
    x, concat = latents(h, w)[..., :3], latents(h, w)[..., 3:]
    condition = Condition(concat=concat, pooled=jnp.ones((2, 3)))
    whole = LocalUNet().apply({}, x, None, condition)
    tiled = tiles.TiledUNet(LocalUNet(), 8).apply({}, x, jnp.zeros(2), condition)
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, atol=1e-5)


@given(st.integers(1, 300), st.integers(2, 64), st.sampled_from([1, 4]))
@settings(max_examples=300, deadline=None)
def test_tiles_cover_a_side_of_any_length(length, tile, factor):
    """No border stays black: the weights of all tiles that reach a pixel sum to one."""
    tile = min(tile, length)
    starts, weights = tiles._layout(length, tile, tile // 2, factor)
    total = np.zeros(length * factor)
    for start, own in zip(starts, weights, strict=True):
        total[start * factor : (start + tile) * factor] += own
    np.testing.assert_allclose(total, 1, atol=1e-6)
