"""Single files that are not as CompVis' code leaves them, but whose meaning is clear."""

from dataclasses import replace

import convert_models as small
import ml_dtypes
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.config import published_models
from ldm_jax.convert.__main__ import Arguments, run
from ldm_jax.convert.compvis import foreign, keys, settings
from ldm_jax.convert.compvis.reader import read_checkpoint
from ldm_jax.convert.compvis.writer import write_checkpoint
from ldm_jax.convert.diffusers.pipeline_folders import write_folder
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.loading import load
from ldm_jax.core.reading import FileFormatError
from ldm_jax.formats.safetensors_file import read_safetensors, write_safetensors
from ldm_jax.models.process import betas

ONE = np.ones(1, np.float32)
BUFFERS = {
    name: np.zeros(1000, np.float32)
    for name in ("ddim_sigmas", "ddim_alphas", "ddim_alphas_prev", "ddim_sqrt_one_minus_alphas",
                 "denoiser.sigmas", "sqrt_alphas_cumprod_prev")
} | {"cond_stage_model.logit_scale": ONE}  # fmt: skip


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    path = tmp_path_factory.mktemp("sd1") / "model.safetensors"
    write_checkpoint(small.model("sd1"), path)
    return read_safetensors(path)


@pytest.fixture
def read(sd1, tmp_path):
    """Reads the small SD 1 with a few tensors more, or after a change of all of them."""

    def changed(change=lambda tensors: tensors, more=None, **options):
        tensors, metadata = sd1
        path = tmp_path / "model.safetensors"
        write_safetensors(path, change(tensors) | (more or {}), metadata)
        return load(path, **options)

    return changed


def is_sd1(imported, config=small.MODELS["sd1"]):
    assert imported.config == config
    expected = small.model("sd1")
    tiny.same_bits(imported.params, expected.params)
    tiny.same_bits(imported.frozen, expected.frozen)


def test_more_buffers(read):
    imported = read(more=BUFFERS)
    is_sd1(imported)
    assert BUFFERS.keys() <= imported.ignored.keys()


@pytest.mark.parametrize("wrapper", ["module.", "model.", "model.module.", "_orig_mod."])
def test_wrappers_of_all_names(read, wrapper):
    is_sd1(read(lambda tensors: {wrapper + name: t for name, t in tensors.items()}))


def test_markers(read):
    model = small.MODELS["sd1"]
    v = replace(model.diffusion, prediction="v")
    imported = read(more={"v_pred": ONE})
    is_sd1(imported, replace(model, diffusion=v))
    assert "prediction v as the file's marker says" in imported.notes[0]
    process = replace(v.process, zero_terminal_snr=True)
    imported = read(more={"v_pred": ONE, "ztsnr": np.zeros(0, np.float32)})
    is_sd1(imported, replace(model, diffusion=replace(v, process=process, spacing="trailing")))
    assert "ztsnr" in imported.notes[1]
    is_sd1(read(more={"v_pred": ONE}, prediction="eps"))
    with pytest.raises(ConvertError, match="ends in noise alone"):
        read(more={"ztsnr": ONE})


@pytest.mark.parametrize("name", small.golden("compvis_names"))
def test_names_of_averages_get_their_dots_back(name):
    shapes = small.golden("compvis_names")[name]["shapes"]
    weights = [n for n in shapes if n.startswith(keys.UNET)]
    averages = {keys.ema_name(n): ONE for n in weights}
    assert list(foreign.averages_as_weights(averages)) == weights


def averages_alone(tensors):
    return {keys.ema_name(n) if n.startswith(keys.UNET) else n: t for n, t in tensors.items()}


def test_averages_alone(read):
    for weights in (None, "ema"):
        imported = read(averages_alone, {"model_ema.decay": ONE}, weights=weights)
        is_sd1(imported)
        assert imported.origin["weights"] == "ema"
        assert "averages alone" in imported.notes[0]
    with pytest.raises(ConvertError, match="no raw weights"):
        read(averages_alone, weights="raw")
    with pytest.raises(ConvertError, match="model_ema.diffusion_modelcontrol is not"):
        read(averages_alone, {"model_ema.diffusion_modelcontrol": ONE})


def only(*prefixes):
    return lambda tensors: {n: t for n, t in tensors.items() if n.startswith(prefixes)}


def test_a_first_stage_with_its_prefix(read):
    imported = read(only(keys.FIRST_STAGE))
    assert imported.config == replace(small.AUTOENCODER, latent_scale=None)
    autoencoder = small.model("sd1").frozen["autoencoder"]
    tiny.same_bits(imported.frozen["autoencoder"], autoencoder)


def test_parts_that_are_missing_are_named_and_can_be_given(read, tmp_path):
    without_vae, without_text = only("model.", "cond"), only("model.", "first")
    with pytest.raises(
        ConvertError,
        match=r"model.diffusion_model.\*, cond_stage_model.\* but no first_stage_model.\*.*"
        r"python -m ldm_jax.convert.*--vae=PATH",
    ):
        read(without_vae)
    with pytest.raises(
        ConvertError, match=r"but no cond_stage_model.\*.*tokens of width 64.*--text_encoder=PATH"
    ):
        read(without_text)
    tokenizer = small.make_tokenizer(tmp_path / "source")
    folder = tmp_path / "folder"
    write_folder(small.model("sd1", tokenizer), folder)
    write_checkpoint(small.model("sd1"), tmp_path / "whole.safetensors")
    for other in (folder, folder / "vae", tmp_path / "whole.safetensors"):
        is_sd1(read(without_vae, vae=other))
    for other in (folder, folder / "text_encoder", tmp_path / "whole.safetensors"):
        is_sd1(read(without_text, text_encoder=other))
    is_sd1(read(only("model."), vae=folder, text_encoder=folder))
    replaced = read(vae=folder, text_encoder=folder)
    is_sd1(replaced)
    assert "--vae names another" in replaced.ignored["first_stage_model.encoder.conv_in.weight"]
    path = tmp_path / "unet.safetensors"
    tensors, metadata = read_safetensors(tmp_path / "whole.safetensors")
    write_safetensors(path, only("model.")(tensors), metadata)
    given = {"vae": folder / "vae", "text_encoder": folder / "text_encoder"}
    run(Arguments(path, tmp_path / "made", tokenizer=tokenizer, **given))
    is_sd1(load(tmp_path / "made"))
    with pytest.raises(ConvertError, match="has no text encoder"):
        read(without_text, text_encoder=folder / "vae")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize("name", ["betas", "alphas_cumprod"])
@pytest.mark.parametrize("zero", [False, True])
def test_schedules_are_recognised_in_any_precision(dtype, name, zero):
    """Half of the digits leave 0.0313 of a first noise of 0.0292: the formula has them all."""
    other = cfg.Diffusion(cfg.Discrete(1000, "linear", 1e-4, 0.02), "v")
    for process in {model.diffusion.process for model in published_models.MODELS.values()}:
        process = replace(process, zero_terminal_snr=zero)
        noise = betas(process)
        stored = (noise if name == "betas" else np.cumprod(1 - noise)).astype(dtype)
        for told in (replace(other, process=process), other):
            found, notes = settings.stored_schedule({name: stored}, told)
            assert found.process == process
            assert len(notes) == (told is other)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"betas": np.zeros((10, 10), np.float32)}, "betas are not a noise schedule"),
        (
            {"betas": np.full(200_000, 0.1, np.float32)},
            "200000 betas .* is not a noise schedule: Discrete.num_",
        ),
        ({"betas": np.zeros(10, np.int32)}, "betas are not a noise schedule"),
        ({"scale_factor": np.zeros(2, np.float32)}, "scale_factor is no number"),
        ({"model.diffusion_model.output_blocks.99999999.0.x": ONE}, "of part 99999999"),
        ({f"first_stage_model.encoder.down.{'9' * 5000}.x": ONE}, "of part 999999999999 of"),
        ({"first_stage_model.encoder.down.0.block.3000.x": ONE}, "of part 3000 of"),
        ({"who": ONE}, "unexpected tensors: who. If they are no part of the model, save it"),
    ],
)
def test_what_is_not_clear_is_named(read, more, words):
    with pytest.raises(ConvertError, match=words):
        read(more=more)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 5000, "nested too deeply|not YAML"), ("- 1", "it has no model.params"),
        ("model: {params: 3}", "it has no model.params"),
        ("model: {params: {unet_config: {params: [1]}}}", "it has no model.params"),
        ("model: {params: {unet_config: {params: {model_channels: x}}}}", "model_channels is"),
        ("model: {params: {unet_config: {params: {}}}}", "model_channels is null"),
        ("a: [", "not YAML"),
    ],
)  # fmt: skip
def test_settings_that_are_none(read, tmp_path, text, words):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(ConvertError, match=words):
        read(original_config=path)
    with pytest.raises(FileFormatError, match="does not exist"):
        read_checkpoint(tmp_path / "model.safetensors", original_config=tmp_path / "no.yaml")
