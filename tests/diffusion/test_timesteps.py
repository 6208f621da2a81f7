"""Times follow their distributions, do not depend on the split, and importance weights are fair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ldm_jax.core import rngs
from ldm_jax.diffusion import timesteps
from ldm_jax.diffusion.processes import EDM, VP, RectifiedFlow
from ldm_jax.diffusion.schedules import NoiseSchedule

KEY = rngs.stream(0, "test")
INDEX = jnp.arange(4096, dtype=jnp.uint32)
observe = jax.jit(timesteps.SecondMoment.observe)
probabilities = jax.jit(timesteps.SecondMoment.probabilities)


@pytest.fixture(scope="module")
def uniform():
    return timesteps.independent(KEY, INDEX)


@pytest.fixture(scope="module")
def spread():
    return timesteps.low_discrepancy(KEY, INDEX, 16)


def test_low_discrepancy_has_one_time_in_each_part(spread):
    batches = np.asarray(spread).reshape(-1, 16)
    assert batches.min() >= 0 and batches.max() < 1
    parts = np.sort(np.floor(np.asarray(batches) * 16), axis=1)
    # at the edge of a part rounding may go either way
    assert np.mean(parts == np.arange(16)) > 0.999
    assert len(np.unique(batches[:, 0])) == 256, "each batch has an offset of its own"


def test_low_discrepancy_is_uniform_and_varies_less(uniform, spread):
    for row in (0, 5):
        assert stats.kstest(np.asarray(spread)[row::16], "uniform").pvalue > 1e-3
    even, independent = (
        np.asarray(jnp.sin(3 * u)).reshape(-1, 16).mean(1) for u in (spread, uniform)
    )
    assert np.var(even) < np.var(independent) / 50
    assert np.mean(even) == pytest.approx((1 - np.cos(3)) / 3, abs=1e-3)


def test_low_discrepancy_does_not_depend_on_the_split(spread):
    parts = [timesteps.low_discrepancy(KEY, INDEX[16 + i : 32 : 4], 16) for i in range(4)]
    together = jnp.stack(parts, axis=1).reshape(-1)
    np.testing.assert_array_equal(together, spread[16:32])


def test_logit_normal(spread):
    u = np.asarray(timesteps.logit_normal(spread, 0.5, 1.5), np.float64)
    assert u.min() >= 0 and u.max() < 1
    assert stats.kstest(np.log(u / (1 - u)), "norm", args=(0.5, 1.5)).pvalue > 1e-3


@pytest.mark.parametrize(
    "process", [VP(), EDM(), RectifiedFlow(), NoiseSchedule.create("cosine", 1000)],
    ids=lambda process: type(process).__name__,
)  # fmt: skip
def test_log_normal_noise_on_any_process(process, spread):
    u = timesteps.log_normal(spread, timesteps.log_noise(process), -0.5, 0.8)
    assert np.all((u >= 0) & (u < 1))
    t = process.time_at(u)
    ratio = np.log(np.asarray(process.sigma_at(t))) - np.log(np.asarray(process.alpha_at(t)))
    quantiles = np.quantile(ratio, [0.1, 0.5, 0.9])
    # timesteps of a discrete process are some 0.01 apart
    np.testing.assert_allclose(quantiles, stats.norm.ppf([0.1, 0.5, 0.9], -0.5, 0.8), atol=0.03)


def test_second_moment_remembers_the_latest_ten_losses_as_one_after_the_other():
    rng = np.random.default_rng(0)
    state, kept = timesteps.SecondMoment.create(5), [[] for _ in range(5)]
    for _ in range(6):
        t, losses = rng.choice(5, 40, p=[0.02, 0.08, 0.2, 0.3, 0.4]), rng.uniform(size=40)
        state = observe(state, jnp.asarray(t), jnp.asarray(losses, jnp.float32))
        for step, loss in zip(t, losses, strict=True):
            kept[step].append(loss)
    for step in range(5):
        latest = np.zeros(10)
        latest[: len(kept[step][-10:])] = kept[step][-10:]
        np.testing.assert_allclose(np.sort(state.history[step]), np.sort(latest), rtol=1e-6)
        assert state.count[step] == len(kept[step])


def test_second_moment_is_even_until_warm_and_then_follows_the_losses():
    state = timesteps.SecondMoment.create(4)
    even = np.full(4, 0.25)
    np.testing.assert_array_equal(probabilities(state), even)
    t = jnp.repeat(jnp.arange(4), 10)
    losses = jnp.where(t == 2, 3.0, 1.0)
    short = observe(state, jnp.where(t == 1, 2, t).at[10].set(1), losses)
    np.testing.assert_array_equal(probabilities(short), even)
    p = probabilities(observe(state, t, losses))
    np.testing.assert_allclose(p, 0.999 * np.array([1, 1, 3, 1]) / 6 + 0.001 / 4, rtol=1e-5)
    zero = probabilities(observe(state, t, jnp.zeros(40)))
    np.testing.assert_allclose(zero, even, rtol=1e-6)


def test_importance_sampling_is_unbiased_and_varies_less(uniform):
    losses = np.array([9.0, 1.0, 0.5, 0.1, 4.0])
    history = jnp.tile(jnp.asarray(losses, jnp.float32)[:, None], (1, 10))
    state = timesteps.SecondMoment(history, jnp.full(5, 10))
    t, weight = timesteps.by_probability(uniform, state.probabilities())
    drawn = np.bincount(np.asarray(t), minlength=5) / len(t)
    np.testing.assert_allclose(drawn, state.probabilities(), atol=0.02)
    weighted = np.asarray(weight) * losses[np.asarray(t)]
    # where losses are what they were, each weighted loss is the mean itself, but for 0.1%
    assert np.mean(weighted) == pytest.approx(losses.mean(), rel=2e-3)
    assert np.std(weighted) < 0.05 * np.std(losses)
    # unbiased for any losses: sum p w f = mean f
    p, at = state.probabilities(), jnp.arange(5)
    np.testing.assert_allclose(np.sum(p / (5 * p) * np.exp(at)), np.mean(np.exp(at)), rtol=1e-5)


def test_quantiles_reach_every_timestep_and_never_beyond():
    p = jnp.full(1000, 1 / 1000)
    t, _ = timesteps.by_probability(jnp.array([0.0, 0.5, 1 - 2.0**-24]), p)
    assert t[0] == 0 and abs(int(t[1]) - 500) <= 1 and t[2] == 999
