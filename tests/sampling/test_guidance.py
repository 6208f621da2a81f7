"""Classifier-free guidance: one call, ordered [uncond, cond], and the right distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.sampling.guidance import classifier_free
from ldm_jax.typing import Level, Prediction

SIGMA = 0.6
ALPHA = 0.8


def denoise_of(x, level, cond):
    """The exact denoiser of N(mean, std^2), both given by the condition."""
    mean, std = cond["mean"][:, None], cond["std"][:, None]
    gain = ALPHA * std**2 / (ALPHA**2 * std**2 + SIGMA**2)
    x0 = mean + gain * (x - ALPHA * mean)
    return Prediction(x0=x0, eps=(x - ALPHA * x0) / SIGMA)


X = jnp.array([[0.3, -1.0], [2.0, 0.1], [0.0, 1.0]])
LEVEL = Level(jnp.float32(3.0), jnp.float32(ALPHA), jnp.float32(SIGMA), jnp.zeros((), bool))
COND = {"mean": jnp.array([1.0, -1.0, 0.5]), "std": jnp.array([0.5, 0.2, 0.3])}
UNCOND = {"mean": jnp.zeros(3), "std": jnp.ones(3)}


@pytest.mark.parametrize(("scale", "same"), [(1.0, COND), (0, UNCOND)])
def test_scales_one_and_zero(scale, same):
    got = classifier_free(denoise_of, COND, UNCOND, scale)(X, LEVEL)
    expected = denoise_of(X, LEVEL, same)
    np.testing.assert_allclose(got.eps, expected.eps, atol=1e-6)
    np.testing.assert_allclose(got.x0, expected.x0, atol=1e-6)


def test_x0_and_eps_stay_consistent_with_a_traced_scale():
    got = jax.jit(lambda s: classifier_free(denoise_of, COND, UNCOND, s)(X, LEVEL))(
        jnp.float32(7.5)
    )
    np.testing.assert_allclose(ALPHA * got.x0 + SIGMA * got.eps, X, atol=1e-5)
    u, c = denoise_of(X, LEVEL, UNCOND).eps, denoise_of(X, LEVEL, COND).eps
    np.testing.assert_allclose(got.eps, u + 7.5 * (c - u), atol=1e-5)


def test_guided_score_is_that_of_the_tilted_gaussian():
    """p(x) (p(x|c) / p(x))^s of Gaussians is Gaussian: precisions and their means add up."""
    scale = 3.0
    got = classifier_free(denoise_of, COND, UNCOND, scale)(X, LEVEL)

    def marginal(cond):
        return ALPHA * cond["mean"], 1 / (ALPHA**2 * cond["std"] ** 2 + SIGMA**2)

    (mean_u, precision_u), (mean_c, precision_c) = marginal(UNCOND), marginal(COND)
    precision = (1 - scale) * precision_u + scale * precision_c
    mean = ((1 - scale) * precision_u * mean_u + scale * precision_c * mean_c) / precision
    score = -(X - mean[:, None]) * precision[:, None]
    np.testing.assert_allclose(-got.eps / SIGMA, score, rtol=1e-4, atol=1e-5)


def test_one_call_with_the_unconditional_half_first():
    calls = []

    def spy(x, level, cond):
        calls.append((x, level, cond))
        return denoise_of(x, level, cond)

    classifier_free(spy, COND, UNCOND, 2.0)(X, LEVEL)
    ((x, level, cond),) = calls
    np.testing.assert_array_equal(x, np.concatenate([X, X]))
    assert level is LEVEL
    np.testing.assert_array_equal(cond["std"], np.concatenate([UNCOND["std"], COND["std"]]))


def test_conditions_must_match():
    with pytest.raises(ValueError, match="structure"):
        classifier_free(denoise_of, COND, {"mean": jnp.zeros(3)}, 2.0)
    with pytest.raises(ValueError, match=r"cond\['std'\] is float32\[3\].*float32\[1\]"):
        classifier_free(denoise_of, COND, UNCOND | {"std": jnp.ones(1)}, 2.0)
