"""Folders of CLIP and DINOv2: what they hold is all read or refused, and named."""

import json
from dataclasses import replace

import clip_files
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.convert.clip.clip_folders import (
    ImportedClip,
    clip_shapes,
    dinov2_shapes,
    is_clip,
    read_clip,
    read_dinov2,
    write_clip,
)
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.state_dicts import leaves
from ldm_jax.core import tree
from ldm_jax.core.reading import FileFormatError
from ldm_jax.formats.safetensors_file import read_safetensors, write_safetensors

CONFIG = cfg.CLIP(
    cfg.CLIPText(vocab_size=600, max_length=8, width=16, layers=1, num_heads=2, intermediate=16),
    cfg.CLIPVision(image_size=8, patch_size=4, width=16, layers=1, num_heads=2, intermediate=16),
    embedding=12,
)  # fmt: skip


def drawn(shapes):
    random = np.random.default_rng(0)
    flat = tree.flatten(shapes).items()
    return tree.unflatten(
        {path: random.standard_normal(leaf.shape, np.float32) for path, leaf in flat}
    )


@pytest.fixture
def folder(tmp_path):
    tokenizer = clip_files.write_clip(tmp_path / "tokenizer")
    clip = ImportedClip(CONFIG, drawn(clip_shapes(CONFIG)), tokenizer, "drawn")
    write_clip(clip, tmp_path / "clip")
    return tmp_path / "clip"


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_written_is_read(folder):
    found = read_clip(folder)
    assert found.config == CONFIG and is_clip(folder) and not is_clip(folder.parent)
    drawn_ones, read = (tree.flatten(t) for t in (drawn(clip_shapes(CONFIG)), found.params))
    for path, value in drawn_ones.items():
        np.testing.assert_array_equal(read[path], value)
    assert found.open_tokenizer().encode(["a cat"], 8).shape == (1, 8)


def test_settings_that_are_not_known_are_refused(folder):
    edit(folder / "config.json", vision_config={"rotary": True})
    with pytest.raises(ConvertError, match="rotary is true; ldm_jax does not know"):
        read_clip(folder)
    edit(folder / "config.json", text_config=3)
    with pytest.raises(ConvertError, match="text_config is 3; it must be an object"):
        read_clip(folder)
    edit(folder / "config.json", model_type="siglip")
    with pytest.raises(ConvertError, match='model_type .*one of "clip"'):
        read_clip(folder)


def test_what_is_said_twice_counts_as_it_is_said_last(folder):
    edit(folder / "config.json", text_config_dict={"max_position_embeddings": 9})
    with pytest.raises(ConvertError, match=r"position_embedding.* \(is \[8, 16\], wanted \[9"):
        read_clip(folder)


def test_missing_and_unexpected_weights_are_named(folder):
    tensors, _ = read_safetensors(folder / "model.safetensors")
    tensors = {n: np.array(t) for n, t in tensors.items() if n != "logit_scale"}
    write_safetensors(folder / "model.safetensors", tensors | {"extra.weight": np.zeros(3, "f4")})
    with pytest.raises(ConvertError, match="1 missing: logit_scale; 1 unexpected: .*extra.weight"):
        read_clip(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConvertError, match="has no weights"):
        read_clip(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileFormatError):
        read_clip(folder)


def test_no_tokenizer_is_told_when_texts_are_to_be_read(folder):
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    with pytest.raises(ConvertError, match="has no tokenizer; put its files"):
        read_clip(folder).open_tokenizer()


def test_a_bias_cannot_be_written(folder):
    config = replace(CONFIG, logit_bias=True)
    clip = ImportedClip(config, drawn(clip_shapes(config)), folder, "runs/clip")
    with pytest.raises(ConvertError, match="runs/clip was trained with the sigmoid loss"):
        write_clip(clip, folder.parent / "other")


def test_dinov2(tmp_path):
    config = cfg.DINOv2(8, 4, 16, 1, 2, 64)
    params = drawn(dinov2_shapes(config))
    names = {
        "encoder.layers.": "encoder.layer.", "attention.out_proj": "attention.output.dense",
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
    }  # fmt: skip

    def theirs(name):
        for a, b in names.items():
            name = name.replace(a, b)
        return name

    flat = tree.flatten(params)
    tensors = {theirs(leaf.name): leaf.to_torch(flat[leaf.path]) for leaf in leaves(params)}
    write_safetensors(
        tmp_path / "model.safetensors",
        tensors | {"embeddings.mask_token": np.zeros((1, 16), np.float32)},
    )
    settings = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 1,
                "num_attention_heads": 2, "image_size": 8, "patch_size": 4}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(settings))
    found = read_dinov2(tmp_path)
    assert found.config == config
    assert found.weights_sha256 == tree.fingerprint(params)
    edit(tmp_path / "config.json", use_swiglu_ffn=True)
    with pytest.raises(ConvertError, match="use_swiglu_ffn is true; it must be false"):
        read_dinov2(tmp_path)
