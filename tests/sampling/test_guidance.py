"""Guidance: one call, ordered [uncond, cond], the right distribution, and scales by level."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.core.typing import Level, Prediction
from ldm_jax.sampling.guidance import (
    NO_GUIDANCE,
    Guidance,
    autoguidance,
    by_picture_and_text,
    classifier_free,
    rescaled,
    scale_at,
    scheduled,
    threshold,
)

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


# ------------------------------------------------------------------- by a picture and a text

PICTURED = {"mean": jnp.array([0.2, 0.4, -1.0]), "std": jnp.array([0.7, 0.9, 0.4])}


def test_two_scales_in_closed_form():
    got = by_picture_and_text(denoise_of, COND, PICTURED, UNCOND, 7.5, 1.5)(X, LEVEL)
    nothing, picture, both = (denoise_of(X, LEVEL, c) for c in (UNCOND, PICTURED, COND))
    for name in ("eps", "x0"):
        e0, e1, e2 = (getattr(one, name) for one in (nothing, picture, both))
        expected = e0 + 1.5 * (e1 - e0) + 7.5 * (e2 - e1)
        np.testing.assert_allclose(getattr(got, name), expected, atol=1e-5)
    np.testing.assert_allclose(ALPHA * got.x0 + SIGMA * got.eps, X, atol=1e-5)


def test_equal_scales_are_classifier_free_guidance():
    got = by_picture_and_text(denoise_of, COND, PICTURED, UNCOND, 3.0, 3.0)(X, LEVEL)
    expected = classifier_free(denoise_of, COND, UNCOND, 3.0)(X, LEVEL)
    np.testing.assert_allclose(got.eps, expected.eps, atol=1e-5)


def test_one_call_with_nothing_then_the_picture_then_both():
    calls = []

    def spy(x, level, cond):
        calls.append((x, cond))
        return denoise_of(x, level, cond)

    Guidance(scale=2.0, rescale=0.5).denoiser(spy, COND, UNCOND, PICTURED)(X, LEVEL)
    ((x, cond),) = calls
    np.testing.assert_array_equal(x, np.concatenate([X, X, X]))
    each = [UNCOND["std"], PICTURED["std"], COND["std"]]
    np.testing.assert_array_equal(cond["std"], np.concatenate(each))
    assert NO_GUIDANCE.image_scale == 1.5


def test_both_scales_follow_the_schedule():
    """Outside of its interval guidance of both kinds is off."""
    guidance = Guidance(scale=7.5, interval=(2.0, 3.0))
    got = guidance.denoiser(denoise_of, COND, UNCOND, PICTURED)(X, LEVEL)
    np.testing.assert_allclose(got.eps, denoise_of(X, LEVEL, COND).eps, atol=1e-5)


# ------------------------------------------------------------------- beside classifier-free


def wide(x, level):
    """A picture per row, of which no axis is special."""
    return Prediction(x0=3 * x, eps=(x - ALPHA * 3 * x) / SIGMA)


def test_the_variance_is_the_conditional_one():
    def learned(x, level, cond):
        return denoise_of(x, level, cond)._replace(variance=jnp.broadcast_to(
            cond["mean"][:, None], x.shape
        ))  # fmt: skip

    got = classifier_free(learned, COND, UNCOND, 3.0, 0.5)(X, LEVEL)
    np.testing.assert_array_equal(got.variance, np.repeat(COND["mean"][:, None], 2, axis=1))


@pytest.mark.parametrize("alpha", [ALPHA, 0.0])
def test_full_rescaling_gives_v_the_conditional_spread(alpha):
    level = LEVEL._replace(alpha=jnp.float32(alpha), sigma=jnp.float32((1 - alpha**2) ** 0.5))
    given = Prediction(x0=0.5 * X, eps=(1 - 0.5 * alpha) * X / level.sigma)
    guided = Prediction(x0=3.0 * X, eps=(1 - 3.0 * alpha) * X / level.sigma)

    def spread(p):
        return np.std(level.alpha * p.eps - level.sigma * p.x0, axis=1)

    whole, half, none = (rescaled(guided, given, X, level, share) for share in (1.0, 0.5, 0.0))
    np.testing.assert_allclose(spread(whole), spread(given), rtol=1e-5)
    np.testing.assert_allclose(spread(half), (spread(given) + spread(guided)) / 2, rtol=1e-5)
    np.testing.assert_allclose(none.x0, guided.x0, rtol=1e-5)
    for got in (whole, half):
        np.testing.assert_allclose(level.alpha * got.x0 + level.sigma * got.eps, X, atol=1e-5)


def test_autoguidance_extrapolates_from_the_weaker_model():
    strong, weak = (lambda x, t, c=c: denoise_of(x, t, c) for c in (COND, UNCOND))
    got = autoguidance(strong, weak, 2.5)(X, LEVEL)
    expected = classifier_free(denoise_of, COND, UNCOND, 2.5)(X, LEVEL)
    np.testing.assert_allclose(got.x0, expected.x0, atol=1e-6)
    np.testing.assert_allclose(got.eps, expected.eps, atol=1e-6)
    alone = autoguidance(strong, weak, 1.0)(X, LEVEL)
    np.testing.assert_allclose(alone.x0, strong(X, LEVEL).x0, atol=1e-6)


def test_thresholding_brings_x0_into_range_and_keeps_what_is_there():
    x = jnp.concatenate([jnp.linspace(-1, 1, 9)[None], jnp.linspace(-0.3, 0.3, 9)[None]])
    got = jax.jit(lambda q, b: threshold(wide, q, b)(x, LEVEL))(jnp.float32(0.75), 1.0)
    # |x0| of the first row is 0 to 3 and its 75th percentile 2.25; the second stays below 1.
    expected = np.stack([np.clip(3 * x[0], -2.25, 2.25) / 2.25, 3 * x[1]])
    np.testing.assert_allclose(got.x0, expected, atol=1e-6)
    np.testing.assert_allclose(ALPHA * got.x0 + SIGMA * got.eps, x, atol=1e-6)
    looser = threshold(wide, 1.0, 3.0)(x, LEVEL)
    np.testing.assert_allclose(looser.x0, 3 * x, atol=1e-6)


# ------------------------------------------------------------------- scales over the noise levels

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
