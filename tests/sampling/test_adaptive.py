"""The adaptive probability flow against the exact one of Gaussian data, and back again."""

import jax
import jax.numpy as jnp
import numpy as np
from gaussian import arc, denoise, flow, marginal

from ldm_jax.diffusion.parameterization import make_denoiser
from ldm_jax.diffusion.processes import VP
from ldm_jax.sampling import adaptive
from ldm_jax.sampling.inversion import invert, reverse
from ldm_jax.sampling.levels import levels, levels_at
from ldm_jax.sampling.loop import sample
from ldm_jax.sampling.solvers import make_solver


def test_the_flow_of_continuous_time():
    process = VP()
    run = levels_at(process, np.array([1.0, 0.01]), "one")
    ends = jax.tree.map(lambda values: values[:2], run)

    down = jax.jit(lambda x: adaptive.flow(process, denoise, x, 1.0, 0.01))
    x = marginal(16, ends)
    got = down(x)
    np.testing.assert_allclose(got, flow(x, ends), atol=2e-4)  # some 100 steps of 1e-5 each

    def marked(x, level):
        found = denoise(x, level)
        return found._replace(eps=found.eps + 0 * jnp.sin(x))

    marks = jax.jit(lambda x: adaptive.flow(process, marked, x, 1.0, 0.01)).lower(x).as_text()
    assert marks.count("stablehlo.sine") == 1
    up = jax.jit(lambda x: adaptive.flow(process, denoise, x, 0.01, 1.0))
    np.testing.assert_allclose(up(got), x, atol=2e-3)  # 10 times the error, as it spreads


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


def test_inversion_begins_at_a_clean_example():
    """Where the last level has no noise its step divides by none."""
    process = VP()

    def network(x, t):
        """eps for standard normal data, for which the flow of this process stands still."""
        return process.sigma_at(t / 999)[:, None] * x

    run = levels(process, 20, "karras", "one")
    x = jnp.linspace(-1, 1, 8).reshape(4, 2)
    noisy = jax.jit(lambda x: invert(make_denoiser(network, "eps", process), x, run))(x)
    np.testing.assert_allclose(noisy, x, atol=0.15)  # of first order, in 20 steps
