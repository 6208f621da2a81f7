"""Guidance and likelihoods against numbers of the published programs (see parity/golden)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian import denoise

from ldm_jax.diffusion import likelihood as lh
from ldm_jax.diffusion.parameterization import make_denoiser
from ldm_jax.diffusion.processes import VE, VP, SubVP
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.sampling.ancestral import DDPM
from ldm_jax.sampling.guidance import MeanShift, classifier
from ldm_jax.sampling.levels import levels

NUMBERS = np.load(Path(__file__).parents[1] / "parity/golden/guidance_likelihood.npz")
SCHEDULE = NoiseSchedule.create("scaled_linear", 1000)


def log_prob(x, level):
    """Its gradient is 2 ((0.5, -0.7) - x)."""
    return -jnp.sum((x - jnp.array([[0.5, -0.7]])) ** 2, axis=1)


@pytest.mark.parametrize("variance", ["beta_tilde", "beta"])
def test_both_forms_of_classifier_guidance_are_guided_diffusions(variance):
    plain = make_denoiser(lambda x, t: 0.3 * x + 0.1 * jnp.tanh(x[:, ::-1]), "eps", SCHEDULE)
    run = levels(SCHEDULE, 1000)
    here, there = (jax.tree.map(lambda v, i=i: v[i], run) for i in (599, 600))
    assert int(here.timestep) == NUMBERS["gd_t"]
    x = jnp.asarray(NUMBERS["gd_x"], jnp.float32)

    def mean(solver, denoise):
        return solver.step(solver.init(x), here, there, denoise, jnp.zeros_like(x)).x

    solver = DDPM(variance)
    close = {"rtol": 1e-4, "atol": 1e-5}  # float32 beside float64
    np.testing.assert_allclose(mean(solver, plain), NUMBERS[f"gd_plain_{variance}"], **close)
    moved = mean(MeanShift(solver, log_prob, 1.0), plain)
    np.testing.assert_allclose(moved, NUMBERS[f"gd_mean_{variance}"], **close)
    guided = classifier(plain, log_prob, 1.0)
    np.testing.assert_allclose(guided(x, here).x0, NUMBERS[f"gd_x0_{variance}"], **close)
    np.testing.assert_allclose(mean(solver, guided), NUMBERS[f"gd_mean_eps_{variance}"], **close)


@pytest.mark.parametrize(
    ("name", "process", "data_std"), [("vp", VP(), None), ("subvp", SubVP(), None), ("ve", VE(), 0)]
)
def test_likelihoods_are_score_sdes(name, process, data_std):
    x, probe = (jnp.asarray(NUMBERS[key], jnp.float32) for key in ("data", f"{name}_probe"))
    divergence = lh.hutchinson(lh.probability_flow(denoise, process), probe)

    def standard(z):
        return -0.5 * jnp.sum(z**2 + np.log(2 * np.pi).astype(np.float32), axis=1)

    prior = standard if data_std is None else lh.normal_prior(process, data_std)
    got = jax.jit(lambda x: lh.log_likelihood(divergence, x, lh.flow_times(process, 200), prior))(x)
    # Their adaptive steps keep errors of 1e-5 a step, and their offset is 7 bits, of 256 levels
    # that are 128 apart; the largest noise of the exploding process is 50.
    np.testing.assert_allclose(
        lh.bits_per_dim(got.log_prob, 2, 7.0), NUMBERS[f"{name}_bpd"], atol=3e-3
    )
    np.testing.assert_allclose(got.noise, NUMBERS[f"{name}_z"], rtol=2e-3, atol=2e-3)
