"""Files of VQGAN's second stage: what is read, what must be told, and what is refused."""

import numpy as np
import pytest
import tiny
import tiny_codes

from ldm_jax import config as cfg
from ldm_jax.convert.code_models import load_code_model
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.loading import load
from ldm_jax.formats.safetensors_file import write_safetensors

YAML = """
model:
  params:
    {more}
    cond_stage_config: {condition}
    transformer_config:
      params: {{vocab_size: 12, block_size: 16, n_layer: 2, n_head: {heads}, n_embd: 16}}
    first_stage_config:
      params: {{ddconfig: {{resolution: 8, ch_mult: [1, 1]}}}}
"""
LABELS = "{target: taming.modules.util.Labelator, params: {n_classes: 5}}"


@pytest.fixture(scope="module")
def tensors():
    config = tiny_codes.config()
    return tiny_codes.taming_tensors(config, *tiny_codes.params_of(config))


@pytest.fixture(scope="module")
def file(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("taming") / "model.safetensors"
    write_safetensors(path, tensors)
    return path


def written(tmp_path, condition=LABELS, heads=2, more="pkeep: 1.0"):
    path = tmp_path / "config.yaml"
    path.write_text(YAML.format(condition=condition, heads=heads, more=more))
    return path


def test_a_file_is_read_with_its_settings_or_with_options(file, tmp_path):
    config = tiny_codes.config()
    params, frozen = tiny_codes.params_of(config)
    for options in (
        {"original_config": written(tmp_path)}, {"heads": 2, "num_classes": 5},
    ):  # fmt: skip
        found = load_code_model(file, **options)
        assert found.config == config
        tiny.same_bits(found.params, params)
        tiny.same_bits(found.frozen, frozen)
        assert set(found.ignored) == {f"transformer.blocks.{i}.attn.mask" for i in range(2)}
    for settings in (
        written(tmp_path, "__is_unconditional__"), written(tmp_path, more="unconditional: true"),
    ):  # fmt: skip
        assert load_code_model(file, original_config=settings).config.condition is None


def test_what_cannot_be_known_or_is_not_supported_is_refused(file, tensors, tmp_path):
    with pytest.raises(ConvertError, match=r"number of\s+attention heads.*--original_config"):
        load_code_model(file)
    with pytest.raises(ConvertError, match="num_heads is 3; it must be a divisor of width 16"):
        load_code_model(file, heads=3)
    with pytest.raises(ConvertError, match="the condition is 'taming.DummyCondStage'"):
        load_code_model(file, original_config=written(tmp_path, "{target: taming.DummyCondStage}"))
    with pytest.raises(ConvertError, match="down_factor is 4; it must be 2"):
        coordinates = "{target: taming.CoordStage, params: {n_embed: 12, down_factor: 4}}"
        load_code_model(file, original_config=written(tmp_path, coordinates))
    with pytest.raises(ConvertError, match=r"permuter_config is .* codes row by row"):
        order = "permuter_config: {target: taming.modules.transformer.permuter.ZCurve}"
        load_code_model(file, original_config=written(tmp_path, more=order))
    with pytest.raises(ConvertError, match="sos_token is 3"):
        more = "unconditional: true\n    sos_token: 3"
        load_code_model(file, original_config=written(tmp_path, more=more))
    other = tmp_path / "other.safetensors"
    images = {
        name.replace("first_stage_model", "cond_stage_model"): tensor
        for name, tensor in tensors.items() if name.startswith("first_stage_model")
    }  # fmt: skip
    write_safetensors(other, tensors | images)
    with pytest.raises(ConvertError, match="conditioned on the codes of images"):
        load_code_model(other, heads=2)
    write_safetensors(other, tensors | {"other.weight": np.zeros(2, np.float32)})
    with pytest.raises(ConvertError, match=r"unexpected tensors: other.weight"):
        load_code_model(other, heads=2)
    long = np.zeros((1, 20, 16), np.float32)
    write_safetensors(other, tensors | {"transformer.pos_emb": long})
    with pytest.raises(ConvertError, match="20 positions, which are not the codes of a square"):
        load_code_model(other, heads=2)


def test_its_first_stage_can_be_used_alone(file):
    found = load(file)
    assert isinstance(found.config, cfg.Autoencoder) and not found.params
    tiny.same_bits(found.frozen, tiny_codes.params_of(tiny_codes.config())[1])
    assert "sample_codes" in found.ignored["transformer.head.weight"]
