"""diffusers' folders: round trips, settings that change what is computed, and refusals."""

import json
import shutil
from dataclasses import replace

import convert_models as small
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.config import published_models
from ldm_jax.convert import imported_model
from ldm_jax.convert.compvis.reader import read_checkpoint
from ldm_jax.convert.compvis.writer import write_checkpoint
from ldm_jax.convert.diffusers import architectures
from ldm_jax.convert.diffusers.pipeline_folders import read_folder, write_folder
from ldm_jax.convert.fields import Fields
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core.reading import FileFormatError
from ldm_jax.models.process import betas


@pytest.fixture
def tokenizer(tmp_path):
    return small.make_tokenizer(tmp_path / "tokenizer source")


@pytest.fixture
def saved(tmp_path, tokenizer):
    """A folder of the small SD 1, and a function that changes a value of one of its files."""
    folder = tmp_path / "saved"
    write_folder(small.model("sd1", tokenizer), folder)

    def change(file, **values):
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return folder

    return change


@pytest.mark.parametrize("name", small.IN_DIFFUSERS)
def test_there_and_back_is_the_same(tmp_path, tokenizer, name):
    imported = small.model(name, tokenizer)
    write_folder(imported, tmp_path / "model")
    again = read_folder(tmp_path / "model")
    assert again.config == imported.config
    tiny.same_bits(again.params, imported.params)
    tiny.same_bits(again.frozen, imported.frozen)
    if "caption" in imported.config.inputs:
        assert (again.tokenizer / "vocab.json").read_text() == '{"a": 0}'
    else:
        assert again.tokenizer is None


def test_folders_of_super_resolution_that_do_not_fit(tmp_path, tokenizer):
    folder = tmp_path / "model"
    write_folder(small.model("upscaler", tokenizer), folder)

    def change(file, **values):
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    change("vae/config.json", scaling_factor=0.3)
    assert "multiplies latents by 0.08333" in read_folder(folder).notes[0]
    change("low_res_scheduler/scheduler_config.json", num_train_timesteps=20)
    with pytest.raises(ConvertError, match="class_count is 30; it must be 20"):
        read_folder(folder)
    change("unet/config.json", in_channels=8)
    with pytest.raises(ConvertError, match="in_channels is 8; it must be 7, the latents' and a"):
        read_folder(folder)


@pytest.mark.parametrize("config", [small.AUTOENCODER, small.CODEBOOK])
def test_first_stage_alone(tmp_path, config):
    imported = imported_model.make(config, small.numbers(config))
    write_folder(imported, tmp_path / "model")
    again = read_folder(tmp_path / "model")
    assert (again.config, again.params) == (config, {})
    tiny.same_bits(again.frozen, imported.frozen)


def test_mean_and_deviation_of_latents(tmp_path, saved, tokenizer):
    """As SDXL's and SD 3's pipelines read them; Stable Diffusion's do not."""
    mean, std = [1.0, 0.0, -3.0, 0.5], [0.5, 1.0, 2.0, 3.0]
    alone = saved("vae/config.json", latents_mean=mean, latents_std=std) / "vae"
    config = read_folder(alone).config
    assert (list(config.latent_mean), list(config.latent_std)) == (mean, std)
    whole = read_folder(alone.parent)
    assert whole.config.autoencoder == small.AUTOENCODER
    assert "StableDiffusionPipeline of diffusers knows scaling_factor alone" in whole.notes[0]
    saved("vae/config.json", latents_mean=None, latents_std=None, shift_factor=0.1)
    config = read_folder(alone).config
    assert (config.latent_mean, config.latent_std) == ((0.1,) * 4, (1.0,) * 4)


def test_normalised_channels_are_folded_into_the_autoencoder(tmp_path, tokenizer):
    normalised = {"latent_mean": (1.0, 0.0, -3.0, 0.5), "latent_std": (0.5, 1.0, 2.0, 3.0)}
    config = replace(small.AUTOENCODER, latent_scale=1.0, **normalised)
    model = replace(small.MODELS["sd1"], autoencoder=config)
    imported = imported_model.make(model, small.numbers(model), tokenizer=tokenizer)
    written = write_folder(imported, tmp_path / "model")
    assert "written into quant_conv and post_quant_conv" in written.notes[-1]
    found = read_folder(tmp_path / "model")
    assert found.config.autoencoder == replace(small.AUTOENCODER, latent_scale=1.0)
    write_checkpoint(imported, tmp_path / "model.safetensors")
    single = read_checkpoint(tmp_path / "model.safetensors")
    assert single.config == found.config
    tiny.same_bits(single.frozen, found.frozen)

    # The upscaler's pipeline has a scale of its own.
    other = replace(small.AUTOENCODER, latent_scale=0.5)
    model = replace(small.TASKS["upscaler"], autoencoder=other)
    imported = imported_model.make(model, small.numbers(model), tokenizer=tokenizer)
    assert "whose own scale is then 0.08333" in write_folder(imported, tmp_path / "x4").notes[-1]
    found = read_folder(tmp_path / "x4")
    assert found.config.autoencoder.latent_scale == 0.08333 and not found.notes
    kernels = [part.frozen["autoencoder"]["quant_conv"]["kernel"] for part in (found, imported)]
    np.testing.assert_allclose(kernels[0][..., :4], kernels[1][..., :4] * (0.5 / 0.08333), 1e-6)

    faces = small.MODELS["faces"]
    model = replace(faces, autoencoder=replace(faces.autoencoder, **normalised))
    imported = imported_model.make(model, small.numbers(model))
    for write, name in ((write_folder, "faces"), (write_checkpoint, "faces.safetensors")):
        with pytest.raises(ConvertError, match="a codebook cannot take them in"):
            write(imported, tmp_path / name)


def test_dtypes_are_kept_or_asked_for(tmp_path, tokenizer):
    config = small.MODELS["sd1"]
    half = imported_model.make(config, small.numbers(config, np.float16), tokenizer=tokenizer)
    write_folder(half, tmp_path / "half")
    write_folder(read_folder(tmp_path / "half"), tmp_path / "single", dtype="float32")
    for folder, dtype in (("half", np.float16), ("single", np.float32)):
        found = read_folder(tmp_path / folder).params["unet"]["conv_in"]["kernel"]
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, half.params["unet"]["conv_in"]["kernel"])
    large = small.model("sd1", tokenizer)
    large.params["unet"]["conv_in"]["bias"][0] = 1e6
    with pytest.raises(ConvertError, match="larger than float16"):
        write_folder(large, tmp_path / "large", dtype="float16")
    assert not (tmp_path / "large").exists()


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("unet/config.json", {"act_fn": "gelu"}, 'act_fn is "gelu"; it must be one of "silu"'),
        ("unet/config.json", {"freq_shift": 1}, "freq_shift is 1; it must be 0"),
        ("unet/config.json", {"encoder_hid_dim": 3}, "encoder_hid_dim is 3"),
        ("unet/config.json", {"brand_new": 3}, "brand_new is 3; ldm_jax does not know this"),
        ("unet/config.json", {"in_channels": 8}, "in_channels is 8; it must be 4"),
        ("unet/config.json", {"cross_attention_dim": 32}, "its parts do not match"),
        ("unet/config.json", {"layers_per_block": [1, 2]}, "the same for all levels"),
        ("unet/config.json", {"down_block_types": ["KDownBlock2D"] * 2}, "others are not"),
        ("vae/config.json", {"latents_mean": [0.1] * 4}, "beside the other of latents_mean"),
        ("vae/config.json", {"use_quant_conv": False}, "use_quant_conv is false"),
        ("text_encoder/config.json", {"hidden_act": "relu"}, 'hidden_act is "relu"'),
        ("text_encoder/config.json", {"layer_norm_eps": 1e-6}, "layer_norm_eps"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1]}, "trained_betas"),
        (
            "scheduler/scheduler_config.json",
            {"num_train_timesteps": 3 * 10**8},
            "num_timesteps is 3000",
        ),
        ("scheduler/scheduler_config.json", {"set_alpha_to_one": "no"}, "set_alpha_to_one"),
        ("scheduler/scheduler_config.json", {"beta_end": float("nan")}, "beta_end is NaN"),
        ("scheduler/scheduler_config.json", {"_class_name": ["DDIMScheduler"]}, "_class_name"),
        ("model_index.json", {"_class_name": ["StableDiffusionPipeline"]}, "_class_name"),
        ("unet/config.json", {"down_block_types": [["x"], {}]}, "down_block_types"),
        ("unet/config.json", {"block_out_channels": [2**40, 64]}, "block_out_channels"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": 1}, "rescale_betas"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "laplace"}, "beta_schedule"),
        ("scheduler/scheduler_config.json", {"_class_name": "FlowMatch"}, "_class_name"),
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "_class_name"),
        ("model_index.json", {"unet": [None, None]}, "cannot do without"),
        ("model_index.json", {"controlnet": ["a", "b"]}, "controlnet"),
    ],
)
def test_settings_that_would_change_pictures_are_refused(saved, file, values, words):
    with pytest.raises(ConvertError) as error:
        read_folder(saved(file, **values))
    assert words in str(error.value)
    assert file in str(error.value) or "parts" in words


def test_harmless_settings_are_not(saved):
    folder = saved("unet/config.json", upcast_attention=True, _private=3, new=None, newer=False)
    saved("vae/config.json", force_upcast=True)
    saved("model_index.json", safety_checker=["stable_diffusion", "Checker"])
    assert read_folder(folder).config == small.MODELS["sd1"]


def test_schedulers(saved):
    file = "scheduler/scheduler_config.json"
    folder = saved(file, _class_name="PNDMScheduler", skip_prk_steps=True)
    path = folder / file
    values = json.loads(path.read_text())
    for name in ("timestep_spacing", "set_alpha_to_one", "clip_sample"):
        del values[name]
    path.write_text(json.dumps(values | {"_class_name": "EulerDiscreteScheduler"}))
    found = read_folder(folder).config.diffusion
    assert (found.spacing, found.final_alpha_bar) == ("linspace", "one")
    values |= {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    path.write_text(json.dumps(values | {"beta_schedule": "sigmoid"}))
    found = read_folder(folder).config.diffusion.process
    assert (found.schedule, found.zero_terminal_snr) == ("sigmoid_betas", True)
    given = [0.1, 0.2, 0.3]
    path.write_text(json.dumps(values | {"trained_betas": given, "num_train_timesteps": 3}))
    found = read_folder(folder).config.diffusion.process
    assert (found.schedule, found.betas) == ("given", tuple(given))
    path.write_text(json.dumps(values | {"prediction_type": "epsilon"}))
    with pytest.raises(ConvertError, match="scheduler_config.json: .* the process ends in noise"):
        read_folder(folder)
    path.unlink()
    with pytest.raises(FileFormatError, match="scheduler_config.json: does not exist"):
        read_folder(folder)


def test_schedules_there_and_back(tmp_path, tokenizer):
    """Formulas that diffusers lacks are written as the betas that they give."""
    imported = small.model("sd2", tokenizer)
    for process in (
        cfg.Discrete(zero_terminal_snr=True), cfg.Discrete(3, "given", betas=(0.1, 0.2, 0.3)),
        cfg.Discrete(8, "sqrt"), cfg.Discrete(8, shift=2.0, zero_terminal_snr=True),
    ):  # fmt: skip
        diffusion = replace(imported.config.diffusion, process=process)
        config = replace(imported.config, diffusion=diffusion)
        write_folder(replace(imported, config=config), tmp_path / "model", overwrite=True)
        found = read_folder(tmp_path / "model").config.diffusion.process
        assert found == process or found.schedule == "given"
        np.testing.assert_allclose(betas(found), betas(process), rtol=1e-9)
    diffusion = cfg.Diffusion(cfg.VP())
    other = replace(imported, config=replace(imported.config, diffusion=diffusion))
    with pytest.raises(ConvertError, match="diffusion.process is a VP with prediction 'eps'"):
        write_folder(other, tmp_path / "other")


def test_a_vq_model_must_say_its_scale(tmp_path):
    imported = imported_model.make(small.CODEBOOK, small.numbers(small.CODEBOOK))
    write_folder(imported, tmp_path / "model")
    path = tmp_path / "model/config.json"
    values = json.loads(path.read_text())
    del values["scaling_factor"]
    path.write_text(json.dumps(values))
    with pytest.raises(ConvertError, match='add "scaling_factor": 1.0'):
        read_folder(tmp_path / "model")


def test_published_vq_models_have_scale_one_without_saying_it(tmp_path):
    values = architectures.write_autoencoder(published_models.VQ_F4, 1.0, 256)
    del values["scaling_factor"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    found = architectures.read_autoencoder(Fields.read(tmp_path / "config.json"))
    assert found == published_models.VQ_F4 and found.latent_scale == 1.0


def weights_of(folder, part, variant):
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    middle = f".{variant}" if variant else ""
    return folder / part / f"{stem}{middle}.safetensors"


def test_variants_are_a_matter_of_each_component(saved):
    folder = saved("unet/config.json")
    weights_of(folder, "unet", None).rename(weights_of(folder, "unet", "fp16"))
    for variant, notes in (
        (None, ["unet has weights of the variant fp16 alone"]),
        ("fp16", ["text_encoder has no weights of the variant fp16", "vae has no weights"]),
    ):
        imported = read_folder(folder, variant=variant)
        tiny.same_bits(imported.params, small.model("sd1").params)
        assert len(imported.notes) == len(notes)
        for note in notes:
            assert any(said.startswith(note) for said in imported.notes), imported.notes


def test_a_choice_among_variants_is_the_users(saved):
    folder = saved("unet/config.json")
    weights_of(folder, "unet", None).rename(weights_of(folder, "unet", "fp16"))
    shutil.copy(weights_of(folder, "unet", "fp16"), weights_of(folder, "unet", "non_ema"))
    with pytest.raises(ConvertError, match="python -m ldm_jax.convert.* --variant"):
        read_folder(folder)
    tiny.same_bits(read_folder(folder, variant="fp16").params, small.model("sd1").params)
    shutil.copy(weights_of(folder, "unet", "fp16"), weights_of(folder, "unet", None))
    assert read_folder(folder).notes == ()
    for file in (folder / "unet").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ConvertError, match="no weights: no file called .* that ends in .saf"):
        read_folder(folder)


def test_what_diffusers_does_not_have(tmp_path, tokenizer):
    imported = small.model("sd1", tokenizer)
    config = imported.config
    own = cfg.TextTransformer(vocab_size=20, max_length=8, width=64, pooled_dim=None)
    for changed, words in (
        (replace(config, unet=replace(config.unet, patch_size=2)), "unet.patch_size is 2"),
        (replace(config, autoencoder=replace(config.autoencoder, patch_size=2), image_size=32),
         "autoencoder.patch_size is 2"),
        (replace(config, conditioners=(cfg.TextConditioner(own),)), "the text encoder is a TextT"),
    ):  # fmt: skip
        with pytest.raises(ConvertError, match=words):
            write_folder(replace(imported, config=changed), tmp_path / "model")
    with pytest.raises(ConvertError, match="no pipeline"):
        write_folder(small.model("class token"), tmp_path / "model")
    with pytest.raises(ConvertError, match="--tokenizer"):
        write_folder(small.model("sd1"), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_nothing_is_overwritten_unasked(tmp_path, tokenizer):
    imported = small.model("sd1", tokenizer)
    target = tmp_path / "model"
    write_folder(imported, target)
    with pytest.raises(ConvertError, match="--overwrite"):
        write_folder(imported, target)
    write_folder(imported, target, overwrite=True)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(ConvertError, match="without a model"):
        write_folder(imported, mine, overwrite=True)
    assert (mine / "thesis.txt").exists()
    assert not list(tmp_path.glob(".*"))


def test_the_estimator_of_depth_is_not_read(tmp_path, tokenizer):
    folder = tmp_path / "model"
    write_folder(small.model("depth", tokenizer), folder)
    assert not read_folder(folder).notes
    path = folder / "model_index.json"
    index = json.loads(path.read_text()) | {
        "depth_estimator": ["transformers", "DPTForDepthEstimation"],
        "feature_extractor": ["transformers", "DPTImageProcessor"],
    }
    path.write_text(json.dumps(index))
    (note,) = read_folder(folder).notes
    assert note.startswith("its depth_estimator is not used or kept")
    unet = folder / "unet/config.json"
    unet.write_text(json.dumps(json.loads(unet.read_text()) | {"in_channels": 8}))
    with pytest.raises(ConvertError, match="in_channels is 8; it must be 5, the latents' and the"):
        read_folder(folder)
