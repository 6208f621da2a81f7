"""The loss is one float32 number per example; min-SNR weights make all networks one loss on x0."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion.losses import min_snr_weight, simple_loss
from ldm_jax.diffusion.parameterization import q_sample, target


def test_simple_loss_is_per_example_and_float32():
    output = jnp.zeros((2, 2, 2, 1), jnp.bfloat16).at[1].set(3.0)
    loss = simple_loss(output, jnp.ones((2, 2, 2, 1)))
    assert loss.dtype == jnp.float32
    np.testing.assert_array_equal(loss, [1.0, 4.0])


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_min_snr_weight_is_the_same_loss_on_x0(kind):
    alpha_bar = jnp.array([0.99, 0.5, 0.1])
    alpha, sigma = jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)
    x0, eps, error = jnp.ones((3, 4)), jnp.full((3, 4), 0.5), 0.1
    x = q_sample(x0, eps, alpha, sigma)
    guess = x0 + error
    guess_eps = (x - alpha[:, None] * guess) / sigma[:, None]
    loss = simple_loss(
        target(guess, guess_eps, alpha, sigma, kind), target(x0, eps, alpha, sigma, kind)
    )
    snr = np.asarray(alpha_bar / (1 - alpha_bar))
    np.testing.assert_allclose(
        min_snr_weight(alpha_bar, 5.0, kind) * loss, np.minimum(snr, 5.0) * error**2, rtol=1e-4
    )
