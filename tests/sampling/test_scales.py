"""Guidance scales by level: schedules have the mean they promise, intervals end where they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.core.typing import Level
from ldm_jax.sampling.scales import scale_at, scheduled

ANGLE = np.linspace(0, np.pi / 2, 2001)
LEVELS = Level(
    jnp.asarray(1000 * ANGLE, jnp.float32), jnp.asarray(np.cos(ANGLE), jnp.float32),
    jnp.asarray(np.sin(ANGLE), jnp.float32), jnp.zeros(ANGLE.size, bool),
)  # fmt: skip


def over_levels(*arguments):
    return np.asarray(jax.vmap(lambda level: scale_at(scheduled(*arguments), level))(LEVELS))


def test_a_constant_scale_is_itself():
    assert scheduled(4.0) == 4.0
    assert scale_at(4.0, LEVELS) == 4.0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_rise_as_noise_falls_and_have_the_scale_as_their_mean(schedule):
    scales = over_levels(4.0, schedule)
    assert (np.diff(scales) <= 0).all()
    np.testing.assert_allclose(scales[[0, -1]], [7.0, 1.0], atol=1e-5)
    np.testing.assert_allclose(scales.mean(), 4.0, atol=1e-3)  # 2001 points


def test_guidance_only_within_the_interval():
    scales, ratio = over_levels(4.0, "constant", (0.5, 2.0)), np.tan(ANGLE)
    inside = (ratio > 0.5) & (ratio <= 2.0)
    np.testing.assert_array_equal(scales, np.where(inside, 4.0, 1.0))
    half_open = over_levels(4.0, "constant", (0.5, np.inf))
    np.testing.assert_array_equal(half_open, np.where(ratio > 0.5, 4.0, 1.0))
