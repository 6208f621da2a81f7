"""q_sample, target and to_prediction are one another's inverses for every kind of network."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_jax.core.names import PredictionKind
from ldm_jax.core.typing import Level
from ldm_jax.diffusion.parameterization import (
    make_denoiser,
    network_input,
    q_sample,
    target,
    to_prediction,
)
from ldm_jax.diffusion.processes import EDM, VE, VP, RectifiedFlow, SubVP
from ldm_jax.diffusion.schedules import NoiseSchedule

SCHEDULE = NoiseSchedule.create("scaled_linear", 1000)
PROCESSES = [VP(), SubVP(), VE(), EDM(), RectifiedFlow(), SCHEDULE]
KINDS = get_args(PredictionKind)
BLIND = ("eps", "score")  # they say nothing of x0 where alpha is 0
SIGMA_DATA = 0.5


def _data(rows: int = 4):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(rows, 2, 3, 5)), jnp.float32) for _ in range(2))


def _case(exploding: bool):
    if exploding:
        return *_data(), jnp.ones(4), jnp.array([0.1, 1.0, 2.0, 5.0])
    angle = jnp.array([0.1, 0.5, 1.0, 1.4])
    return *_data(), jnp.cos(angle), jnp.sin(angle)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(
    process=st.sampled_from(PROCESSES), share=st.floats(0.01, 0.98), sigma_data=st.floats(0.2, 3.0)
)
def test_round_trip(kind, process, share, sigma_data):
    (x0, eps), t = _data(1), process.t_min + share * (process.t_max - process.t_min)
    scales = [jnp.float32(at(np.array([t]))) for at in (process.alpha_at, process.sigma_at)]
    x = q_sample(x0, eps, *scales)
    output = target(x0, eps, *scales, kind, sigma_data)
    got = to_prediction(output, x, *scales, kind, sigma_data)
    # float32 rounding of x, 1e-6, comes back divided by a scale of x where one part is found
    # from the other.
    alpha, sigma = (float(scale[0]) for scale in scales)
    np.testing.assert_allclose(got.x0, x0, atol=1e-5 * max(1, sigma / alpha))
    np.testing.assert_allclose(got.eps, eps, atol=1e-5 * max(1, alpha / sigma))


@pytest.mark.parametrize("kind", KINDS)
def test_both_parts_describe_the_same_x(kind):
    x, output, alpha, sigma = _case(exploding=False)
    got = to_prediction(output, x, alpha, sigma, kind)
    np.testing.assert_allclose(q_sample(got.x0, got.eps, alpha, sigma), x, atol=2e-5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in BLIND])
def test_nothing_is_divided_by_an_alpha_of_0(kind):
    (x0, eps), alpha, sigma = _data(), jnp.zeros(4), jnp.ones(4)
    x = q_sample(x0, eps, alpha, sigma)
    got = to_prediction(target(x0, eps, alpha, sigma, kind), x, alpha, sigma, kind)
    np.testing.assert_allclose(got.x0, x0, atol=1e-6)
    np.testing.assert_allclose(got.eps, eps, atol=1e-6)


def test_score_and_velocity_are_derivatives():
    """The score is that of N(alpha x0, sigma^2), the velocity dx/dt of rectified flow."""
    x0, eps, alpha, sigma = _case(exploding=False)
    x = q_sample(x0, eps, alpha, sigma)
    rows = [value.reshape(4, 1, 1, 1) for value in (alpha, sigma)]
    score = jax.grad(lambda x: -jnp.sum((x - rows[0] * x0) ** 2 / (2 * rows[1] ** 2)))(x)
    np.testing.assert_allclose(target(x0, eps, alpha, sigma, "score"), score, atol=1e-4)
    t = jnp.full(4, 0.3, jnp.float32)
    _, change = jax.jvp(lambda t: q_sample(x0, eps, 1 - t, t), (t,), (jnp.ones(4),))
    np.testing.assert_allclose(target(x0, eps, 1 - t, t, "velocity"), change, atol=1e-6)


@pytest.mark.parametrize("exploding", [False, True])
def test_edm_is_karras_preconditioning(exploding):
    """D = c_skip y + c_out F(c_in y) of Karras 2022, table 1, with y = x / alpha, in float64."""
    x0, eps, alpha, sigma = _case(exploding)
    y = np.asarray(q_sample(x0, eps, alpha, sigma) / alpha.reshape(4, 1, 1, 1), np.float64)
    r = np.asarray(sigma / alpha, np.float64).reshape(4, 1, 1, 1)
    power = r**2 + SIGMA_DATA**2
    skip, out, scale = SIGMA_DATA**2 / power, r * SIGMA_DATA / np.sqrt(power), 1 / np.sqrt(power)
    x = q_sample(x0, eps, alpha, sigma)
    network = network_input(x, alpha, sigma, "edm", SIGMA_DATA)
    np.testing.assert_allclose(network, scale * y, atol=1e-5)
    found = target(x0, eps, alpha, sigma, "edm", SIGMA_DATA)
    np.testing.assert_allclose(found, (x0 - skip * y) / out, atol=1e-4)
    output = jnp.ones_like(x)
    got = to_prediction(output, x, alpha, sigma, "edm", SIGMA_DATA)
    np.testing.assert_allclose(got.x0, skip * y + out * output, atol=1e-5)


def test_half_precision_outputs_become_float32():
    x0, eps, alpha, sigma = _case(exploding=False)
    got = to_prediction(eps.astype(jnp.bfloat16), x0, alpha, sigma, "v")
    assert got.x0.dtype == got.eps.dtype == jnp.float32


@pytest.mark.parametrize("process", [VE(), SCHEDULE], ids=["VE", "discrete"])
@pytest.mark.parametrize("kind", KINDS)
def test_denoiser_takes_its_scales_from_the_level(kind, process):
    x0, eps = _data()
    t = np.float64(0.25 * process.t_max)
    alpha, sigma = (jnp.float32(at(t)) for at in (process.alpha_at, process.sigma_at))
    level = Level(jnp.float32(t), alpha, sigma, jnp.zeros((), bool))
    rows = [jnp.full(4, value) for value in (alpha, sigma)]

    def network(x, told):
        assert (told.shape, told.dtype) == ((4,), jnp.float32)
        # What is told is the only thing that this network knows of the level.
        right = jnp.abs(told - process.network_time(t)) < 1e-3
        answer = target(x0, eps, *rows, kind, SIGMA_DATA)
        return jnp.where(right.reshape(4, 1, 1, 1), answer, jnp.nan)

    denoise = make_denoiser(network, kind, process, sigma_data=SIGMA_DATA)
    got = jax.jit(denoise)(q_sample(x0, eps, *rows), level)
    np.testing.assert_allclose(got.x0, x0, atol=2e-5)
    np.testing.assert_allclose(got.eps, eps, atol=2e-4)
    assert got.variance is None


def test_learned_variance_is_the_second_half_of_the_channels():
    x, _ = _data()
    level = Level(*(jnp.float32(v) for v in (300, 0.8, 0.6)), jnp.zeros((), bool))
    ends = jnp.broadcast_to(jnp.array([-1.0, -1.0, 1.0, 1.0, 1.0]), x.shape)

    def network(x, t):
        return jnp.concatenate([0.3 * x, ends], axis=-1)

    got = make_denoiser(network, "eps", SCHEDULE, learned_variance=True)(x, level)
    np.testing.assert_allclose(got.eps, 0.3 * x, rtol=1e-6)
    np.testing.assert_array_equal(got.variance[0, 0, 0], [0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match="5 channels; a learned variance needs an even"):
        make_denoiser(lambda x, t: x, "eps", SCHEDULE, learned_variance=True)(x, level)
