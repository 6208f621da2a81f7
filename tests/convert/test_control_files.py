"""ControlNets in files: written and read again in both forms, and what is noted of them. More of
what is refused, and why, is in `test_adapter_corpus`."""

import json
from dataclasses import replace

import convert_models as small
import numpy as np
import pytest
from corpus_controls import BRANCH, CONTROL, MODEL, ORIGINAL, PREFIXED, STAGE, UNET, random

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model
from ldm_jax.convert.controlnets.__main__ import ControlArguments, main, run
from ldm_jax.convert.controlnets.control_files import read_control
from ldm_jax.convert.controlnets.control_writer import write_control
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.native import write_native
from ldm_jax.core import tree
from ldm_jax.formats.safetensors_file import read_safetensors, write_safetensors


def _read(path, model=MODEL):
    return read_control(path, model, UNET)


def _check_same(found, wanted=CONTROL):
    assert found.config == wanted.config
    one, other = tree.flatten(found.params), tree.flatten(wanted.params)
    assert one.keys() == other.keys()
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf, other[name], name)


@pytest.mark.parametrize("form", ["diffusers", "original"])
def test_what_is_written_is_read_again(form, tmp_path):
    path = tmp_path / ("edges" if form == "diffusers" else "edges.safetensors")
    write_control(CONTROL, path, form)
    _check_same(_read(path))
    with pytest.raises(ConvertError, match="exists"):
        write_control(CONTROL, path, form)


def test_names_of_the_original():
    assert {
        "input_hint_block.0.weight", "input_hint_block.14.bias", "zero_convs.3.0.weight",
        "middle_block_out.0.bias", "time_embed.0.weight", "input_blocks.0.0.weight",
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", "middle_block.1.proj_in.weight",
    } <= ORIGINAL.keys()  # fmt: skip
    assert len(ORIGINAL) == len(tree.flatten(CONTROL.params))


def test_the_config_beside_weights_counts(tmp_path):
    pooled = replace(CONTROL, config=replace(BRANCH, global_pool=True))
    write_control(pooled, tmp_path / "mean", "diffusers")
    _check_same(_read(tmp_path / "mean" / "diffusion_pytorch_model.safetensors"), pooled)


def test_what_a_file_is_noted_to_hold(tmp_path):
    beside = {
        "model.diffusion_model.out.2.bias": np.zeros(4, np.float32),
        "cond_stage_model.transformer.x": np.zeros(1, np.float32),
        "betas": np.zeros(1000, np.float32),
    }
    path = tmp_path / "one.safetensors"
    write_safetensors(path, PREFIXED | beside | {"difference": np.zeros((), np.float32)})
    found = _read(path)
    assert "differences" in found.notes[0] and found.ignored.keys() == beside.keys()


def test_hints_that_begin_with_blue_are_turned(tmp_path):
    write_control(CONTROL, tmp_path / "edges", "diffusers")
    config = tmp_path / "edges" / "config.json"
    said = json.loads(config.read_text()) | {"controlnet_conditioning_channel_order": "bgr"}
    config.write_text(json.dumps(said))
    kernel = _read(tmp_path / "edges").params["controlnet_cond_embedding"]["conv_in"]["kernel"]
    own = CONTROL.params["controlnet_cond_embedding"]["conv_in"]["kernel"]
    np.testing.assert_array_equal(kernel, own[:, :, ::-1])


@pytest.mark.parametrize("told", ["name", "settings"])
def test_shuffle_adds_the_mean(told, tmp_path):
    path = tmp_path / ("control_shuffle.safetensors" if told == "name" else "one.safetensors")
    write_safetensors(path, ORIGINAL)
    if told == "settings":
        said = {"model": {"params": {"global_average_pooling": True}}}
        path.with_suffix(".yaml").write_text(json.dumps(said))
    found = _read(path)
    assert found.config.global_pool
    write_control(found, tmp_path / "shuffle_2.safetensors", "original")
    with pytest.raises(ConvertError, match="name with shuffle"):
        write_control(found, tmp_path / "two.safetensors", "original")


@pytest.mark.parametrize("form", ["diffusers", "original"])
def test_one_of_another_width_is_refused(form, tmp_path):
    path = tmp_path / ("edges" if form == "diffusers" else "edges.safetensors")
    write_control(CONTROL, path, form)
    other = replace(MODEL, unet=replace(MODEL.unet, context_dim=96), conditioners=(
        replace(small.TEXT, encoder=replace(small.CLIP, width=96, num_heads=3)),
    ))  # fmt: skip
    with pytest.raises(ConvertError, match="reads text of width 64; this model.* width 96"):
        _read(path, other)


def test_one_of_another_first_stage_is_refused(tmp_path):
    write_control(CONTROL, tmp_path / "edges", "diffusers")
    with pytest.raises(ConvertError, match="size of a hint, in latents is 8, the model's 2"):
        _read(tmp_path / "edges", small.MODELS["sd1"])


def test_what_a_form_cannot_hold(tmp_path):
    small_hint = cfg.control_of(MODEL.unet, small.AUTOENCODER)
    with pytest.raises(ConvertError, match="hint_widths is"):
        write_control(replace(CONTROL, config=small_hint), tmp_path / "a.safetensors", "original")
    folded = replace(CONTROL, config=replace(BRANCH, unet=replace(MODEL.unet, patch_size=2)))
    with pytest.raises(ConvertError, match="patch_size is 2"):
        write_control(folded, tmp_path / "a", "diffusers")


def test_the_command(tmp_path, capsys):
    params = {"autoencoder": random(imported_model.autoencoder_shapes(STAGE)), "unet": UNET}
    params |= {"text_encoder": random(imported_model.conditioner_shapes(small.TEXT))}
    tokenizer = small.make_tokenizer(tmp_path / "tokenizer")
    model = imported_model.make(MODEL, params, tokenizer=tokenizer)
    write_native(model, tmp_path / "model")
    write_safetensors(tmp_path / "one.safetensors", ORIGINAL)
    told = run(ControlArguments(
        tmp_path / "one.safetensors", tmp_path / "out", tmp_path / "model", dtype="float16"
    ))  # fmt: skip
    assert f"parameters: {tree.count(CONTROL.params):,}" in told and "wrote" in told
    tensors, _ = read_safetensors(tmp_path / "out" / "diffusion_pytorch_model.safetensors")
    assert {t.dtype for t in tensors.values()} == {np.dtype(np.float16)}
    assert main([str(tmp_path / "out"), f"--model={tmp_path / 'model'}", "--inspect"]) == 0
    assert "8 times as large as latents" in capsys.readouterr().out
