"""Every process that settings can describe is built, trained and drawn with."""

from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.diffusion.schedules import NoiseSchedule, betas
from ldm_jax.generation import defaults
from ldm_jax.models.process import betas as all_betas
from ldm_jax.models.process import build_process
from ldm_jax.sampling.scan import sample
from ldm_jax.sampling.solvers import make_solver
from ldm_jax.training.diffusion_step import denoising_loss

UNET = replace(tiny.UNET, in_channels=4, out_channels=4, attention=(False,))
ZERO_SNR = cfg.Discrete(zero_terminal_snr=True)


def diffusion_run(diffusion: cfg.Diffusion) -> cfg.DiffusionRun:
    return replace(tiny.diffusion_run("folder"), conditioners=(), unet=UNET, diffusion=diffusion)


def model(diffusion: cfg.Diffusion) -> cfg.Model:
    return diffusion_run(diffusion).model(tiny.AUTOENCODER)


@pytest.mark.parametrize("config", [cfg.VP(beta_max=15.0), cfg.SubVP(t_min=0.01), cfg.VE(0.02, 9.0),
                                    cfg.EDM(p_mean=-0.4), cfg.RectifiedFlow(2.0)])  # fmt: skip
def test_continuous_processes_have_the_fields_of_their_settings(config):
    found = build_process(config)
    assert type(found).__name__ == type(config).__name__
    for field in fields(config):
        assert getattr(found, field.name) == getattr(config, field.name)
    assert config.ends_in_noise == (float(found.alpha_at(found.t_max)) == 0)


def test_discrete_processes():
    plain = build_process(cfg.Discrete())
    expected = NoiseSchedule.create("scaled_linear", 1000)
    np.testing.assert_array_equal(plain.alpha_bar, expected.alpha_bar)
    given = cfg.Discrete(4, "given", betas=(0.1, 0.2, 0.3, 1.0))
    np.testing.assert_allclose(build_process(given).alpha_bar, [0.9, 0.72, 0.504, 0])
    assert given.ends_in_noise and build_process(given).ends_in_noise
    shifted = build_process(cfg.Discrete(shift=4.0))
    np.testing.assert_allclose(shifted.noise_to_signal, 4 * plain.noise_to_signal)
    both = build_process(cfg.Discrete(shift=4.0, zero_terminal_snr=True))
    assert both.alpha_bar[0] == pytest.approx(shifted.alpha_bar[0]) and both.ends_in_noise
    found = all_betas(cfg.Discrete(10, "linear", 0.1, 0.2))
    np.testing.assert_allclose(found, betas("linear", 10, 0.1, 0.2))


@pytest.mark.parametrize(
    ("process", "kind"),
    [
        (ZERO_SNR, "v"), (cfg.VP(), "score"), (cfg.SubVP(), "x0"), (cfg.VE(), "eps"),
        (cfg.EDM(), "edm"), (cfg.RectifiedFlow(), "velocity"),
    ],
)  # fmt: skip
def test_every_process_and_prediction_is_trained_and_drawn(process, kind):
    """Traced only: what they compute is tested where it is computed."""
    run = diffusion_run(cfg.Diffusion(process, kind))
    bundle = ldm.build(run.model(tiny.AUTOENCODER))
    levels = defaults.resolve_sampling(bundle.config, cfg.Sampling(steps=4)).levels
    index, inputs = jnp.arange(2, dtype=jnp.uint32), {}

    def both():
        params = ldm.init_params(bundle, 0)
        drawing = ldm.drawing(
            bundle, params, bundle.condition(params, {}, inputs), None, solver=make_solver("ddim"),
            levels=levels, seed=0, index=index, shape=bundle.latent_shape,
        )  # fmt: skip
        drawn = sample(*drawing).x
        t = bundle.process.time_at(jnp.full(2, 0.5))
        return drawn, denoising_loss(bundle, run, params, drawn, inputs, index, t, {}, train=False)

    drawn, loss = jax.eval_shape(both)
    assert drawn.shape == (2, *bundle.latent_shape) and drawn.dtype == jnp.float32
    assert loss.shape == (2,)


@pytest.mark.parametrize("process", [ZERO_SNR, cfg.RectifiedFlow()])
@pytest.mark.parametrize("kind", ["eps", "score"])
def test_what_says_nothing_of_the_data_is_refused(process, kind):
    with pytest.raises(cfg.ConfigError, match="ends in noise alone"):
        cfg.Diffusion(process, kind)


def test_usual_spacings():
    def spacing(process, kind, sampler, **changes):
        sampling = cfg.Sampling(sampler=sampler, **changes)
        return defaults.resolve_sampling(
            model(cfg.Diffusion(process, kind)), sampling
        ).sampling.spacing

    assert spacing(cfg.Discrete(), "eps", "dpmpp_2m") == "karras"
    assert spacing(cfg.EDM(), "edm", "dpmpp_2m") == "karras"
    assert spacing(cfg.VP(), "eps", "ddim") == "trailing"
    assert spacing(cfg.Discrete(), "eps", "ddim", timesteps=(900.0, 3.5)) is None


def test_models_that_compvis_ran_visit_its_list():
    """It has 31 steps for 30 and none for 300, where "leading" is the same rule to its length."""
    compvis = model(cfg.Diffusion(spacing="ddim_uniform", final_alpha_bar="first"))
    for steps, kind, visited in ((50, "ddim_uniform", range(1, 1000, 20)),
                                 (30, "ddim_uniform", range(1, 992, 33)),
                                 (300, "leading", range(1, 899, 3))):  # fmt: skip
        for name in ("ddim", "plms"):
            resolved = defaults.resolve_sampling(compvis, cfg.Sampling(name, steps=steps))
            assert resolved.sampling.spacing == kind
            np.testing.assert_array_equal(resolved.levels.timestep[:-1], list(visited)[::-1])


@pytest.mark.parametrize(
    ("lists", "first", "steps"),
    [
        ({"sections": (2, 3)}, 999, 5),
        ({"timesteps": (900.0, 20.0, 3.5)}, 900, 3),
        ({"sigmas": (14.615, 1.0, 0.0)}, 999, 2),
    ],
)
def test_lists_say_what_is_visited(lists, first, steps):
    usual = model(cfg.Diffusion())
    sampling, levels = defaults.resolve_sampling(usual, cfg.Sampling(**lists))
    assert sampling.steps == steps
    assert levels.timestep.size == steps + 1 and levels.sigma[-1] == 0
    assert float(levels.timestep[0]) == first


@pytest.mark.parametrize(
    ("diffusion", "sampling", "complaint"),
    [
        (cfg.Diffusion(cfg.VP()), {"spacing": "leading"}, "which only schedules of discrete"),
        (cfg.Diffusion(cfg.VP()), {"sections": (2,)}, r"sections are \(2,\), but only"),
        (cfg.Diffusion(cfg.VP()), {"timesteps": (999.0,)}, "lie in 0.001..1"),
        (cfg.Diffusion(), {"steps": 1001}, r"lie in 1\.\.1000"),
        (cfg.Diffusion(), {"sigmas": (99.0,)}, "sigmas are"),
        (cfg.Diffusion(ZERO_SNR, "v"), {"spacing": "karras"}, "ends in noise alone; choose 'trai"),
        (cfg.Diffusion(ZERO_SNR, "v"), {"sampler": "euler_maruyama"}, "drift is infinite"),
    ],
)
def test_levels_that_a_model_does_not_have_are_refused(diffusion, sampling, complaint):
    with pytest.raises(cfg.ConfigError, match=complaint):
        defaults.resolve_sampling(model(diffusion), cfg.Sampling(**sampling))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"spacing": "karras", "timesteps": (3.0,)}, "spacing and timesteps are given"),
        ({"sigmas": (1.0, 2.0)}, r"sigmas are \(1.0, 2.0\); they must fall"),
        ({"timesteps": (3.0, -1.0)}, "timesteps is .*each entry a number of at least 0"),
        ({"sections": (3, 0)}, "sections is .*whole number of at least 1"),
    ],
)
def test_lists_that_no_model_has_are_refused(given, complaint):
    with pytest.raises(cfg.ConfigError, match=complaint):
        cfg.Sampling(**given)
