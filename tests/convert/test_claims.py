"""Configs that claim what their tensors are not: refused before anything is built."""

import dataclasses
import json
import typing
from dataclasses import replace

import convert_models as small
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.convert import bundle, claims
from ldm_jax.convert.bundle import ConvertError
from ldm_jax.convert.folder import read_folder, write_folder
from ldm_jax.convert.native import read_native, write_native
from ldm_jax.core import tree

PARTS = (
    cfg.UNet, cfg.Autoencoder, cfg.Pixels, cfg.TextTransformer, cfg.CLIPText, cfg.BERTText,
    cfg.ClassCondition, cfg.TextCondition, cfg.KL, cfg.VQ, cfg.Gumbel, cfg.FSQ, cfg.LFQ,
    cfg.Discrete, cfg.Diffusion, cfg.Model,
)  # fmt: skip


def test_every_whole_number_is_of_a_kind():
    """A number that is added to a model must be bounded, or be known to need no bound."""
    kinds = claims.DEPTHS | claims.WIDTHS | claims.OTHERS
    for part in PARTS:
        hints = typing.get_type_hints(part)
        for field in dataclasses.fields(part):
            hint = str(hints[field.name])
            if "int" in hint.replace("Point", ""):
                assert field.name in kinds, f"{part.__name__}.{field.name}"


@pytest.mark.parametrize("name", small.MODELS)
def test_what_is_true_is_taken(name):
    config = small.MODELS[name]
    shapes = tree.flatten(bundle.shapes(config))
    claims.check(config, {n: np.empty(leaf.shape) for n, leaf in shapes.items()}, "model.json")


LARGE = 10**9
UNET = small.UNET
CLAIMS = [
    ("unet", replace(UNET, layers_per_block=3000), "UNet.layers_per_block 3000"),
    ("unet", replace(UNET, transformer_layers=3000), "UNet.transformer_layers 3000"),
    ("unet", replace(UNET, block_out_channels=(32, 64 * LARGE)), "UNet.block_out_channels 64000"),
    ("unet", replace(UNET, context_dim=LARGE), "UNet.context_dim 1000000000"),
    ("unet", replace(UNET, concat_channels=LARGE), "UNet.concat_channels"),
    ("unet", replace(UNET, block_out_channels=(32,) * 40, attention=(True,) * 40,
                     num_heads=(4,) * 40), "claims 40 levels of UNet"),
    ("condition", cfg.TextCondition(replace(small.CLIP, layers=10**6), tokenizer="clip"),
     "CLIPText.layers 1000000"),
    ("condition", cfg.TextCondition(replace(small.CLIP, vocab_size=10**12), tokenizer="clip"),
     "CLIPText.vocab_size"),
    ("condition", cfg.ClassCondition(10**12), "ClassCondition.num_classes"),
    ("autoencoder", replace(small.AUTOENCODER, layers_per_block=10**5),
     "Autoencoder.layers_per_block 100000"),
    ("autoencoder", replace(small.AUTOENCODER, bottleneck=cfg.VQ(10**12)), "VQ.size"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "claim", "words"), CLAIMS, ids=[c[2] for c in CLAIMS])
def test_what_cannot_be_is_refused(part, claim, words):
    tensors = {f"w{i}": np.empty((64, 64)) for i in range(100)}
    with pytest.raises(ConvertError, match=words) as error:
        claims.check(claim, tensors, "model.json")
    assert str(error.value).startswith("model.json claims")


def test_a_native_folder_is_compared_before_it_is_built(tmp_path, monkeypatch):
    write_native(small.model("faces"), tmp_path / "model")
    path = tmp_path / "model/model.json"
    values = json.loads(path.read_text())
    monkeypatch.setattr(bundle, "shapes", None)
    values["diffusion"]["process"]["num_timesteps"] = 3 * 10**8
    path.write_text(json.dumps(values))
    with pytest.raises(ConvertError, match="model.json claims Discrete.num_timesteps 300000000"):
        read_native(tmp_path / "model")
    values["unet"]["layers_per_block"] = 3000
    path.write_text(json.dumps(values))
    with pytest.raises(ConvertError, match="model.json claims UNet.layers_per_block 3000"):
        read_native(tmp_path / "model")


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("unet", {"layers_per_block": 3000}, "claims UNet.layers_per_block 3000"),
        ("vae", {"layers_per_block": 3000}, "claims Autoencoder.layers_per_block 3000"),
        ("text_encoder", {"num_hidden_layers": 3000}, "claims CLIPText.layers 3000"),
        ("text_encoder", {"max_position_embeddings": 10**9}, "claims CLIPText.max_length"),
    ],
)
def test_a_folder_is_compared_before_it_is_built(tmp_path, file, values, words):
    folder = tmp_path / "model"
    write_folder(small.model("sd1", small.make_tokenizer(tmp_path / "source")), folder)
    path = folder / file / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(ConvertError, match=f"{file}/config.json {words}"):
        read_folder(folder)
