"""FLOPs by closed forms, and of a network by what is known of it."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from benchmarks import pods
from ldm_jax import latent_diffusion as ldm
from ldm_jax.core import flops
from ldm_jax.models.conditioners import Condition
from ldm_jax.models.convolution import conv2d

W, X = jnp.ones((2, 8, 8)), jnp.ones((4, 8))
PRODUCT = 2 * 4 * 8 * 8


def counted(function, *arguments, **how):
    return flops.count(jax.make_jaxpr(function)(*arguments).jaxpr, **how)


def test_products_convolutions_and_loops_are_counted_by_their_shapes():
    assert counted(jnp.matmul, X, W[0]) == PRODUCT
    image, kernel = jnp.ones((3, 16, 16, 4)), jnp.ones((3, 3, 4, 6))
    convolve = partial(conv2d, stride=1, padding=(1, 1))
    assert counted(convolve, image, kernel) == 2 * (3 * 16 * 16 * 6) * (3 * 3 * 4)
    wide, kernel = jnp.ones((3, 16, 16, 32)), jnp.ones((3, 3, 32, 20))
    once = 2 * (3 * 16 * 16 * 20) * (3 * 3 * 32)  # Rows that a CPU cuts off are no work of it.
    assert counted(convolve, wide, kernel) == once
    gradients = jax.grad(lambda *both: jnp.sum(convolve(*both) ** 2), (0, 1))
    assert counted(gradients, wide, kernel) == 3 * once
    in_turn = lambda x, w: jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]  # noqa: E731
    assert counted(in_turn, X, W) == 2 * PRODUCT


def test_what_remat_computes_again_is_no_work_of_the_model():
    def loss(w, again):
        block = lambda x, w: jnp.tanh(x @ w)  # noqa: E731
        block = jax.checkpoint(block) if again else block
        return jnp.sum(block(block(X, w[0]), w[1]))

    plain, again = (partial(jax.grad(loss), again=value) for value in (False, True))
    # Two products, the gradients of both kernels and of what lies between them.
    assert counted(plain, W) == counted(again, W, again=False) == 5 * PRODUCT
    assert counted(again, W) == 7 * PRODUCT


def test_stable_diffusion_is_what_others_count():
    """0.803 TFLOP forward for each image of 512 pixels."""
    run, autoencoder = pods.full()
    model = ldm.build(run.model(autoencoder))
    of = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
    params = jax.eval_shape(partial(ldm.init_params, model, 0))
    t, condition = jax.ShapeDtypeStruct((1,), jnp.int32), Condition(context=of(1, 77, 768))
    work = counted(model.network, params, of(1, 64, 64, 4), t, condition)
    assert work == pytest.approx(0.803e12, rel=1e-3)


def test_peaks_are_found_by_a_devices_kind():
    assert flops.peak("TPU v5 lite") == 197e12 and flops.peak("TPU v5") == 459e12
    assert flops.peak("NVIDIA H100 80GB HBM3") == 989e12
    assert flops.peak("NVIDIA H100 PCIe") == 756e12 and flops.peak("cpu") is None
