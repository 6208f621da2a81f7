"""Configs that claim what their tensors are not: refused before anything is built."""

import dataclasses
import json
import typing
from dataclasses import replace

import convert_models as small
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.convert import claims, imported_model
from ldm_jax.convert.diffusers.pipeline_folders import read_folder, write_folder
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.native import read_native, write_native
from ldm_jax.core import tree

PARTS = (
    cfg.UNet, cfg.Autoencoder, cfg.Pixels, cfg.TextTransformer, cfg.CLIPText, cfg.BERTText,
    cfg.SentenceBERT,
    cfg.ClassConditioner, cfg.TextConditioner, cfg.KL, cfg.VQ, cfg.Gumbel, cfg.FSQ, cfg.LFQ,
    cfg.Discrete, cfg.Diffusion, cfg.Model, cfg.LowResConditioner, cfg.NoiseAugmentation,
    cfg.ClassMapConditioner, cfg.ClassMaps, cfg.LayoutConditioner, cfg.LayoutTokens,
    cfg.ControlBranch,
)  # fmt: skip


def test_every_whole_number_is_of_a_kind():
    """A number that is added to a model must be bounded, or be known to need no bound."""
    kinds = claims.DEPTHS | claims.WIDTHS | claims.OTHERS
    for part in PARTS:
        hints = typing.get_type_hints(part)
        for field in dataclasses.fields(part):
            hint = str(hints[field.name])
            if "int" in hint.replace("Point", "").replace("Inpainting", ""):
                assert field.name in kinds, f"{part.__name__}.{field.name}"


@pytest.mark.parametrize("name", small.MODELS | small.TASKS)
def test_what_is_true_is_taken(name):
    config = (small.MODELS | small.TASKS)[name]
    shapes = tree.flatten(imported_model.shapes(config))
    claims.check(config, {n: np.empty(leaf.shape) for n, leaf in shapes.items()}, "model.json")


UNET = small.UNET
CLAIMS = [
    (replace(UNET, layers_per_block=60), "UNet.layers_per_block is 60"),
    (replace(UNET, transformer_layers=60), "UNet.transformer_layers is 60"),
    (replace(UNET, block_out_channels=(32, 65536)), "UNet.block_out_channels is 65536"),
    (replace(UNET, context_dim=65536), "UNet.context_dim is 65536"),
    (replace(UNET, concat_channels=65536), "UNet.concat_channels is 65536"),
    (cfg.TextConditioner(replace(small.CLIP, layers=60), tokenizer="clip"),
     "CLIPText.layers is 60"),
    (cfg.TextConditioner(replace(small.CLIP, vocab_size=10**6), tokenizer="clip"),
     "CLIPText.vocab_size"),
    (cfg.ClassConditioner(10**6), "ClassConditioner.num_classes"),
    (replace(small.AUTOENCODER, layers_per_block=60), "Autoencoder.layers_per_block is 60"),
    (replace(small.AUTOENCODER, bottleneck=cfg.VQ(10**6)), "VQ.size"),
]  # fmt: skip


@pytest.mark.parametrize(("claim", "words"), CLAIMS, ids=[c[1] for c in CLAIMS])
def test_what_cannot_be_is_refused(claim, words):
    tensors = {f"w{i}": np.empty((64, 64)) for i in range(50)}
    with pytest.raises(ConvertError, match=words) as error:
        claims.check(claim, tensors, "model.json")
    assert str(error.value).startswith("model.json says")


@pytest.mark.parametrize(
    ("part", "field", "value", "words"),
    [
        ("unet", "context_dim", 4096, "model.json says ClassConditioner.context_dim is 4096"),
        ("unet", "layers_per_block", 3000, "model.json: config.unet.layers_per_block is 3000"),
        (
            "process",
            "num_timesteps",
            3 * 10**8,
            "model.json: config.diffusion.process.num_timesteps is",
        ),
        ("autoencoder", "block_out_channels", [32] * 400, "model.json: Autoencoder.block_out_ch"),
    ],
)
def test_a_native_folder_is_compared_before_it_is_built(
    tmp_path, monkeypatch, part, field, value, words
):
    write_native(small.model("class token"), tmp_path / "model")
    path = tmp_path / "model/model.json"
    values = json.loads(path.read_text())
    monkeypatch.setattr(imported_model, "shapes", None)
    (values["diffusion"] if part == "process" else values)[part][field] = value
    if field == "context_dim":
        values["conditioners"][0][field] = value
    path.write_text(json.dumps(values))
    (tmp_path / "model/digests.json").unlink()  # changed on purpose
    with pytest.raises(ValueError, match=words):
        read_native(tmp_path / "model")


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("unet", {"layers_per_block": 3000}, ": UNet.layers_per_block is 3000"),
        ("vae", {"layers_per_block": 3000}, ": Autoencoder.layers_per_block is 3000"),
        ("text_encoder", {"num_hidden_layers": 3000}, ": CLIPText.layers is 3000"),
        ("text_encoder", {"num_hidden_layers": 64}, " says CLIPText.layers is 64"),
        ("text_encoder", {"max_position_embeddings": 65000}, " says CLIPText.max_length is 65000"),
    ],
)
def test_a_folder_is_compared_before_it_is_built(tmp_path, file, values, words):
    folder = tmp_path / "model"
    write_folder(small.model("sd1", small.make_tokenizer(tmp_path / "source")), folder)
    path = folder / file / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(ConvertError, match=f"{file}/config.json{words}"):
        read_folder(folder)
