"""What every solver must do, on Gaussian data and on data that is a point."""

from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian import COV, MEAN, denoise, flow, keys, marginal

from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.sampling.ancestral import DDIM
from ldm_jax.sampling.levels import Spacing, levels
from ldm_jax.sampling.loop import sample
from ldm_jax.sampling.multistep import DPMSolverPP2M
from ldm_jax.sampling.solvers import DEFAULT_ETA, DEFAULT_SPACING, SamplerName, make_solver
from ldm_jax.typing import Level, Prediction, Solver

SCHEDULE = NoiseSchedule.create("scaled_linear", 1000)
NAMES = get_args(SamplerName)
POINT = np.array([0.7, -1.3], np.float32)


def point(x, level):
    """The denoiser of data that is one point."""
    x0 = jnp.broadcast_to(jnp.asarray(POINT), x.shape)
    return Prediction(x0=x0, eps=(x - level.alpha * x0) / level.sigma)


def arc(steps, first=1.45, last=0.05):
    """Levels that are smooth in the step, so that errors show the order of a method alone."""
    angle = np.linspace(first, last, steps + 1)
    return Level(
        timestep=jnp.asarray(1000 * angle, jnp.float32),
        alpha=jnp.asarray(np.cos(angle), jnp.float32),
        sigma=jnp.asarray(np.sin(angle), jnp.float32),
        final=jnp.arange(steps + 1) == steps,
    )


@pytest.mark.parametrize(
    ("name", "least", "most", "counts"),
    [
        ("euler", 0.85, 1.2, [20, 40, 80]),
        ("heun", 1.8, 2.4, [10, 20, 40]),
        ("plms", 1.8, 4.2, [20, 40, 80]),
        ("dpmpp_2m", 1.8, 2.5, [40, 80, 160]),
    ],
)
def test_order_of_convergence_to_the_probability_flow(name, least, most, counts):
    errors = []
    for steps in counts:
        run = arc(steps)
        x = marginal(16, run)
        got = sample(make_solver(name), denoise, x, run).x
        errors.append(np.abs(got - flow(x, run)).max())
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert least < order < most, (order, errors)


@pytest.mark.parametrize("name", NAMES)
def test_a_point_is_reached_whatever_the_levels(name):
    solver, noise = make_solver(name), keys(3, "steps")
    run = jax.jit(lambda x, levels: sample(solver, point, x, levels, noise).x)
    # Adams-Bashforth multiplies rounding where strides are as long as the way that is left.
    close = 2e-3 if name == "plms" else 1e-5
    for steps in (1, 7, 1000):
        for spacing in ("leading", "trailing", "linspace", "quad", "karras"):
            path = levels(SCHEDULE, steps, spacing, "one")
            got = run(5 * marginal(3, path), path)
            np.testing.assert_allclose(got, np.tile(POINT, (3, 1)), atol=close)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler", "euler_a", "dpmpp_2m"])
def test_the_step_to_no_noise_is_exact(name):
    path = levels(SCHEDULE, 5, "trailing", "one")
    got = sample(make_solver(name), point, marginal(3, path), path, keys(3, "steps")).x
    np.testing.assert_array_equal(got, np.tile(POINT, (3, 1)))


@pytest.mark.parametrize("name", NAMES)
def test_few_and_many_steps_are_finite(name):
    solver, noise = make_solver(name), keys(2, "steps")
    run = jax.jit(lambda x, levels: sample(solver, denoise, x, levels, noise).x)
    for steps in (1, 2, 1000):
        for final in ("first", "one"):
            path = levels(SCHEDULE, steps, "linspace", final)  # "first" ends standing still
            assert np.isfinite(run(marginal(2, path), path)).all()


@pytest.mark.parametrize("name", ["ddim", "euler", "heun", "plms", "dpmpp_2m"])
def test_an_exploding_schedule_gives_the_same(name):
    """x / alpha at levels (1, sigma / alpha) is the same example at the same level."""
    run = arc(12)
    exploding = run._replace(alpha=jnp.ones(13), sigma=run.sigma / run.alpha)
    x, solver = marginal(8, run), make_solver(name)
    got = sample(solver, denoise, x / run.alpha[0], exploding).x
    # x / alpha starts 8 times as large; so does its rounding.
    np.testing.assert_allclose(
        got * run.alpha[-1], sample(solver, denoise, x, run).x, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("spacing", ["linspace", "karras"])
def test_ancestral_samples_have_the_mean_and_covariance_of_the_data(spacing):
    n, run = 8192, levels(SCHEDULE, 300, spacing, "one")
    got = np.asarray(
        jax.jit(lambda x, k: sample(make_solver("euler_a"), denoise, x, run, k).x)(
            marginal(n, run), keys(n, "steps")
        )
    )
    np.testing.assert_allclose(got.mean(0), MEAN, atol=0.04)  # 3.6 standard errors
    np.testing.assert_allclose(np.cov(got.T), COV, atol=0.06)  # 3.9 standard errors


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_batch(name):
    run, rows = levels(SCHEDULE, 6, "trailing", "one"), np.array([5, 2])
    x, k = marginal(8, run), keys(8, "steps")
    whole = sample(make_solver(name), denoise, x, run, k).x
    some = sample(make_solver(name), denoise, x[rows], run, k[rows]).x
    np.testing.assert_allclose(some, whole[rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "evaluations"),
    [(name, {"heun": 2 * 7 - 1, "plms": 7 + 1}.get(name, 7)) for name in NAMES],
)
def test_number_of_evaluations_and_one_network_in_the_program(name, evaluations):
    traced, asked = [], []

    def spy(x, level):
        traced.append(x)
        jax.debug.callback(lambda t: asked.append(float(t)), level.timestep, ordered=True)
        return denoise(x, level)

    run = levels(SCHEDULE, 7, "trailing", "one")
    jax.jit(lambda x: sample(make_solver(name), spy, x, run, keys(2, "steps")).x)(
        marginal(2, run)
    ).block_until_ready()
    jax.effects_barrier()
    assert len(traced) == 1
    assert len(asked) == evaluations
    assert sorted(set(asked), reverse=True) == [float(t) for t in run.timestep[:-1]]


def test_heun_and_plms_go_through_levels_in_this_order():
    assert list(make_solver("heun").visits(3)) == [0, 1, 1, 2, 2, 3]
    assert list(make_solver("plms").visits(3)) == [0, 1, 1, 2, 3]
    for name in NAMES:
        solver = make_solver(name)
        assert isinstance(solver, Solver)
        assert list(solver.visits(1)) == [0, 1]
        assert list(solver.visits(0)) == [0]


def test_one_step_of_heun_is_the_trapezoidal_rule():
    run = arc(2)
    x = marginal(4, run)
    at = [jax.tree.map(lambda values, i=i: values[i], run) for i in range(3)]
    r = [np.float64(level.sigma) / np.float64(level.alpha) for level in at]
    y = np.asarray(x, np.float64) / np.float64(at[0].alpha)
    slope = np.asarray(denoise(x, at[0]).eps, np.float64)
    there = jnp.asarray((y + (r[1] - r[0]) * slope) * np.float64(at[1].alpha), jnp.float32)
    y = y + (r[1] - r[0]) * (slope + np.asarray(denoise(there, at[1]).eps)) / 2
    middle = jnp.asarray(y * np.float64(at[1].alpha), jnp.float32)
    y = y + (r[2] - r[1]) * np.asarray(denoise(middle, at[1]).eps)
    got = sample(make_solver("heun"), denoise, x, run).x
    np.testing.assert_allclose(got, y * np.float64(at[2].alpha), rtol=1e-5, atol=1e-5)


def test_dpm_solvers_last_step_of_first_order():
    run = arc(6)
    x = marginal(4, run)
    second, first = (sample(DPMSolverPP2M(low), denoise, x, run) for low in (False, True))
    before = jax.tree.map(lambda values: values[:-1], run)
    ddim = sample(
        DDIM(), denoise, sample(DPMSolverPP2M(), denoise, x, before).x,
        jax.tree.map(lambda values: values[-2:], run),
    )  # fmt: skip
    np.testing.assert_allclose(first.x, ddim.x, atol=1e-5)
    assert np.abs(first.x - second.x).max() > 1e-3


def test_names():
    assert set(DEFAULT_SPACING) == set(NAMES)
    assert set(DEFAULT_ETA) == {"ddim", "euler_a"}
    assert make_solver("ddim") == make_solver("euler") == DDIM(0.0)
    assert make_solver("euler_a") == make_solver("ddim", eta=1.0)
    assert make_solver("euler_a", eta=0.3) == DDIM(0.3)
    assert [name for name in NAMES if make_solver(name).stochastic] == ["ddpm", "euler_a"]


def test_the_command_line_knows_every_name():
    from ldm_jax.config import sampling
    from sample import Arguments

    assert get_args(sampling.SamplerName) == NAMES
    assert set(get_args(sampling.Spacing)) == set(get_args(Spacing)) - {"compvis"}
    hints = get_type_hints(Arguments)
    assert hints["sampler"] == sampling.SamplerName | None
    assert hints["spacing"] == sampling.Spacing | None


def test_bad_names_and_etas():
    with pytest.raises(ValueError, match="eta is 0.5, but sampler 'heun' has none"):
        make_solver("heun", eta=0.5)
    with pytest.raises(ValueError, match="eta is -1"):
        make_solver("euler_a", eta=-1)
