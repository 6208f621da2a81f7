"""q_sample, target and to_prediction are one another's inverses for every kind of network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion.parameterization import make_denoiser, q_sample, target, to_prediction
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.typing import Level

SCHEDULE = NoiseSchedule.create("scaled_linear", 1000)

KINDS = ["eps", "x0", "v"]


def _case(exploding: bool):
    rng = np.random.default_rng(0)
    x0, eps = (jnp.asarray(rng.normal(size=(4, 2, 3, 5)), jnp.float32) for _ in range(2))
    if exploding:
        return x0, eps, jnp.ones(4), jnp.array([0.1, 1.0, 2.0, 5.0])
    angle = jnp.array([0.1, 0.5, 1.0, 1.4])
    return x0, eps, jnp.cos(angle), jnp.sin(angle)


@pytest.mark.parametrize("exploding", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind, exploding):
    x0, eps, alpha, sigma = _case(exploding)
    x = q_sample(x0, eps, alpha, sigma)
    got = to_prediction(target(x0, eps, alpha, sigma, kind), x, alpha, sigma, kind)
    np.testing.assert_allclose(got.x0, x0, atol=2e-5)
    np.testing.assert_allclose(got.eps, eps, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_both_parts_describe_the_same_x(kind):
    x, output, alpha, sigma = _case(exploding=False)
    got = to_prediction(output, x, alpha, sigma, kind)
    np.testing.assert_allclose(q_sample(got.x0, got.eps, alpha, sigma), x, atol=2e-5)


def test_half_precision_outputs_become_float32():
    x0, eps, alpha, sigma = _case(exploding=False)
    got = to_prediction(eps.astype(jnp.bfloat16), x0, alpha, sigma, "v")
    assert got.x0.dtype == got.eps.dtype == jnp.float32


@pytest.mark.parametrize("exploding", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_denoiser_takes_its_scales_from_the_level(kind, exploding):
    x0, eps, *scales = _case(exploding)
    alpha, sigma = (values[2] for values in scales)
    level = Level(jnp.float32(500.25), alpha, sigma, jnp.zeros((), bool))
    rows = [jnp.full(4, value) for value in (alpha, sigma)]
    asked = []

    def network(x, t):
        asked.append((t.shape, t.dtype))
        return target(x0, eps, *rows, kind) + 0 * t.reshape(4, 1, 1, 1)

    got = jax.jit(make_denoiser(network, kind, SCHEDULE))(q_sample(x0, eps, *rows), level)
    assert asked == [((4,), jnp.float32)]
    np.testing.assert_allclose(got.x0, x0, atol=2e-5)
    np.testing.assert_allclose(got.eps, eps, atol=2e-5)
