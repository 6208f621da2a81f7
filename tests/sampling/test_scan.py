"""One scan runs any solver, whatever the number of steps."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.core import rngs
from ldm_jax.core.names import SamplerName
from ldm_jax.core.typing import Prediction
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.sampling.ancestral import DDIM, DDPM
from ldm_jax.sampling.inpaint import Inpaint
from ldm_jax.sampling.levels import inner_levels, levels, part
from ldm_jax.sampling.scan import (
    advance,
    evaluations,
    evenly,
    initial_x,
    path_along,
    sample,
    start,
)
from ldm_jax.sampling.sde import PredictorCorrector
from ldm_jax.sampling.solvers import make_solver

SCHEDULE = NoiseSchedule.create("scaled_linear", 1000)


def denoise(x, level):
    """The exact denoiser of standard normal data."""
    return Prediction(x0=level.alpha * x, eps=level.sigma * x)


def _keys(n, name="steps"):
    return rngs.example_keys(rngs.stream(0, name), jnp.arange(n))


def _start(n):
    return rngs.normal(_keys(n, "start"), (3,))


def test_levels_of_stable_diffusion():
    got = levels(SCHEDULE, 50)
    np.testing.assert_array_equal(got.timestep, [*range(981, 0, -20), 0])
    np.testing.assert_array_equal(got.final, [False] * 50 + [True])
    np.testing.assert_allclose(got.alpha[0] ** 2, 0.005776, rtol=1e-4)
    np.testing.assert_allclose(got.alpha[-1] ** 2, 0.99915, rtol=1e-6)
    clean = levels(SCHEDULE, 50, final_alpha_bar="one")
    assert (clean.alpha[-1], clean.sigma[-1]) == (1.0, 0.0)


@pytest.mark.parametrize("solver", [DDIM(), DDIM(eta=1.0), DDPM(), DDPM("beta")])
@pytest.mark.parametrize("steps", [1, 1000])
def test_any_number_of_steps_gives_finite_samples(solver, steps):
    run = jax.jit(lambda levels: sample(solver, denoise, _start(2), levels, _keys(2)).x)
    for final in ("first", "one"):
        assert np.isfinite(run(levels(SCHEDULE, steps, final_alpha_bar=final))).all()


@pytest.mark.parametrize("solver", [DDIM(), DDIM(eta=1.0), DDPM()])
def test_program_does_not_grow_with_steps(solver):
    def size(steps):
        run = levels(SCHEDULE, steps)
        program = jax.make_jaxpr(lambda x, k: sample(solver, denoise, x, run, k).x)(
            _start(2), _keys(2)
        )
        return str(program).count(" = ")

    assert size(2) == size(500)


def test_one_compiled_program_serves_every_level_and_eta():
    traces = []

    @jax.jit
    def run(x, keys, levels, eta):
        traces.append(eta)
        return sample(DDIM(eta), denoise, x, levels, keys).x

    x, keys = _start(4), _keys(4)
    zero = run(x, keys, levels(SCHEDULE, 20), jnp.float32(0))
    run(x, keys, levels(SCHEDULE, 20, "trailing", "one"), jnp.float32(1))
    assert len(traces) == 1
    plain = sample(DDIM(), denoise, x, levels(SCHEDULE, 20)).x
    np.testing.assert_allclose(zero, plain, atol=1e-5)


@pytest.mark.parametrize("solver", [DDIM(), DDIM(eta=1.0), DDPM()])
def test_an_image_does_not_depend_on_its_batch(solver):
    run = levels(SCHEDULE, 10)
    whole = sample(solver, denoise, _start(8), run, _keys(8)).x
    rows = np.array([5, 2])
    part = sample(solver, denoise, _start(8)[rows], run, _keys(8)[rows]).x
    np.testing.assert_allclose(part, whole[rows], rtol=1e-6, atol=1e-6)


def test_predictions_of_every_step():
    run = levels(SCHEDULE, 6)
    got = sample(DDIM(), denoise, _start(2), run, return_x0s=True)
    assert got.x0s.shape == (6, 2, 3)
    x = _start(2)
    for i in range(6):
        prediction = denoise(x, jax.tree.map(lambda values, i=i: values[i], run))
        np.testing.assert_allclose(got.x0s[i], prediction.x0, atol=1e-5)
        x = run.alpha[i + 1] * prediction.x0 + run.sigma[i + 1] * prediction.eps
    np.testing.assert_allclose(got.x, x, atol=1e-5)
    assert sample(DDIM(), denoise, _start(2), run).x0s is None
    some = sample(DDIM(), denoise, _start(2), run, return_x0s=3)
    np.testing.assert_allclose(some.x0s, got.x0s[np.array([0, 2, 5])], atol=1e-6)
    assert sample(DDIM(), denoise, _start(2), run, return_x0s=9).x0s.shape == (6, 2, 3)


def test_predictions_that_are_not_kept_take_no_memory():
    run = levels(SCHEDULE, 500)
    program = jax.make_jaxpr(lambda x: sample(DDIM(), denoise, x, run, return_x0s=4))(_start(2))
    shapes = {v.aval.shape for eqn in program.eqns for v in eqn.outvars}
    assert (4, 2, 3) in shapes and (500, 2, 3) not in shapes


@pytest.mark.parametrize(
    ("evaluations", "count", "expected"),
    [(50, 5, [0, 12, 24, 37, 49]), (3, 8, [0, 1, 2]), (7, 1, [0]), (0, 4, []), (5, 0, [])],
)
def test_evaluations_are_chosen_evenly(evaluations, count, expected):
    assert list(evenly(evaluations, count)) == expected


def _curved(x, level):
    """A denoiser that is not linear and says a variance."""
    x0 = level.alpha * jnp.tanh(x)
    return Prediction(x0, (x - level.alpha * x0) / level.sigma, 0.5 + 0.1 * jnp.sin(x))


NOISE = rngs.normal(_keys(2, "start"), (1, 3, 2))


def _inpainting(solver, resample=1):
    original, mask = jnp.full_like(NOISE, 0.3), jnp.asarray([[[[1.0], [0.0], [1.0]]]] * 2)
    return Inpaint(solver, original, NOISE, mask, resample, 2)


@pytest.mark.parametrize(
    ("solver", "keep"),
    [
        *((make_solver(name, None, SCHEDULE), 0) for name in get_args(SamplerName)),
        (DDIM(eta=0.5), 3), (make_solver("dpmpp_2m_sde", 0.5), 2),
        (PredictorCorrector(make_solver("ddim"), "langevin", 2, 0.1), 0),
        (_inpainting(DDIM()), 2), (_inpainting(DDIM(), resample=2), 0),
    ],
)  # fmt: skip
def test_a_drawing_in_parts_has_the_bits_of_the_whole(solver, keep):
    run, keys = inner_levels(solver, SCHEDULE, levels(SCHEDULE, 6)), _keys(2)
    count, path = evaluations(solver, run), path_along(solver, run, keep, multiple=16)

    @jax.jit
    def part_of(state, begin, end):
        return advance(solver, _curved, state, path, keys, begin=begin, end=end)

    def in_parts(*lengths):
        state, begin = start(solver, NOISE, count, keep), 0
        for length in lengths:
            state, begin = part_of(state, begin, begin + length), begin + length
        return state

    whole = in_parts(count)
    assert not np.array_equal(whole.carry.x, NOISE)
    by_scan = sample(solver, _curved, NOISE, run, keys)
    np.testing.assert_allclose(whole.carry.x, by_scan.x, rtol=1e-5, atol=1e-5)
    for lengths in ((1, 2, count - 3), (1,) * count):
        jax.tree.map(np.testing.assert_array_equal, in_parts(*lengths), whole)


def test_starting_part_of_the_way():
    run = levels(SCHEDULE, 6)
    late = jax.tree.map(lambda values: values[4:], run)
    got = sample(DDIM(), denoise, _start(2), late, return_x0s=True)
    assert got.x0s.shape == (2, 2, 3)


def test_errors():
    run = levels(SCHEDULE, 3)
    with pytest.raises(ValueError, match="DDPM draws noise; give keys"):
        sample(DDPM(), denoise, _start(2), run)
    with pytest.raises(ValueError, match="levels is empty"):
        sample(DDIM(), denoise, _start(2), jax.tree.map(lambda v: v[4:], run))


def test_part_of_the_way():
    run = levels(SCHEDULE, 50)
    assert [part(run, s).timestep.size - 1 for s in (0, 0.019, 0.5, 0.58, 1)] == [0, 0, 25, 28, 50]
    half = part(run, 0.5)
    np.testing.assert_array_equal(half.timestep, run.timestep[25:])
    assert half.final[-1] and half.timestep[0] == 481
    x = _start(2)
    np.testing.assert_array_equal(sample(DDIM(), denoise, x, part(run, 0.0)).x, x)
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"strength is .*0\.\.1"):
            part(run, strength)


def test_start_has_the_variance_of_the_level():
    first = jax.tree.map(lambda values: values[0], levels(SCHEDULE, 50))
    x = _start(2)
    np.testing.assert_allclose(initial_x(x, first), x, rtol=1e-6)
    np.testing.assert_allclose(initial_x(x, first, 0), first.sigma * x, rtol=1e-6)
