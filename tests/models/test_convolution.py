"""Convolutions have the values and all derivatives of flax's, in the form of each platform."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ldm_jax.models.convolution import conv2d, conv2d_doubled, conv_as_matmul, convolve, double

CHANNELS = {2: (6, 5), 4: (6, 5), 12: (18, 17), 128: (6, 18)}
"""Of inputs and of outputs by the side: narrow ones, and wide ones of few and of many pixels."""
FORMS = [(3, 1, (1, 1)), (3, 2, (1, 1)), (3, 2, (0, 1)), (4, 2, (1, 1)), (7, 3, (2, 3)),
         (4, 1, (1, 2)), (1, 1, (0, 0)), (1, 2, (0, 0))]  # fmt: skip
"""Kernel, stride, padding."""


def _normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def _reference(x, kernel, stride, padding):
    conv = nn.Conv(kernel.shape[-1], kernel.shape[:2], stride, [padding] * 2, use_bias=False)
    return conv.apply({"params": {"kernel": kernel}}, x)


@pytest.mark.parametrize("side", CHANNELS)
@pytest.mark.parametrize(("size", "stride", "padding"), FORMS)
def test_values_and_gradients(side, size, stride, padding):
    # 4 x 4 at batch 2 is computed as a matmul on CPU, 12 x 12 as a convolution.
    channels, features = CHANNELS[side]
    if side + sum(padding) < size:
        pytest.skip("no place for the kernel")
    x = _normal(0, 2, side, side, channels)
    kernel = _normal(1, size, size, channels, features)

    def outputs_and_gradients(conv):
        def scalar(x, kernel):
            out = conv(x, kernel, stride, padding)
            return jnp.sum(jnp.sin(out)), out

        gradients, out = jax.jit(jax.grad(scalar, (0, 1), has_aux=True))(x, kernel)
        return out, *gradients

    want = outputs_and_gradients(_reference)
    for conv in (conv2d, conv_as_matmul):
        for ours, theirs in zip(outputs_and_gradients(conv), want, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max(), rtol=0)


@pytest.mark.parametrize(("size", "stride", "padding"), FORMS[:3])
def test_all_derivatives_in_float64(size, stride, padding):
    """Forward, reverse, and one after the other; checked against finite differences."""
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        x, kernel = random.normal(size=(2, 12, 13, 2)), random.normal(size=(size, size, 2, 3))

        @jax.jit
        def scalar(x, kernel):
            return jnp.sum(jnp.sin(conv2d(x, kernel, stride, padding)))

        check_grads(scalar, (x, kernel), order=2, rtol=1e-4)


def _two_steps(x, kernel):
    return _reference(double(x), kernel, 1, (1, 1))


@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((1, 1), (2, 0)), ((0, 3), (3, 3))])
def test_different_padding_above_below_left_and_right(padding):
    x, kernel = _normal(0, 2, 12, 11, 20), _normal(1, 3, 4, 20, 17)
    conv = nn.Conv(17, (3, 4), 1, padding, use_bias=False)
    want = conv.apply({"params": {"kernel": kernel}}, x)
    got = jax.jit(lambda *both: convolve(*both, stride=1, padding=padding))(x, kernel)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max(), rtol=0)


@pytest.mark.parametrize("sides", [(5, 6), (16, 17)])  # Few pixels, and enough for squares.
def test_of_doubled_pixels(sides):
    """In float32 the sums of a kernel's values are rounded: 1e-6 of the largest value."""
    x, kernel = _normal(0, 2, *sides, 6), _normal(1, 3, 3, 6, 18)

    def all_of(convolve):
        def scalar(x, kernel):
            out = convolve(x, kernel)
            return jnp.sum(jnp.sin(out)), out

        gradients, out = jax.jit(jax.grad(scalar, (0, 1), has_aux=True))(x, kernel)
        return out, *gradients

    for ours, theirs in zip(all_of(conv2d_doubled), all_of(_two_steps), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max(), rtol=0)


def test_all_derivatives_of_doubled_pixels_in_float64():
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        x, kernel = random.normal(size=(2, 16, 16, 2)), random.normal(size=(3, 3, 2, 3))

        @jax.jit
        def scalar(x, kernel):
            return jnp.sum(jnp.sin(conv2d_doubled(x, kernel)))

        check_grads(scalar, (x, kernel), order=2, rtol=1e-4)


def test_doubled_pixels_in_half_precision_are_those_of_two_steps():
    x, kernel = (
        one.astype(jnp.bfloat16) for one in (_normal(0, 2, 16, 16, 6), _normal(1, 3, 3, 6, 8))
    )
    expected = conv2d(double(x), kernel)
    np.testing.assert_array_equal(conv2d_doubled(x, kernel), expected)


def test_mapped_and_rematerialised():
    x, kernels = _normal(0, 3, 2, 12, 12, 4), _normal(1, 3, 3, 3, 4, 4)

    def loss(conv, x, kernel):
        return jnp.sum(conv(conv(x, kernel), kernel) ** 2)

    def gradients(conv):
        remade = jax.checkpoint(partial(loss, conv))
        return jax.jit(jax.vmap(jax.grad(remade, (0, 1))))(x, kernels)

    plain = partial(_reference, stride=1, padding=(1, 1))
    for got, want in zip(gradients(conv2d), gradients(plain), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


def _lowered(platform, function, *shapes):
    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.export.export(jax.jit(function), platforms=[platform])(*given).mlir_module()


def test_a_cpu_takes_matmuls_where_they_are_faster():
    """Over few pixels, and for the gradients of kernels; other platforms take convolutions."""

    def convolutions(platform, side, features=32):
        def gradients(x, kernel):
            return jax.grad(lambda *both: jnp.sum(conv2d(*both) ** 2), (0, 1))(x, kernel)

        text = _lowered(platform, gradients, (64, side, side, 8), (3, 3, 8, features))
        return text.count("stablehlo.convolution")

    assert convolutions("cpu", 2) == 0
    assert convolutions("cpu", 8) == convolutions("cpu", 128) == 2
    assert convolutions("cpu", 8, features=3) == 2
    for platform in ("cuda", "tpu"):
        assert convolutions(platform, 2) == convolutions(platform, 128) == 3
        assert convolutions(platform, 8, features=3) == 3


def test_a_cpu_alone_computes_rows_that_are_cut_off():
    """Outputs higher than inputs are computed on all cores there, in either direction."""

    def rows(platform, channels):
        def gradient(x, kernel):
            return jax.grad(lambda x: jnp.sum(conv2d(x, kernel) ** 2))(x)

        text = _lowered(platform, gradient, (4, 16, 16, channels), (3, 3, channels, 32))
        found = [line for line in text.splitlines() if "stablehlo.convolution" in line]
        return [int(re.findall(r"tensor<4x(\d+)x", line)[-1]) for line in found]

    assert rows("cpu", 32) == [17, 17]
    assert rows("cpu", 8) == [16, 16]  # Too narrow to be shared out.
    for platform in ("cuda", "tpu"):
        assert rows(platform, 32) == [16, 16]


def test_a_cpu_alone_adds_up_the_kernel_over_doubled_pixels():
    """Elsewhere two convolutions, of 3x3, are as before; on a CPU one, of 2x2, has four times the
    features and a quarter of the places, and so has its gradient."""

    def kernels(platform):
        def gradient(x, kernel):
            return jax.grad(lambda x: jnp.sum(conv2d_doubled(x, kernel) ** 2))(x)

        text = _lowered(platform, gradient, (2, 16, 16, 4), (3, 3, 4, 5))
        found = [line for line in text.splitlines() if "stablehlo.convolution" in line]
        return [re.findall(r"tensor<(\S*)xf32>", line)[1] for line in found]

    assert kernels("cpu") == ["2x2x4x20", "2x2x20x4"]
    for platform in ("cuda", "tpu"):
        assert kernels(platform) == ["3x3x4x5", "3x3x4x5"]
