"""From data to its noise and back, against the exact flow of Gaussian data."""

import jax
import jax.numpy as jnp
import numpy as np
from gaussian import arc, denoise, flow, marginal

from ldm_jax.core.typing import Prediction
from ldm_jax.sampling.scan import invert, reverse, sample
from ldm_jax.sampling.solvers import make_solver


def test_inversion_comes_back():
    run = arc(200)
    x = marginal(8, run)
    clean = flow(x, run)
    noisy = invert(denoise, jnp.asarray(clean, jnp.float32), run)
    np.testing.assert_allclose(noisy, x, atol=0.05)  # of first order
    back = sample(make_solver("ddim"), denoise, noisy, run).x
    np.testing.assert_allclose(back, clean, atol=0.05)
    turned = reverse(run)
    assert turned.final[-1] and not turned.final[:-1].any()
    np.testing.assert_array_equal(turned.sigma, run.sigma[::-1])


def test_a_clean_example_is_inverted_by_what_is_known_at_the_level_before():
    """The last level has no noise, where x0 from a network would say nothing of eps."""
    run = arc(100, last=0.0)
    x = marginal(8, run)
    clean = flow(x, run)

    def x0_network(x, level):
        x0 = denoise(x, level).x0
        return Prediction(x0, (x - level.alpha * x0) / level.sigma)

    draw = jax.jit(lambda noisy: sample(make_solver("ddim"), x0_network, noisy, run).x)
    noisy = jax.jit(lambda x: invert(x0_network, x, run))(jnp.asarray(clean, jnp.float32))
    np.testing.assert_allclose(noisy, x, atol=0.1)  # of first order
    np.testing.assert_allclose(draw(noisy), clean, atol=0.1)
