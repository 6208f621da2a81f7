"""The training step of stage two, with a network of one parameter that costs nothing to compile."""

import dataclasses
from types import MappingProxyType, SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.config import to_json
from ldm_jax.config.serialization import from_json
from ldm_jax.core.sharding import batch_sharding, make_mesh, replicated, state_sharding
from ldm_jax.diffusion.timesteps import SecondMoment
from ldm_jax.latent_diffusion import LatentDiffusion
from ldm_jax.models.build import build_autoencoder
from ldm_jax.models.layers import Dropout
from ldm_jax.models.process import build_process
from ldm_jax.training.diffusion_step import (
    denoising_losses_by_level,
    drop_inputs,
    make_diffusion_step,
)
from ldm_jax.training.objective import Objective
from ldm_jax.training.state import create_state
from ldm_jax.workdir.checkpoints import Checkpoints
from ldm_jax.workdir.frozen import save_first_stage

SHAPE = (2, 2, 3)
TIMESTEPS = 4


class Line(LatentDiffusion):
    """Latents are pixels, and the network is a multiple of its input."""

    def __init__(self, run):
        object.__setattr__(self, "process", build_process(run.diffusion.process))
        object.__setattr__(self, "autoencoder", build_autoencoder(cfg.Pixels()))
        object.__setattr__(self, "learned_variance", run.diffusion.learned_variance)
        object.__setattr__(self, "config", SimpleNamespace(inputs=("caption",), conditioners=()))

    def condition(self, params, frozen, inputs):
        return Nothing(jnp.zeros((len(inputs["caption"]), *SHAPE)))

    def network(self, params, x, t, condition, dropout=None):
        share = jnp.zeros_like(x) + params["share"]
        output = params["gain"] * Dropout(0.5).apply({}, x, dropout)
        if self.learned_variance:
            return jnp.concatenate([output, share], axis=-1)
        return output


class Nothing(NamedTuple):
    concat: jax.Array


def make_run(diffusion=None, accumulation=1, **objective):
    diffusion = diffusion or cfg.Diffusion(
        process=cfg.Discrete(num_timesteps=TIMESTEPS, schedule="cosine")
    )
    run = tiny.diffusion_run(
        "folder", diffusion=diffusion, objective=cfg.Objective(**objective),
        optim=cfg.Optim(learning_rate=0.05, accumulation=accumulation, ema_decay=None),
    )  # fmt: skip
    assert from_json(to_json(run)) == run
    return run


def batch_of(step, size=16):
    images = np.random.default_rng(step).integers(0, 256, (size, *SHAPE), np.uint8)
    index = np.arange(step * size, (step + 1) * size, dtype=np.uint32)
    return {"image": images, "index": index, "inputs": {"caption": np.zeros(size, np.int32)}}


def train(run, steps=4, devices=8):
    """State and losses after so many steps, on so many devices."""
    model, optimizer = Line(run), optax.sgd(run.optim.learning_rate)
    params = {"gain": jnp.float32(0.3), "share": jnp.float32(0.1)}
    state = create_state(params, optimizer, None)
    state = state.replace(own=Objective(run, model.process).initial_sampler())
    mesh = make_mesh(cfg.Mesh(), devices=jax.devices()[:devices])
    shardings = state_sharding(mesh, state)
    step = jax.jit(
        make_diffusion_step(model, optimizer, run, {"caption": jnp.int32(0)}),
        in_shardings=(shardings, replicated(mesh), batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
    )
    losses = []
    with jax.set_mesh(mesh):
        state = jax.device_put(state, shardings)
        for i in range(steps):
            batch = jax.device_put(batch_of(i), batch_sharding(mesh))
            state, metrics = step(state, {"autoencoder": {}, "latent_scale": jnp.float32(1)}, batch)
            losses.append(float(metrics["loss"]))
    return jax.device_get(state), losses


@pytest.mark.parametrize(("devices", "parts"), [(1, 2), (2, 4), (8, 2)])
def test_dropout_is_the_same_on_all_devices_and_in_parts(devices, parts):
    _, losses = train(make_run(), devices=1)
    _, others = train(make_run(accumulation=parts), devices=devices)
    np.testing.assert_allclose(others, losses, rtol=1e-5)


def test_second_moment_history_is_the_same_on_one_device_and_in_parts():
    objective = MappingProxyType({"times": "second_moment", "low_discrepancy": True})
    state, losses = train(make_run(**objective))
    assert state.own.count.sum() == 64 and np.all(state.own.count >= 10)
    p = state.own.probabilities()
    assert np.ptp(p) > 0.02, "it is warm, and follows the losses"
    alone, alone_losses = train(make_run(**objective), devices=1)
    parted, parted_losses = train(make_run(**objective, accumulation=2))
    for other, other_losses in ((alone, alone_losses), (parted, parted_losses)):
        np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
        np.testing.assert_array_equal(other.own.count, state.own.count)
        np.testing.assert_allclose(other.own.history, state.own.history, rtol=1e-5)


def test_the_history_of_losses_is_saved_and_read_back(tmp_path):
    run = make_run(times="second_moment")
    save_first_stage(tmp_path, tiny.AUTOENCODER, {}, {"latent_scale": np.float32(1.0)})
    (tmp_path / "tokenizer.json").touch()
    sampler = SecondMoment(
        jnp.arange(40, dtype=jnp.float32).reshape(4, 10), jnp.arange(4, dtype=jnp.int32)
    )
    state = create_state({"unet": {"bias": jnp.ones(3)}}, optax.sgd(0.1), None)
    state = state.replace(own=sampler)
    mesh = make_mesh(cfg.Mesh(data=2, fsdp=4))
    state = jax.device_put(state, state_sharding(mesh, state))
    abstract = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), state
    )
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state, {"step": 1}, run)
        checkpoints.wait()
        restored, _ = checkpoints.restore(abstract)
    tiny.same_bits(restored, state)


OBJECTIVES = {
    "hybrid": (True, {"loss": "hybrid", "bins": 256}),
    "vlb": (False, {"loss": "vlb", "fixed_variance": "beta"}),
    "kl": (False, {"weighting": "posterior_kl"}),
    "huber": (False, {"distance": "huber", "noise_offset": 0.1, "input_perturbation": 0.1}),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_are_learnt(name):
    learned, objective = OBJECTIVES[name]
    process = cfg.Discrete(num_timesteps=TIMESTEPS, schedule="cosine")
    run = make_run(cfg.Diffusion(process, learned_variance=learned), **objective)
    state, losses = train(run, steps=2)
    assert np.all(np.isfinite(losses))
    assert state.params["gain"] != np.float32(0.3)
    assert (state.params["share"] != np.float32(0.1)) == learned


CONTINUOUS = {
    "score": cfg.Diffusion(cfg.VE(), prediction="score"),
    "velocity": cfg.Diffusion(cfg.RectifiedFlow(), prediction="velocity"),
    "edm": cfg.Diffusion(cfg.EDM(), prediction="edm", sigma_data=0.5),
}


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_weights_and_validation_in_continuous_time(kind):
    """A weighting by the network's own kind changes nothing; levels are those of the process."""
    run = make_run(CONTINUOUS[kind], validation_levels=3)
    model = Line(run)
    batch = batch_of(0)
    latents = jnp.asarray(batch["image"], jnp.float32) / 127.5 - 1
    index, inputs = jnp.asarray(batch["index"]), jax.tree.map(jnp.asarray, batch["inputs"])
    params = {"gain": jnp.float32(0.3), "share": jnp.float32(0.1)}
    losses = jax.jit(lambda p: denoising_losses_by_level(model, run, p, latents, inputs, index, {}))
    found = losses(params)
    assert list(found) == ["loss", *(f"loss/level_{i}" for i in range(3))]
    assert found == losses(params)
    t = Objective(run, model.process).level_times(index)
    assert t.shape == (3, 16) and np.all(np.diff(t, axis=0) > 0)
    own = Objective(
        dataclasses.replace(run, objective=cfg.Objective(weighting=kind)), model.process
    )
    np.testing.assert_array_equal(own.weight(t[1]), np.ones(16))
    likelihood = Objective(
        dataclasses.replace(run, objective=cfg.Objective(weighting="likelihood")), model.process
    )
    assert np.all(np.isfinite(likelihood.weight(t[1])) & (likelihood.weight(t[1]) > 0))


def test_noise_offset_and_input_perturbation_have_their_own_sizes():
    run = make_run(noise_offset=0.5, input_perturbation=0.2)
    objective = Objective(run, Line(run).process)
    index = jnp.arange(64, dtype=jnp.uint32)
    eps, seen = objective.noise(index, (8, 8, 2), train=True)
    plain, same = objective.noise(index, (8, 8, 2), train=False)
    assert plain is same
    offset = np.asarray(eps - plain)
    assert np.ptp(offset, axis=(1, 2)).max() < 1e-5, "one number for each example and channel"
    # 128 and 8192 normal numbers
    assert np.std(offset[:, 0, 0]) == pytest.approx(0.5, rel=0.25)
    assert np.std(seen - eps) == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize(
    ("diffusion", "objective", "complaint"),
    [
        (cfg.Diffusion(cfg.VP()), {"loss": "vlb"}, "objective.loss is 'vlb'.*process VP"),
        (cfg.Diffusion(cfg.VE()), {"times": "second_moment"}, "objective.times is 'second_m"),
        (cfg.Diffusion(), {"loss": "hybrid"}, "learned_variance is False; it must be True for"),
        (cfg.Diffusion(learned_variance=True), {}, "learned_variance is True; it must be False"),
        (cfg.Diffusion(), {"loss": "vlb", "weighting": "p2"}, "weighting is 'p2'; it must be 'pla"),
        (cfg.Diffusion(), {"huber_c": 0.0}, "Objective.huber_c is 0.0"),
    ],
)
def test_what_does_not_fit_is_refused(diffusion, objective, complaint):
    with pytest.raises(cfg.ConfigError, match=complaint):
        make_run(diffusion, **objective)


def test_bins_are_for_pixels():
    with pytest.raises(cfg.ConfigError, match="objective.bins is 256; it must be None, since lat"):
        tiny.diffusion_run("folder", objective=cfg.Objective(bins=256)).model(tiny.AUTOENCODER)


def test_picture_and_caption_are_dropped_alone_and_together():
    """Brooks 2022: each of the three in 5% of the examples; shares of other sizes as well."""
    index = jnp.arange(20_000, dtype=jnp.uint32)
    inputs = {
        "caption": jnp.ones((len(index), 2), jnp.int32),
        "edit_image": jnp.ones((len(index), 1, 1, 3), jnp.uint8),
        "edit_given": jnp.ones(len(index), jnp.int32),
    }
    uncond = {"caption": jnp.zeros(2, jnp.int32), "edit_given": jnp.int32(0)}
    text = cfg.TextConditioner(dropout=0.1)
    for edit, alone, both in (
        (cfg.EditConditioner(), 0.05, 0.05),
        (cfg.EditConditioner(dropout=0.3, dropped_with_caption=0.02), 0.28, 0.02),
    ):
        found = drop_inputs((text, edit), 3, index, inputs, uncond)
        np.testing.assert_array_equal(found["edit_image"], inputs["edit_image"])
        no_text = np.asarray(found["caption"] == 0).all(1)
        no_picture = np.asarray(found["edit_given"] == 0)
        # Four standard deviations of a share of 0.3.
        near = dict(atol=4 * (0.3 * 0.7 / len(index)) ** 0.5, rtol=0)
        np.testing.assert_allclose((no_picture & ~no_text).mean(), alone, **near)
        np.testing.assert_allclose((no_picture & no_text).mean(), both, **near)
        np.testing.assert_allclose(no_text.mean(), 0.1, **near)
        alone_text = drop_inputs((text,), 3, index, inputs, uncond)["caption"]
        np.testing.assert_array_equal(found["caption"], alone_text)


def test_a_picture_to_edit_without_a_caption_is_dropped_by_itself():
    index = jnp.arange(4000, dtype=jnp.uint32)
    inputs = {"edit_image": jnp.ones((4000, 1, 1, 3), jnp.uint8), "edit_given": index + 1}
    found = drop_inputs((cfg.EditConditioner(dropout=0.5),), 0, index, inputs,
                        {"edit_given": jnp.uint32(0)})  # fmt: skip
    assert abs(float((found["edit_given"] == 0).mean()) - 0.5) < 0.03
