"""The variational bound against the exact likelihood, on Gaussian data, and of a whole model."""

import jax
import jax.numpy as jnp
import numpy as np
from gaussian import BASIS, COV, MEAN, STD, denoise

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.diffusion.posterior import posterior_tables
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.evaluation.bits_per_dim import exact_bits, measure, variational_bound, volume_bits

SCHEDULE = NoiseSchedule.create("scaled_linear", 1000)
INDEX = jnp.arange(64, dtype=jnp.uint32)
X = MEAN + (np.random.default_rng(0).normal(size=(64, 2)) * STD) @ BASIS.T
ENTROPY = 0.5 * np.log2(np.linalg.det(2 * np.pi * np.e * COV.astype(np.float64))) / 2
"""Bits per dimension that the data has in the mean."""


def expected_bound(schedule):
    """The bound's mean in bits per dimension, in closed form: each axis of the data by itself."""
    posterior, bar = posterior_tables(schedule.alpha_bar), schedule.alpha_bar[:, None]
    spread = STD.astype(np.float64)[None] ** 2
    left = spread * (1 - bar) / (bar * spread + 1 - bar)  # variance of x0 given x_t
    steps = (
        posterior.x0_coefficient[:, None] ** 2
        * left
        / (2 * np.exp(posterior.log_beta_tilde))[:, None]
    )
    decoding = left[0] / (2 * np.exp(posterior.log_beta_tilde[0])) + 0.5 * (
        np.log(2 * np.pi) + posterior.log_beta_tilde[0]
    )
    end = schedule.alpha_bar[-1]
    prior = 0.5 * (end * np.mean(STD**2 + (MEAN @ BASIS) ** 2) - end - np.log1p(-end))
    return (np.mean(steps[1:].sum(0) + decoding) + prior) / np.log(2)


def test_the_bound_has_its_exact_mean():
    n, schedule = 2048, NoiseSchedule.create("scaled_linear", 50, 0.005, 0.2)
    x = MEAN + (np.random.default_rng(1).normal(size=(n, 2)) * STD) @ BASIS.T
    found = jax.jit(
        lambda x: variational_bound(denoise, schedule, x, jnp.arange(n, dtype=jnp.uint32))
    )(jnp.asarray(x, jnp.float32))
    assert found["terms"].shape == (50, n)
    total = np.asarray(found["total"], np.float64)
    assert abs(total.mean() - expected_bound(schedule)) < 4 * total.std() / n**0.5
    assert total.mean() > ENTROPY


def test_the_flow_has_the_density_of_gaussian_data():
    flow = jax.jit(lambda x: exact_bits(denoise, SCHEDULE, x, INDEX))(jnp.asarray(X, jnp.float32))
    offset = np.asarray(X, np.float64) - MEAN
    quadratic = np.einsum("bi,ij,bj->b", offset, np.linalg.inv(COV.astype(np.float64)), offset)
    exact = ENTROPY + (quadratic - 2) / (4 * np.log(2))
    # One random sign per number and example; the Jacobian is all but diagonal.
    assert abs(float(flow.mean()) - exact.mean()) < 0.15


def test_a_latent_model_reports_its_latents():
    unet = cfg.UNet(
        in_channels=3, out_channels=3, block_out_channels=(8,), layers_per_block=1,
        attention=(False,), num_heads=(2,), norm_num_groups=4, context_dim=None,
    )  # fmt: skip
    autoencoder = cfg.Autoencoder(
        latent_channels=3, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
        mid_attention=False, patch_size=2,
    )  # fmt: skip
    process = cfg.Diffusion(process=cfg.Discrete(num_timesteps=10), prediction="v")
    model = ldm.build(cfg.Model(autoencoder, unet, diffusion=process, image_size=8))
    params = ldm.init_params(model, 0)
    variables = model.autoencoder.init(
        jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 4, 4, 3))
    )
    frozen = {"autoencoder": variables["params"], "latent_scale": jnp.float32(1.0)}
    batch = {
        "image": np.full((2, 8, 8, 3), 100, np.uint8), "inputs": {},
        "index": np.arange(2, dtype=np.uint32),
    }  # fmt: skip
    report = measure(model, params, frozen, [batch], steps=3)
    assert (report["of"], report["images"], len(report["bound_terms"])) == ("latents", 2, 10)
    assert report["normalization_bits_per_dim"] == 0
    deviations = {"latent_scale": jnp.float32(0.5), "latent_std": jnp.asarray([1.0, 2.0, 4.0])}
    assert volume_bits(deviations) == -2
    total = report["bound_prior"] + sum(report["bound_terms"])
    np.testing.assert_allclose(report["bound_bits_per_dim"], total, rtol=1e-5)
