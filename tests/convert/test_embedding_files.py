"""Files of embeddings in all their forms: the right vectors, or a refusal that says what it is."""

import base64
import json
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import torch_zips as zips
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldm_jax.convert.embeddings.__main__ import EmbeddingArguments, run
from ldm_jax.convert.embeddings.embedding_files import CHUNK, check_width, read_embeddings
from ldm_jax.convert.embeddings.embedding_writer import write_embeddings
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core.reading import FileFormatError
from ldm_jax.formats.safetensors_file import write_safetensors
from ldm_jax.formats.torch_writer import write_torch

VECTORS = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
PARAMETERS = "torch.nn.modules.container.ParameterDict"


def png(path, found):
    text = found if isinstance(found, str) else base64.b64encode(json.dumps(found).encode())
    info = PngInfo()
    info.add_text(CHUNK, text)
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)


def parameter_dict(path, attributes=None):
    """As rinongal's program saves it: an object of torch's, with parameters among its attributes"""
    parameter = zips.call(
        "torch._utils._rebuild_parameter", zips.whole("0", VECTORS), b"\x88",
        zips.call("collections.OrderedDict"),
    )  # fmt: skip
    state = zips.mapping({
        "training": b"\x88", "_modules": b"}", "_keys": b"}",
        "_parameters": zips.mapping({"*": parameter}, ordered=True),
    })  # fmt: skip
    made = zips.name(PARAMETERS) + b")\x81" + (state if attributes is None else attributes) + b"b"
    zips.write(path, zips.mapping({"string_to_param": made}), {"0": VECTORS})


FORMS = {
    "cat.safetensors": lambda path: write_safetensors(path, {"emb_params": VECTORS}),
    "other.safetensors": lambda path: write_safetensors(path, {"cat": VECTORS}),
    "learned_embeds.bin": lambda path: write_torch(path, {"cat": VECTORS}),
    "cat.pt": lambda path: write_torch(path, {
        "string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}, "name": "other",
        "step": 12, "sd_checkpoint": None, "sd_checkpoint_name": None,
    }),
    "embeddings.pt": lambda path: write_torch(path, {"string_to_param": {"cat": VECTORS}}),
    "cat.bin": parameter_dict,
    "bare/cat.pt": lambda path: write_torch(path, VECTORS),
    "other.png": lambda path: png(path, {
        "string_to_param": {"*": {"TORCHTENSOR": VECTORS.tolist()}}, "name": "cat", "step": 12,
    }),
    "lora.safetensors": lambda path: write_safetensors(path, {
        "bundle_emb.cat.string_to_param.*": VECTORS,
        "lora_unet_conv_in.lora_up.weight": VECTORS,
    }),
}  # fmt: skip


@pytest.mark.parametrize("file", FORMS)
def test_forms(tmp_path, file):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    FORMS[file](path)
    (found,) = read_embeddings(path)
    assert found.name == "cat"
    assert found.alias == ("other" if file == "other.safetensors" else None)
    np.testing.assert_array_equal(found.vectors, VECTORS)
    assert found.vectors.dtype == np.float32
    assert found.step == (12 if file in ("cat.pt", "other.png") else None)


def test_single_vectors_and_several_words(tmp_path):
    """A vector may stand alone; a file may hold several words."""
    two = {"cat": VECTORS[0], "<dog>": VECTORS}
    write_safetensors(tmp_path / "two.safetensors", two)
    cat, dog = sorted(read_embeddings(tmp_path / "two.safetensors"), key=lambda one: -len(one.name))
    cat, dog = (cat, dog) if cat.name == "cat" else (dog, cat)
    assert (cat.words, dog.words) == (("cat",), ("<dog>",))
    np.testing.assert_array_equal(cat.vectors, VECTORS[:1])
    np.testing.assert_array_equal(dog.vectors, VECTORS)


@pytest.mark.parametrize("form", ["a1111", "diffusers"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_round_trips(tmp_path, form, dtype):
    write_safetensors(tmp_path / "cat.safetensors", {"cat": VECTORS.astype(dtype)})
    found = read_embeddings(tmp_path / "cat.safetensors")
    (tmp_path / "to").mkdir()
    target = tmp_path / "to" / "cat.safetensors"
    write_embeddings(found, target, form)
    (again,) = read_embeddings(target)
    assert again.words == found[0].words == ("cat",)
    assert again.vectors.dtype == dtype
    np.testing.assert_array_equal(again.vectors, VECTORS.astype(dtype))
    with pytest.raises(ConvertError, match="exists; choose another"):
        write_embeddings(found, target, form)
    write_embeddings(found, target, form, overwrite=True, dtype="float16")
    assert read_embeddings(target)[0].vectors.dtype == np.float16


def pixels(path):
    Image.new("RGB", (4, 4)).save(path)


REFUSED = {
    "xl.safetensors": (
        lambda path: write_safetensors(path, {"clip_l": VECTORS, "clip_g": VECTORS}),
        "an embedding for SDXL",
    ),
    "hidden.png": (pixels, "hidden in pixels is not read"),
    "base.png": (lambda path: png(path, "?"), "not base64"),
    "words.png": (
        lambda path: png(path, {"string_to_param": {"*": {"TORCHTENSOR": ["a"]}}}), "no numbers",
    ),
    "none.png": (lambda path: png(path, {"step": 1}), "no string_to_param"),
    "lora.safetensors": (
        lambda path: write_safetensors(path, {"lora_unet_x.lora_up.weight": VECTORS}),
        "an adapter is named with --lora",
    ),
    "deep.safetensors": (
        lambda path: write_safetensors(path, {"cat": VECTORS[None]}), r"float32 \[1, 3, 8\]",
    ),
    "whole.safetensors": (
        lambda path: write_safetensors(path, {"cat": np.ones((1, 8), np.int32)}), "int32",
    ),
    "nan.safetensors": (
        lambda path: write_safetensors(path, {"cat": VECTORS * np.nan}), "not finite",
    ),
    "empty.pt": (lambda path: write_torch(path, {}), "is empty"),
    "text.pt": (lambda path: write_torch(path, {"cat": "meow"}), "no tensor but a str"),
    "list.pt": (lambda path: write_torch(path, [VECTORS]), "is no embedding"),
    "state.pt": (
        lambda path: parameter_dict(path, b"K\x01"), "sets the state of a Record",
    ),
}  # fmt: skip


@pytest.mark.parametrize("file", REFUSED)
def test_refused(tmp_path, file):
    write, why = REFUSED[file]
    write(tmp_path / file)
    with pytest.raises((ConvertError, FileFormatError), match=why):
        read_embeddings(tmp_path / file)


def test_other_widths_are_refused(tmp_path):
    write_safetensors(tmp_path / "cat.safetensors", {"emb_params": np.ones((1, 768), np.float32)})
    (one,) = read_embeddings(tmp_path / "cat.safetensors")
    check_width("cat", one, 768)
    with pytest.raises(ConvertError, match=r"width 768 \(Stable Diffusion 1\), but .* 1024"):
        check_width("cat", one, 1024)


def test_command(tmp_path):
    two = {"cat": VECTORS[0], "dog": VECTORS}
    write_safetensors(tmp_path / "two.safetensors", two)
    told = run(EmbeddingArguments(tmp_path / "two.safetensors", inspect=True))
    assert "dog: 3 vectors of width 8; float32" in told
    assert "cat: 1 vector of width 8" in told
    target = tmp_path / "dog.safetensors"
    with pytest.raises(ConvertError, match="holds one embedding, not 2"):
        run(EmbeddingArguments(tmp_path / "two.safetensors", target))
    command = [sys.executable, "-m", "ldm_jax.convert.embeddings", tmp_path / "two.safetensors"]
    told = subprocess.check_output([*command, target, "--word=dog"], text=True)
    assert told.endswith(f"wrote {target}\n")
    np.testing.assert_array_equal(read_embeddings(target)[0].vectors, VECTORS)
    with pytest.raises(ValueError, match="has no such embedding, but"):
        run(EmbeddingArguments(tmp_path / "two.safetensors", target, word="cow"))
