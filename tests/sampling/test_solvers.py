"""What every solver must do, on Gaussian data and on data that is a point."""

import re
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian import Arc, arc, arc_at, denoise, flow, keys, marginal

from ldm_jax.core.names import SamplerName
from ldm_jax.core.typing import Prediction, Solver
from ldm_jax.diffusion.processes import VP
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.sampling.ancestral import DDIM
from ldm_jax.sampling.dpm_multistep import DPMSolverPP2M
from ldm_jax.sampling.levels import inner_levels, levels
from ldm_jax.sampling.scan import sample
from ldm_jax.sampling.singlestep import DPMSolver
from ldm_jax.sampling.solvers import DEFAULT_ETA, DEFAULT_SPACING, make_solver
from ldm_jax.sampling.unipc import UniPC

SCHEDULE = NoiseSchedule.create("scaled_linear", 1000)
NAMES = get_args(SamplerName)
POINT = np.array([0.7, -1.3], np.float32)


def learned(x, level):
    """`denoise`, which says that the variance of a step is half way between its bounds."""
    return denoise(x, level)._replace(variance=jnp.full(x.shape, 0.5, jnp.float32))


def point(x, level):
    """The denoiser of data that is one point."""
    x0 = jnp.broadcast_to(jnp.asarray(POINT), x.shape)
    return Prediction(x0=x0, eps=(x - level.alpha * x0) / level.sigma)


ALIKE = ("euler", "euler_a", "ddpm_beta", "dpm_solver_1", "dpm_solver_2", "unipc_bh1")
"""Names of solvers that other names have already."""
DISTINCT = [name for name in NAMES if name not in ALIKE]
UNLIKE = ("ddpm_learned", "euler_maruyama", "reverse_diffusion", "lcm")


def solver_of(name, eta=None):
    return make_solver(name, eta, SCHEDULE)


def path_follower(name):
    """The solver without noise of its own, where it can do without."""
    return solver_of(name, 0 if name in DEFAULT_ETA else None)


def path_of(name, steps, spacing, final="one"):
    """The levels of that spacing, and those that the solver visits between them."""
    return inner_levels(solver_of(name), SCHEDULE, levels(SCHEDULE, steps, spacing, final))


# At these strides errors of the next order still show; LMS' is 3.65 from 16 to 64 steps.
FAR_FROM_ORDER = {"lms": 0.5, "dpmpp_3m_sde": 0.3, "unipc_3": 0.2}


@pytest.mark.parametrize("name", [name for name in DISTINCT if path_follower(name).order])
def test_order_of_convergence_to_the_probability_flow(name):
    """On levels even in lambda, whose first stride is halved five times: a multistep solver's first
    step, which is of first order, leaves an error that does not show."""
    errors, counts, solver = [], [16, 32], path_follower(name)
    draw = jax.jit(lambda x, run: sample(solver, denoise, x, run).x)
    for steps in counts:
        share = np.linspace(0, 1, steps + 1)
        share = np.concatenate([[0], share[1] / 2.0 ** np.arange(5, 0, -1), share[1:]])
        run = arc_at(np.arctan(np.tan(1.3) ** (1 - share) * np.tan(0.15) ** share))
        run = inner_levels(solver, Arc(), run)
        x = marginal(16, run)
        errors.append(np.abs(draw(x, run) - flow(x, run)).max())
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(order - solver.order) < FAR_FROM_ORDER.get(name, 0.1), (order, errors)


# The reverse SDE's own steps are right only in the limit of many; LCM's networks are another kind.
@pytest.mark.parametrize("name", [n for n in DISTINCT if n not in UNLIKE])
def test_a_point_is_reached_whatever_the_levels(name):
    solver, noise = solver_of(name), keys(3, "steps")
    run = jax.jit(lambda x, levels: sample(solver, point, x, levels, noise).x)
    for steps in (7, 1000) if name in ("ddim", "plms", "lms", "dpm_solver_3", "unipc_3") else (7,):
        for spacing in ("leading", "trailing", "linspace", "quad", "karras"):
            path = path_of(name, steps, spacing)
            got = run(5 * marginal(3, path), path)
            # The last of these strides is 99 times the one before, over which LMS extrapolates a
            # cubic: rounding is multiplied by 1e4.
            far = (name, steps, spacing) == ("lms", 1000, "karras")
            atol = 2e-2 if far else 2e-5
            np.testing.assert_allclose(got, np.tile(POINT, (3, 1)), atol=atol)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler", "euler_a", "dpmpp_2m"])
def test_the_step_to_no_noise_is_exact(name):
    path = levels(SCHEDULE, 5, "trailing", "one")
    got = sample(make_solver(name), point, marginal(3, path), path, keys(3, "steps")).x
    np.testing.assert_array_equal(got, np.tile(POINT, (3, 1)))


@pytest.mark.parametrize("name", DISTINCT)
def test_one_and_two_steps_are_finite_and_an_image_does_not_depend_on_its_batch(name):
    solver, noise = solver_of(name), keys(4, "steps")
    run = jax.jit(lambda x, levels: sample(solver, learned, x, levels, noise).x)
    for steps in (1, 3):
        for final in ("first", "one"):
            path = path_of(name, steps, "linspace", final)  # "first" ends standing still
            got = run(marginal(4, path), path)
            assert np.isfinite(got).all()
    other = marginal(4, path).at[2:].multiply(3.0)
    np.testing.assert_array_equal(run(other, path)[:2], got[:2])


@pytest.mark.parametrize("name", ["euler", "heun", "plms", "lms", "deis", "dpmpp_2m", "unipc_3"])
def test_an_exploding_schedule_gives_the_same(name):
    """x / alpha at levels (1, sigma / alpha) is the same example at the same level."""
    run = arc(12)
    exploding = run._replace(alpha=jnp.ones(13), sigma=run.sigma / run.alpha)
    x, solver = marginal(8, run), make_solver(name)
    draw = jax.jit(lambda x, run: sample(solver, denoise, x, run).x)
    # x / alpha starts 8 times as large; so does its rounding.
    np.testing.assert_allclose(
        draw(x / run.alpha[0], exploding) * run.alpha[-1], draw(x, run), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", NAMES)
def test_number_of_evaluations_and_one_network_in_the_program(name):
    traced, solver = [], solver_of(name)

    def spy(x, level):
        traced.append(x)
        return learned(x, level)

    for steps in (0, 1, 2, 7):
        run = path_of(name, steps or 1, "trailing")
        run = run if steps else jax.tree.map(lambda values: values[1:], run)
        evaluated = solver.visits(run.timestep.size - 1)[:-1]
        assert len(evaluated) == solver.evaluations(steps)
    jax.make_jaxpr(lambda x: sample(solver, spy, x, run, keys(2, "steps")).x)(marginal(2, run))
    assert len(traced) == 1


def test_the_table_of_samplers_says_what_the_solvers_do():
    """Orders, evaluations for 1 and 7 steps, and defaults in docs/samplers.md."""
    found = set()
    table = (Path(__file__).parents[2] / "docs/samplers.md").read_text()
    for row in re.findall(r"^\| `\w.*", table.split("\n\n")[2], re.M):
        names, _, orders, evaluations, spacing, eta, *_ = (
            cell.strip() for cell in row.strip("|").split("|")
        )
        names = re.findall(r"`(\w+)`", names)
        orders = [None if text == "–" else int(text) for text in orders.split(", ")]
        orders *= len(names) // len(orders)
        for name, order in zip(names, orders, strict=True):
            solver = path_follower(name)
            assert solver.order == order, name
            count = eval(evaluations.replace(" S", " * S"), {"S": 7})
            assert solver.evaluations(7) == count and solver.evaluations(1) == 1, name
            assert DEFAULT_SPACING[name] == spacing, name
            assert DEFAULT_ETA.get(name) == (None if eta == "–" else float(eta)), name
            found.add(name)
    assert found == set(NAMES)


def test_the_denoiser_is_asked_where_visits_say():
    asked = []

    def spy(x, level):
        jax.debug.callback(lambda t: asked.append(float(t)), level.timestep, ordered=True)
        return denoise(x, level)

    run = levels(SCHEDULE, 7, "trailing", "one")
    jax.jit(lambda x: sample(make_solver("heun"), spy, x, run).x)(marginal(2, run))
    jax.effects_barrier()
    assert asked == [float(run.timestep[i]) for i in make_solver("heun").visits(7)[:-1]]


def test_what_is_compiled_does_not_grow_with_the_steps():
    for name in ("dpm_solver_3", "unipc_3", "dpmpp_2m_sde"):
        lengths = []
        for steps in (5, 500):
            run, solver = path_of(name, steps, "karras"), solver_of(name)
            program = jax.jit(lambda x, run, s=solver: sample(s, denoise, x, run, keys(2, "k")).x)
            lengths.append(program.lower(marginal(2, run), run).as_text().count("\n"))
        assert lengths[0] == lengths[1]


def test_another_eta_compiles_nothing():
    run = path_of("dpmpp_2s_a", 5, "karras")
    x, k, traced = marginal(2, run), keys(2, "steps"), []

    @jax.jit
    def draw(eta, run):
        traced.append(eta)
        return sample(make_solver("dpmpp_2s_a", eta), denoise, x, run, k).x

    ends = {}
    for eta in (0.0, 0.5, 1.0):
        solver = make_solver("dpmpp_2s_a", eta)
        path = inner_levels(solver, SCHEDULE, levels(SCHEDULE, 5, "karras", "one"))
        ends[eta] = draw(jnp.float32(eta), path)
        np.testing.assert_allclose(ends[eta], sample(solver, denoise, x, path, k).x, atol=1e-5)
    assert len(traced) == 1
    assert np.abs(ends[0.0] - ends[1.0]).max() > 0.1


def test_heun_and_plms_go_through_levels_in_this_order():
    assert list(make_solver("heun").visits(3)) == [0, 1, 1, 2, 2, 3]
    assert list(make_solver("plms").visits(3)) == [0, 1, 1, 2, 3]
    for name in NAMES:
        solver = solver_of(name)
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
    second, first = (
        sample(DPMSolverPP2M(lower_order_final=low), denoise, x, run) for low in (False, True)
    )
    before = jax.tree.map(lambda values: values[:-1], run)
    ddim = sample(
        DDIM(), denoise, sample(DPMSolverPP2M(), denoise, x, before).x,
        jax.tree.map(lambda values: values[-2:], run),
    )  # fmt: skip
    np.testing.assert_allclose(first.x, ddim.x, atol=1e-5)
    assert np.abs(first.x - second.x).max() > 1e-3


def test_names():
    assert set(DEFAULT_SPACING) == set(NAMES)
    stochastic = [name for name in NAMES if solver_of(name).stochastic]
    assert set(DEFAULT_ETA) < {"ddim", *stochastic}
    assert not any(solver_of(name, 0).stochastic for name in DEFAULT_ETA)
    assert make_solver("dpm_solver_1") == DDIM()
    assert make_solver("ddim") == make_solver("euler") == DDIM(0.0)
    assert make_solver("euler_a") == make_solver("ddim", eta=1.0)
    assert make_solver("euler_a", eta=0.3) == DDIM(0.3)


def test_bad_names_and_etas():
    with pytest.raises(ValueError, match="eta is 0.5, but sampler 'heun' has none"):
        make_solver("heun", eta=0.5)
    for name in DEFAULT_ETA:
        with pytest.raises(ValueError, match="eta is -1"):
            make_solver(name, eta=-1)
    with pytest.raises(ValueError, match="eta is 1.5; for this sampler it must lie in 0..1"):
        make_solver("dpm2_a", eta=1.5)
    with pytest.raises(ValueError, match="euler_maruyama follows a process"):
        make_solver("euler_maruyama")
    with pytest.raises(ValueError, match="lcm counts noise by timesteps.*VP does not"):
        make_solver("lcm", process=VP())
    for solver in (DPMSolver, UniPC):
        with pytest.raises(ValueError, match="order is 4; it must be 2 or 3"):
            solver(4)
