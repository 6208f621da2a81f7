"""Latents that are brought near N(0, 1) channel by channel, and what a new run says of them."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.convert import load
from ldm_jax.convert.imported_model import normalized
from ldm_jax.convert.native import read_native, write_native
from ldm_jax.convert.parts import read_first_stage
from ldm_jax.core.sharding import make_mesh
from ldm_jax.data.loader import make_loader
from ldm_jax.data.sources import open_source
from ldm_jax.models.build import build_autoencoder
from ldm_jax.training.autoencoder_stage import autoencoder_stage
from ldm_jax.training.classifier_stage import classifier_stage
from ldm_jax.training.diffusion_stage import diffusion_stage
from ldm_jax.training.latent_statistics import measure_latents
from ldm_jax.training.latents import batch_latents
from ldm_jax.workdir.checkpoints import Checkpoints
from ldm_jax.workdir.frozen import load_first_stage, save_frozen
from ldm_jax.workdir.record import CheckpointError
from ldm_jax.workdir.run_config import write_config

LOOP = dataclasses.replace(tiny.LOOP, steps=1, checkpoint_every=1)
CLASSIFIER = cfg.Classifier(
    block_out_channels=(8,), attention=(False,), num_heads=(2,), norm_num_groups=4
)


def per_channel(pictures):
    data = tiny.data(pictures, validation=0.0)
    return tiny.diffusion_run(pictures, data=data, loop=LOOP, latent_normalization="per_channel")


@pytest.fixture(scope="module")
def trained(pictures, trained_autoencoder, tmp_path_factory):
    """The work directory of such a run, with a checkpoint that no step was made for."""
    run, workdir = per_channel(pictures), tmp_path_factory.mktemp("normalised") / "run"
    stage = diffusion_stage(run, workdir, tiny.mesh(), str(trained_autoencoder))
    write_config(workdir, run)
    with Checkpoints(workdir, keep=1) as checkpoints:
        state = tiny.filled(jax.eval_shape(stage.init, stage.initial))
        checkpoints.save(1, state, {}, run)
    return workdir


def test_a_run_keeps_mean_and_deviation_of_each_channel(trained, pictures, tmp_path):
    run, model = per_channel(pictures), load(trained)
    config = model.config.autoencoder
    assert config.latent_scale == 1 and len(config.latent_mean) == len(config.latent_std) == 4
    batches = make_loader(open_source(run.data, "train"), run.data, seed=0, train=True)
    autoencoder = build_autoencoder(config)
    encode = jax.jit(lambda frozen, batch: batch_latents(autoencoder, frozen, batch, 0))
    latents = np.concatenate([encode(model.frozen, next(batches)) for _ in range(3)])  # all 48
    np.testing.assert_allclose(latents.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(latents.std((0, 1, 2)), 1, atol=1e-4)

    write_native(model, tmp_path / "model")
    again = read_native(tmp_path / "model")
    assert again.config == model.config
    tiny.same_bits(again.frozen, model.frozen)


def test_devices_measure_the_same(pictures, trained_autoencoder):
    run, stage = per_channel(pictures), read_first_stage(trained_autoencoder)
    one, eight = (
        measure_latents(stage, run, open_source(run.data, "train"), mesh, images=40)
        for mesh in (tiny.mesh(), make_mesh(cfg.Mesh()))
    )
    assert one.images == eight.images == 48
    np.testing.assert_allclose(one.channel_mean, eight.channel_mean, rtol=1e-5)
    np.testing.assert_allclose(one.channel_std, eight.channel_std, rtol=1e-5)
    assert one.told() == eight.told()


def test_others_take_it_over_from_the_model(trained, trained_autoencoder, pictures, tmp_path):
    """A classifier that is to guide it, and a run that begins with it, whatever their config."""
    expected = load(trained)
    run = cfg.ClassifierRun(tiny.data(pictures), CLASSIFIER, expected.config.diffusion, loop=LOOP)
    for name, model in (("same", trained), ("other", trained_autoencoder)):
        classifier_stage(run, tmp_path / name, tiny.mesh(), str(model))
        # What guidance compares.
        found = normalized(*load_first_stage(run, tmp_path / name))
        assert (found == expected.config.autoencoder) is (name == "same")
    scaled = dataclasses.replace(per_channel(pictures), latent_normalization="scale")
    begun = diffusion_stage(scaled, tmp_path / "begun", tiny.mesh(), None, str(trained))
    for name in ("latent_scale", "latent_mean", "latent_std"):
        tiny.same_bits(begun.frozen[name], expected.frozen[name])


def test_a_frozen_part_that_says_half_of_it_is_refused(trained, pictures, tmp_path):
    run = per_channel(pictures)
    _, frozen = load_first_stage(run, trained)
    (tmp_path / "first_stage").mkdir()
    (tmp_path / "first_stage/config.json").write_bytes(
        (trained / "first_stage/config.json").read_bytes()
    )
    del frozen["latent_std"]
    save_frozen(tmp_path / "first_stage", "weights", frozen)
    with pytest.raises(CheckpointError, match="with latent_mean and latent_std of 4 channels"):
        load_first_stage(run, tmp_path)


def test_a_new_run_says_what_it_measured_and_what_keeps_it_from_being_exported(
    trained, pictures, trained_autoencoder, tmp_path, capsys
):
    run = per_channel(pictures)
    scaled = dataclasses.replace(run, latent_normalization="scale")
    diffusion_stage(scaled, tmp_path / "run", tiny.mesh(), str(trained_autoencoder))
    said = capsys.readouterr().err
    assert "latents: scale " in said and "; per channel mean " in said
    assert "all are multiplied by the scale" in said
    assert "here but not be exported to diffusers: autoencoder.patch_size is 2" in said
    assert "more reasons). Nor to" in said
    assert "CompVis' single files: autoencoder.patch_size is 2" in said
    diffusion_stage(run, trained, tiny.mesh(), None)  # goes on
    again = capsys.readouterr().err
    assert "latents:" not in again and "exported" not in again


def test_a_first_stage_that_can_be_exported_says_nothing(pictures, tmp_path, capsys):
    plain = cfg.Autoencoder(block_out_channels=(32,), layers_per_block=1)
    for patch_size in (1, 2):
        config = dataclasses.replace(plain, patch_size=patch_size)
        autoencoder_stage(tiny.autoencoder_run(pictures, autoencoder=config), tmp_path / "run")
        said = capsys.readouterr().err
        assert ("note: this first stage can be used here but not be exported" in said) is (
            patch_size == 2
        )
