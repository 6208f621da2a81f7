"""Parts of other models for a run to begin with, and what tells that they are of other networks."""

from dataclasses import replace

import clip_files
import convert_models as small
import jax
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.convert import ConvertError, imported_model
from ldm_jax.convert.diffusers.pipeline_folders import write_folder
from ldm_jax.convert.native import write_native
from ldm_jax.convert.parts import first_stage_params, initial_params, text_encoder_params

SD = small.MODELS["sd1"]


@pytest.fixture
def stable(tmp_path):
    """A diffusers folder in half precision."""
    tokenizer = clip_files.write_clip(tmp_path / "source")
    write_folder(small.model("sd1", tokenizer), tmp_path / "sd", dtype="float16")
    return tmp_path / "sd"


def halves(params):
    return jax.tree.map(lambda leaf: leaf.astype(np.float16).astype(np.float32), params)


def test_parts_of_a_diffusers_folder(stable):
    expected = small.model("sd1")
    text = replace(small.TEXT, dropout=0.3)
    config = replace(
        SD, unet=replace(SD.unet, dropout=0.1), conditioners=(text,),
        diffusion=cfg.Diffusion(prediction="v"),
    )  # fmt: skip
    found = initial_params(stable, config)
    tiny.same_bits(found.params, halves(expected.params))
    assert (found.tokenizer / "merges.txt").is_file()
    scaleless = replace(SD.autoencoder, latent_scale=None)
    tiny.same_bits(first_stage_params(stable, scaleless), halves(expected.frozen["autoencoder"]))
    for path, has in ((stable, True), (stable / "text_encoder", False)):
        encoder = text_encoder_params(path, text)
        tiny.same_bits(encoder.params, halves(expected.params["conditioners"]["text_encoder"]))
        assert encoder.config == text and (encoder.tokenizer is not None) == has


def test_how_training_makes_conditions_may_differ(tmp_path):
    imported = small.model("super resolution")
    write_native(imported, tmp_path / "model")
    worse = (cfg.LowResConditioner(cfg.BSRGAN(light=True)),)
    found = initial_params(tmp_path / "model", replace(imported.config, conditioners=worse))
    tiny.same_bits(found.params, imported.params)
    noisy = cfg.Discrete(30, beta_start=0.01)
    noisy = (cfg.LowResConditioner(noise=cfg.NoiseAugmentation(noisy, 30)),)
    unet = replace(imported.config.unet, class_count=30)
    with pytest.raises(cfg.ConfigError, match=r"class_count .*conditioners\.0\.noise is None"):
        initial_params(tmp_path / "model", replace(imported.config, unet=unet, conditioners=noisy))


def test_other_networks_are_named(stable, tmp_path):
    unet = replace(SD.unet, num_heads=(2, 4))
    with pytest.raises(cfg.ConfigError, match=r"--begin=.*num_heads\.0 is 4 there, 2 here.*Set"):
        initial_params(stable, replace(SD, unet=unet), "--begin")
    text = replace(small.TEXT, encoder=replace(small.CLIP, activation="gelu"))
    with pytest.raises(cfg.ConfigError, match=r"conditioners\.0\.encoder\.activation is 'quick"):
        initial_params(stable, replace(SD, conditioners=(text,)))
    with pytest.raises(cfg.ConfigError, match=r"--text=.*text_encoder\.encoder\.activation"):
        text_encoder_params(stable, text, "--text")
    write_native(
        imported_model.make(small.AUTOENCODER, small.numbers(small.AUTOENCODER)), tmp_path / "vae"
    )
    with pytest.raises(cfg.ConfigError, match="holds a first stage alone"):
        initial_params(tmp_path / "vae", SD)
    with pytest.raises(ConvertError, match="--text_encoder=.*has no text encoder"):
        text_encoder_params(tmp_path / "vae", text)
    with pytest.raises(ConvertError, match="does not exist"):
        initial_params(tmp_path / "none", SD)
