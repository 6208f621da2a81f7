"""Samplers of k-diffusion and score_sde, whose numbers are in golden/ (see its README)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.core.typing import Level, Prediction
from ldm_jax.diffusion.processes import EDM, VE, VP
from ldm_jax.sampling.ancestral import DDPM
from ldm_jax.sampling.levels import inner_levels
from ldm_jax.sampling.sde import EulerMaruyama, PredictorCorrector, ReverseDiffusion
from ldm_jax.sampling.solvers import make_solver

GOLDEN = Path(__file__).parent / "golden"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4, 4))
NOISE = jnp.asarray(RNG.normal(size=(24, 2, 3, 4, 4)), jnp.float32)
RATIOS = np.append(np.exp(np.linspace(np.log(14.0), np.log(0.03), 12)), 0.0)


def level_of(time, alpha, sigma):
    time, alpha, sigma = (jnp.asarray(v, jnp.float32) for v in (time, alpha, sigma))
    return Level(time, alpha, sigma, jnp.arange(time.size) == time.size - 1)


def denoise(y, level):
    s = level.sigma
    x = y / jnp.sqrt(1 + s**2)
    x0 = 0.9 * jnp.tanh(x) + 0.1 * jnp.sin(2 * x + 1) * s / (1 + s)
    return Prediction(x0, (y - x0) / s)


def end(name, eta=None, ratios=RATIOS):
    """Our end of the path, with the noise of the golden numbers."""
    solver = make_solver(name, eta)
    path = inner_levels(solver, EDM(), level_of(ratios, np.ones_like(ratios), ratios))
    carry = solver.init(jnp.asarray(X * np.sqrt(1 + ratios[0] ** 2), jnp.float32))
    visits = solver.visits(path.timestep.size - 1)
    for i, (here, there) in enumerate(zip(visits, visits[1:], strict=False)):
        level, next_level = (jax.tree.map(lambda v, j=j: v[j], path) for j in (here, there))
        noise = NOISE[i] if solver.stochastic else None
        carry = solver.step(carry, level, next_level, denoise, noise)
    return np.asarray(carry.x)


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", ["dpm2", "heun", "lms", "dpmpp_2m", "euler_a"])
def test_k_diffusion(name):
    # Its weights of LMS come from an integral that is stopped at a relative error of 1e-4.
    close = 1e-4 if name == "lms" else 1e-5
    assert relative(end(name), np.load(GOLDEN / "k_diffusion.npz")[name]) < close


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("name", ["dpm2_a", "dpmpp_2s_a", "dpmpp_2m_sde", "dpmpp_sde"])
def test_k_diffusion_with_noise(name, eta):
    expected = np.load(GOLDEN / "k_diffusion.npz")[f"{name}/{eta}"]
    assert relative(end(name, eta), expected) < 1e-5


def test_k_diffusions_dpm_solver_3():
    found = end("dpm_solver_3", ratios=RATIOS[:-1])
    assert relative(found, np.load(GOLDEN / "k_diffusion.npz")["dpm_solver_3"]) < 1e-5


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_k_diffusions_3m_takes_half_of_the_second_derivative(eta):
    """Not far from ours, and not the same; ours integrates a quadratic x0 exactly."""
    found = relative(
        end("dpmpp_3m_sde", eta), np.load(GOLDEN / "k_diffusion.npz")[f"dpmpp_3m_sde/{eta}"]
    )
    assert 1e-3 < found < 0.2


# ------------------------------------------------------------------------------------- score_sde

SCORE = np.load(GOLDEN / "score_sde.npz")
BETAS = np.linspace(0.1 / 1000, 20.0 / 1000, 1000)
SIGMAS = np.exp(np.linspace(np.log(0.01), np.log(50.0), 1000))
STEP, T = 400, 400 / 999.0


def step_of(kind, solver, time=(T, T - 1e-3)):
    """Our step at timestep 400, and where it starts."""
    if kind == "vp":
        alpha_bar = np.cumprod(1 - BETAS)
        alpha, sigma, scale = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar), 1.0
    else:
        alpha, sigma, scale = np.ones(1000), SIGMAS, 3.0
    here, there = (
        level_of([time[k], 0], alpha[[STEP - k, 0]], sigma[[STEP - k, 0]]) for k in (0, 1)
    )
    here, there = (jax.tree.map(lambda v: v[0], level) for level in (here, there))

    def score(x, level):
        eps = -level.sigma * (-jnp.tanh(x) - 0.1 * x)
        return Prediction((x - level.sigma * eps) / level.alpha, eps)

    x = jnp.asarray(SCORE["x"] * scale, jnp.float32)
    carry = solver.init(x)
    return np.asarray(
        solver.step(carry, here, there, score, jnp.asarray(SCORE["z"], jnp.float32)).x
    )


@pytest.mark.parametrize(
    ("kind", "name", "solver"),
    [
        ("vp", "reverse_diffusion", ReverseDiffusion()),
        ("ve", "reverse_diffusion", ReverseDiffusion()),
        ("vp", "ancestral_sampling", DDPM("beta")),
        ("ve", "ancestral_sampling", DDPM("beta_tilde")),
        ("vp", "euler_maruyama", EulerMaruyama(VP(0.1, 20.0))),
        ("ve", "euler_maruyama", EulerMaruyama(VE(0.01, 50.0))),
    ],
)
def test_predictors(kind, name, solver):
    np.testing.assert_allclose(step_of(kind, solver), SCORE[f"{kind}/{name}"], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("kind", ["vp", "ve"])
@pytest.mark.parametrize(("name", "ours"), [("langevin", "langevin"), ("ald", "annealed_langevin")])
def test_correctors(kind, name, ours):
    # Where variance is preserved theirs multiplies the step by 1 - beta: another snr.
    snr = 0.16 * (1 - BETAS[STEP]) ** 0.5 if kind == "vp" else 0.16
    found = step_of(kind, PredictorCorrector(DDPM(), ours, 1, float(snr)))
    # Its sigma of annealed steps is that of continuous time, 0.1% from the product of 1 - beta.
    np.testing.assert_allclose(found, SCORE[f"{kind}/{name}"], rtol=1e-3, atol=1e-3)
