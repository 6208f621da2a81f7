"""Single files: names of the original code, settings that shapes do not tell, and refusals."""

from dataclasses import replace

import convert_models as small
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model, state_dicts
from ldm_jax.convert.compvis import keys, reader, writer
from ldm_jax.convert.compvis.reader import read_checkpoint
from ldm_jax.convert.compvis.writer import write_checkpoint
from ldm_jax.convert.diffusers.pipeline_folders import write_folder
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.formats.safetensors_file import read_safetensors, write_safetensors

ORIGINALS = small.golden("compvis_names")
FIRST_STAGES = [name for name in ORIGINALS if "unet" not in ORIGINALS[name]["config"]]
WHOLE = [name for name in ORIGINALS if name not in FIRST_STAGES]


@pytest.mark.parametrize("name", FIRST_STAGES)
def test_original_first_stages(tmp_path, name):
    imported = read_checkpoint(small.original(name, tmp_path / "model.safetensors"))
    settings = ORIGINALS[name]["config"]
    assert isinstance(imported.config, cfg.Autoencoder)
    assert imported.config.codes == settings.get("n_embed")
    assert imported.config.mid_attention == (settings["ddconfig"].get("attn_type") != "none")
    assert any(imported.config.attention) == bool(settings["ddconfig"]["attn_resolutions"])
    assert all(name.startswith("loss.") for name in imported.ignored)


@pytest.mark.parametrize("name", WHOLE)
def test_original_models_there_and_back(tmp_path, name):
    """All tensors of the original come back under their names, but those that are not used."""
    path = small.original(name, tmp_path / "model.safetensors")
    yaml = small.settings(name, tmp_path / "settings.yaml")
    imported = read_checkpoint(path, original_config=yaml)
    settings = ORIGINALS[name]["config"]
    process = imported.config.diffusion.process
    assert [process.beta_start, process.beta_end] == settings["betas"]
    assert imported.autoencoder.latent_scale == (0.5 if name == "churches256" else 1.0)
    write_checkpoint(imported, tmp_path / "again.safetensors")
    again, metadata = read_safetensors(tmp_path / "again.safetensors")
    source, _ = read_safetensors(path)
    for tensor in source.keys() - imported.ignored.keys():
        if tensor not in ("betas", "alphas_cumprod"):
            assert again[tensor].tobytes() == source[tensor].tobytes(), tensor
    assert read_checkpoint(tmp_path / "again.safetensors").config == imported.config


@pytest.mark.parametrize("name", small.MODELS | small.TASKS)
def test_written_and_read_is_the_same(tmp_path, name):
    imported = small.model(name)
    write_checkpoint(imported, tmp_path / "model.safetensors")
    again = read_checkpoint(tmp_path / "model.safetensors")
    assert again.config == imported.config
    tiny.same_bits(again.params, imported.params)
    tiny.same_bits(again.frozen, imported.frozen)


def test_fused_attention_is_ordered_by_head():
    """Legacy blocks: rows of head 0's query, key, value, then head 1's."""
    places = {f"to_{c}": keys.Place("qkv", i, heads=2) for i, c in enumerate("qkv")}
    fused = np.arange(12, dtype=np.float32)[:, None]
    found, rest = keys.read({"qkv": fused}, places)
    assert found["to_q"].ravel().tolist() == [0, 1, 6, 7]
    assert found["to_k"].ravel().tolist() == [2, 3, 8, 9]
    assert found["to_v"].ravel().tolist() == [4, 5, 10, 11]
    assert not rest
    np.testing.assert_array_equal(keys.write(found, places)["qkv"], fused)


def test_averages_are_chosen(tmp_path):
    path = small.original("churches256", tmp_path / "model.safetensors")
    yaml = small.settings("churches256", tmp_path / "settings.yaml")
    tensors, _ = read_safetensors(path)
    for weights, prefix in (("raw", "model.diffusion_model.input_blocks.0.0.bias"),
                            ("ema", "model_ema.diffusion_modelinput_blocks00bias")):  # fmt: skip
        imported = read_checkpoint(path, ema=weights == "ema", original_config=yaml)
        found = state_dicts.to_torch(imported.params["unet"])["conv_in.bias"]
        np.testing.assert_array_equal(found, tensors[prefix])
        assert imported.origin["weights"] == weights


def test_averages_that_are_not_there(tmp_path):
    path = small.original("cin256", tmp_path / "model.safetensors")
    yaml = small.settings("cin256", tmp_path / "settings.yaml")
    with pytest.raises(ConvertError, match="has no averages"):
        read_checkpoint(path, ema=True, original_config=yaml)


def test_unknown_architecture_asks_for_its_settings(tmp_path):
    path = small.original("cin256", tmp_path / "model.safetensors")
    with pytest.raises(ConvertError, match="--original_config"):
        read_checkpoint(path)
    wrong = small.settings("sd1", tmp_path / "wrong.yaml")
    with pytest.raises(ConvertError, match="is of another model"):
        read_checkpoint(path, original_config=wrong)


def test_another_schedule_in_the_file(tmp_path):
    """The file's own betas decide, whether or not a formula gives them."""
    noise = np.linspace(1e-4, 2e-2, 1000)
    own = {"betas": noise.astype(np.float32),
           "alphas_cumprod": np.cumprod(1 - noise).astype(np.float32)}  # fmt: skip
    path = small.original("cin256", tmp_path / "model.safetensors", own)
    yaml = small.settings("cin256", tmp_path / "settings.yaml")
    imported = read_checkpoint(path, original_config=yaml)
    assert imported.config.diffusion.process == cfg.Discrete(1000, "linear", 1e-4, 0.02)
    assert "schedule is the file's own" in imported.notes[0]
    own["betas"] = own["betas"] ** 1.1
    path = small.original("cin256", tmp_path / "model.safetensors", own)
    found = read_checkpoint(path, original_config=yaml).config.diffusion.process
    assert found.schedule == "given"
    np.testing.assert_array_equal(found.betas, own["betas"].astype(np.float64))
    own["betas"] = own["betas"] - 1
    path = small.original("cin256", tmp_path / "model.safetensors", own)
    with pytest.raises(ConvertError, match=r"betas is \(-0.99.* a number above 0 and at most 1"):
        read_checkpoint(path, original_config=yaml)


def test_published_shapes_that_do_not_tell_the_prediction():
    from ldm_jax.config import published_models
    from ldm_jax.convert.compvis import settings

    model = published_models.MODELS["Stable Diffusion 2 (768, v)"]
    shape = replace(model.unet, num_heads=(1,) * 4)
    arguments = (replace(model.autoencoder, latent_scale=None), shape, model.conditioners)
    with pytest.raises(ConvertError, match="--prediction=eps or --prediction=v"):
        settings.of_known(*arguments, None)
    found = settings.of_known(*arguments, "v")
    assert (found.num_heads, found.image_size) == ((5, 10, 20, 20), 768)
    assert found.diffusion.prediction == "v"
    assert found.latent_scale == 0.18215


def test_other_files_are_told_what_they_are(tmp_path):
    path = tmp_path / "x.safetensors"
    for name, words in (
        ("lora_unet_x.alpha", "is a LoRA"), ("down_blocks.0.weight", "diffusers folder"),
        ("what", "no model of CompVis' layout; its first names are 'what'"),
    ):  # fmt: skip
        write_safetensors(path, {name: np.zeros(1, np.float32)})
        with pytest.raises(ConvertError, match=words):
            read_checkpoint(path)


def test_unexpected_tensors_are_named(tmp_path):
    more = {"model.diffusion_model.control": np.zeros(1, np.float32)}
    path = small.original("cin256", tmp_path / "model.safetensors", more)
    yaml = small.settings("cin256", tmp_path / "settings.yaml")
    with pytest.raises(ConvertError, match="the unet .* 1 unexpected: 'control'"):
        read_checkpoint(path, original_config=yaml)
    path = small.original("cin256", path, {"hypernet.x": np.zeros(1, np.float32)})
    with pytest.raises(ConvertError, match="unexpected tensors: hypernet.x"):
        read_checkpoint(path, original_config=yaml)


def test_conditions_that_are_not_known(tmp_path):
    """A masked image with an encoder of its own, channels of nothing known, a class map halved
    another number of times than the latents."""
    name = "cond_stage_model.encoder.conv_in.bias"
    path, yaml = tmp_path / "model.safetensors", tmp_path / "settings.yaml"
    small.original("inpainting_big", path, {name: np.zeros(32, np.float32)})
    with pytest.raises(ConvertError, match=f"another network than the first stage .'{name}' diff"):
        read_checkpoint(path, original_config=small.settings("inpainting_big", yaml))
    wide = {"model.diffusion_model.input_blocks.0.0.weight": np.zeros((32, 8, 3, 3), np.float32)}
    small.original("bsr_sr", path, wide)
    with pytest.raises(ConvertError, match="takes 8 channels for latents of 3; of conditions"):
        read_checkpoint(path, original_config=small.settings("bsr_sr", yaml))
    path = small.original("semantic_synthesis256", path)
    other = {"cond_stage_config": {"params": {"n_stages": 3}}}
    with pytest.raises(ConvertError, match="n_stages is 3; .* as many halvings as make 4"):
        read_checkpoint(
            path, original_config=small.settings("semantic_synthesis256", yaml, **other)
        )


def test_forms_of_inpainting_that_no_code_has(tmp_path):
    for name, form in (
        ("inpainting alone", "stable_diffusion"),
        ("inpainting", "latent_diffusion"),
    ):
        config = (small.MODELS | small.TASKS)[name]
        *others, _ = config.conditioners
        config = replace(config, conditioners=(*others, cfg.InpaintingConditioner(form)))
        assert "alone in that of latent diffusion" in writer.obstacles(config)[0]


def test_what_a_single_file_cannot_hold(tmp_path):
    imported = small.model("sd1")
    path = tmp_path / "model.safetensors"
    for config, words in (
        (replace(imported.config, unet=replace(small.UNET, norm_num_groups=16)), "norm_num_groups"),
        (replace(imported.config, autoencoder=replace(small.AUTOENCODER, patch_size=2),
                 image_size=32), "patch_size"),
    ):  # fmt: skip
        with pytest.raises(ConvertError, match=words):
            write_checkpoint(replace(imported, config=config), path)
    with pytest.raises(ConvertError, match="safetensors"):
        write_checkpoint(imported, tmp_path / "model.ckpt")
    write_checkpoint(imported, path)
    with pytest.raises(ConvertError, match="exists"):
        write_checkpoint(imported, path)


def test_the_estimator_of_depth_is_left_out_by_name(tmp_path):
    write_checkpoint(small.model("depth"), tmp_path / "model.safetensors")
    tensors, metadata = read_safetensors(tmp_path / "model.safetensors")
    midas = "depth_model.model.pretrained.model.cls_token"
    more = {**tensors, midas: np.zeros((1, 1, 8), np.float32)}
    write_safetensors(tmp_path / "with.safetensors", more, metadata)
    found = read_checkpoint(tmp_path / "with.safetensors")
    assert "estimates depth" in found.ignored[midas]
    assert found.config == small.TASKS["depth"]


def test_channels_beside_text_tell_of_the_condition(tmp_path):
    """Without metadata: as many as the latents are a picture to edit, one is depth."""
    for name, kind in (("edit", cfg.EditConditioner), ("depth", cfg.DepthConditioner)):
        model = small.TASKS[name]
        found = reader._conditioners(model.unet, model.conditioners[0])
        assert [type(part) for part in found] == [cfg.TextConditioner, kind]
    with pytest.raises(ConvertError, match="takes 6 channels for latents of 4; .* edit or depth"):
        reader._conditioners(replace(model.unet, concat_channels=2), model.conditioners[0])


@pytest.mark.parametrize("write", [write_checkpoint, write_folder])
def test_channels_beside_a_picture_to_edit_are_not_folded(tmp_path, write):
    model = small.TASKS["edit"]
    autoencoder = replace(model.autoencoder, latent_mean=(0.0,) * 4, latent_std=(2.0,) * 4)
    config = replace(model, autoencoder=autoencoder)
    imported = imported_model.make(config, small.numbers(config))
    with pytest.raises(ConvertError, match=r"cannot take in beside edit \(EditConditioner\)"):
        write(imported, tmp_path / "model.safetensors")
