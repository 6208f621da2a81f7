"""The training state and the average of its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldm_jax.training.state import create_state, ema_decay_at, update_ema

OPTIMIZER = optax.sgd(0.1)


def test_the_decay_warms_up_to_its_bound():
    def decay(step):
        return float(ema_decay_at(jnp.int32(step), 0.99))

    assert decay(0) == pytest.approx(1 / 10)
    assert decay(90) == pytest.approx(91 / 100)
    assert decay(10**6) == pytest.approx(0.99)


def test_the_average_has_its_closed_form():
    """e_n = sum_i x_i (1 - d_i) prod_{j > i} d_j + e_0 prod_j d_j, in float64."""
    values = np.random.default_rng(0).normal(size=60).astype(np.float32)
    ema = {"w": jnp.float32(2.0)}
    for step, value in enumerate(values):
        ema = update_ema(ema, {"w": jnp.asarray(value)}, jnp.int32(step), 0.8)
    decays = np.minimum(0.8, (1 + np.arange(60)) / (10 + np.arange(60)))
    kept = np.append(np.cumprod(decays[::-1])[::-1], 1.0)
    expected = 2.0 * kept[0] + np.sum(values * (1 - decays) * kept[1:])
    np.testing.assert_allclose(float(ema["w"]), expected, rtol=1e-5)


def test_a_constant_is_its_own_average():
    ema = {"w": jnp.float32(0.1)}
    for step in range(20):
        ema = update_ema(ema, {"w": jnp.float32(0.1)}, jnp.int32(step), 0.9)
    assert ema["w"] == jnp.float32(0.1)


def test_what_is_evaluated():
    params = {"w": jnp.ones(3)}
    with_average = create_state(params, OPTIMIZER, 0.9)
    assert int(with_average.step) == 0
    np.testing.assert_array_equal(with_average.ema_params["w"], params["w"])
    # A donated state must not hold one buffer twice.
    assert with_average.ema_params["w"] is not params["w"]
    moved = with_average.replace(ema_params={"w": jnp.zeros(3)})
    assert moved.eval_params["w"][0] == 0
    without = create_state(params, OPTIMIZER, None)
    assert without.ema_params == {} and without.eval_params["w"] is params["w"]


def test_a_state_is_made_abstractly():
    state = jax.eval_shape(lambda: create_state({"w": jnp.ones((2, 3))}, OPTIMIZER, 0.9))
    assert state.ema_params["w"].shape == (2, 3)
