"""Stage one for the loop: what it is given, what it keeps, what it shows."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.training.autoencoder_stage import autoencoder_stage, channels_as_images
from ldm_jax.training.trainable import bind
from ldm_jax.workdir.checkpoints import Checkpoints


def begun(workdir):
    """Makes a work directory look as if it had a checkpoint."""
    (workdir / "checkpoints" / "1").mkdir(parents=True)


def test_a_run_keeps_the_parameters_of_its_perceptual_loss(pictures, tmp_path):
    run = tiny.autoencoder_run(pictures, loss=cfg.AutoencoderLoss(perceptual=cfg.Perceptual()))
    given = {"features": {"0": {"kernel": np.arange(4, dtype=np.float32)}}}
    with pytest.raises(cfg.ConfigError, match="LPIPS' parameters are not given"):
        autoencoder_stage(run, tmp_path)
    stage = autoencoder_stage(run, tmp_path, perceptual=lambda: given)
    tiny.same_bits(stage.frozen["perceptual"], given)

    begun(tmp_path)
    tiny.same_bits(autoencoder_stage(run, tmp_path).frozen["perceptual"], given)


def test_a_decoder_needs_an_encoder(pictures, trained_autoencoder, tmp_path):
    run = replace(tiny.autoencoder_run(pictures), train="decoder")
    with pytest.raises(cfg.ConfigError, match="name a trained first stage with --init=MODEL"):
        autoencoder_stage(run, tmp_path)
    init = str(trained_autoencoder)
    stage = autoencoder_stage(run, tmp_path, init)
    whole = bind(stage.initial, stage.frozen)
    tiny.same_bits(whole, Checkpoints.load_params(trained_autoencoder, "ema")[1])
    # Once begun, the checkpoints hold what is trained, and the work directory the rest.
    begun(tmp_path)
    again = autoencoder_stage(run, tmp_path, init)
    assert again.initial is None
    tiny.same_bits(again.frozen, stage.frozen)


def test_channels_of_latents_as_pictures():
    latents = jnp.stack([jnp.arange(8.0).reshape(2, 2, 2), jnp.full((2, 2, 2), 5.0)], axis=-1)
    shown = np.asarray(channels_as_images(latents, factor=2))
    assert shown.shape == (2, 2, 4, 4, 3)
    assert shown[0, 0, 0, 0, 0] == 0 and shown[0, 1, -1, -1, 0] == 255
    assert (shown[0, 0, :2, :2] == 0).all()
    # A channel that never changes is black, not a division by zero.
    assert (shown[1] == 0).all()
