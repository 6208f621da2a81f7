"""The optimiser: learning-rate schedules, clipping, and what decays."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldm_jax import config as cfg
from ldm_jax.training.gradients import descend
from ldm_jax.training.optim import (
    learning_rate,
    make_diffusion_optimizer,
    make_optimizer,
    schedule_note,
)


def rate(step, steps=100, **settings):
    return float(learning_rate(cfg.Optim(learning_rate=2.0, **settings), steps)(step))


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warm_up_is_linear_from_zero(schedule):
    found = [rate(step, schedule=schedule, warmup_steps=10) for step in (0, 5, 10)]
    np.testing.assert_allclose(found, [0, 1, 2], atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "middle", "end"), [("constant", 2, 2), ("linear", 1, 0), ("cosine", 1, 0)]
)
@pytest.mark.parametrize("warmup", [0, 20])
def test_schedules_fall_from_the_end_of_warm_up_to_the_last_step(schedule, middle, end, warmup):
    half = warmup + (100 - warmup) // 2
    found = [rate(step, schedule=schedule, warmup_steps=warmup) for step in (warmup, half, 100)]
    np.testing.assert_allclose(found, [2, middle, end], atol=1e-6)


def test_a_run_that_becomes_longer_is_told_how_its_rate_changes():
    optim = cfg.Optim(learning_rate=2.0, schedule="linear")
    assert schedule_note(optim, 100, 400, 100) == (
        "loop.steps was 100 and is 400, where the linear schedule ends: the learning rate goes on "
        "at 1.5 instead of 0"
    )
    assert schedule_note(optim, 100, 400, 0).endswith("the learning rate goes on at 2 as before")
    assert not schedule_note(optim, 100, 100, 50)
    assert not schedule_note(cfg.Optim(schedule="constant"), 100, 400, 100)


def update(optim, gradients, params):
    optimizer = make_optimizer(optim, 10)
    with jax.numpy_dtype_promotion("standard"):
        return optimizer.update(gradients, optimizer.init(params), params)[0]


def test_the_first_adam_step_is_the_sign_times_the_rate():
    gradients = {"kernel": jnp.array([[3.0, -0.5]]), "bias": jnp.array([-7.0])}
    found = update(cfg.Optim(learning_rate=0.1, clip_norm=None), gradients, gradients)
    np.testing.assert_allclose(found["kernel"], [[-0.1, 0.1]], rtol=1e-5)
    np.testing.assert_allclose(found["bias"], [0.1], rtol=1e-5)


def test_decay_is_decoupled_and_spares_biases_and_scales():
    params = {"kernel": jnp.full((2, 2), 4.0), "bias": jnp.full(2, 4.0)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    found = update(cfg.Optim(learning_rate=0.1, weight_decay=0.5), zeros, params)
    np.testing.assert_allclose(found["kernel"], np.full((2, 2), -0.1 * 0.5 * 4), rtol=1e-6)
    np.testing.assert_array_equal(found["bias"], np.zeros(2))


def test_gradients_are_clipped_by_their_global_norm():
    # Adam's first step is rate * gradient / (|gradient| + eps).
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    gradients = {"a": jnp.array([30.0]), "b": jnp.array([40.0])}
    for clip_norm, seen in ((1.0, (0.6, 0.8)), (None, (30.0, 40.0))):
        optim = cfg.Optim(learning_rate=1.0, eps=1.0, clip_norm=clip_norm)
        found = update(optim, gradients, params)
        expected = [-gradient / (gradient + 1) for gradient in seen]
        np.testing.assert_allclose([found["a"][0], found["b"][0]], expected, rtol=1e-5)


def test_a_rate_for_a_text_encoder_that_does_not_train_is_refused():
    run = replace(cfg.load("image_folder_text2img"), text_encoder_learning_rate=1e-6)
    optimizer = make_diffusion_optimizer(run)
    with pytest.raises(cfg.ConfigError, match="nothing of the text encoder trains"):
        optimizer.init({"unet": {"conv_in": {"kernel": jnp.ones(2)}}, "conditioners": {}})


def test_a_first_moment_of_half_the_bytes_steps_about_the_same():
    params = {"kernel": jnp.ones((4, 4))}
    steps = {}
    for dtype in ("float32", "bfloat16"):
        optimizer = make_optimizer(cfg.Optim(learning_rate=0.1, moment_dtype=dtype), 10)
        state, new = optimizer.init(params), params
        for i in range(3):
            gradients = jax.tree.map(lambda leaf, i=i: 0.01 * (i + 1) * leaf, new)
            new, state, _ = descend(optimizer, gradients, state, new)
        adam = optax.tree.get(state, "mu")["kernel"], optax.tree.get(state, "nu")["kernel"]
        assert [moment.dtype for moment in adam] == [dtype, "float32"]
        steps[dtype] = np.asarray(new["kernel"] - params["kernel"])
    # bfloat16 keeps eight bits.
    np.testing.assert_allclose(steps["bfloat16"], steps["float32"], rtol=2**-7)
