"""Files of embeddings: names and steps that they say, other forms written, and the command. What is
refused, and why, is in `test_adapter_corpus`."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from corpus import safetensors, saved
from corpus_embeddings import VECTORS, parameter_dict, png

from ldm_jax.convert.embeddings.__main__ import EmbeddingArguments, run
from ldm_jax.convert.embeddings.embedding_files import check_width, read_embeddings
from ldm_jax.convert.embeddings.embedding_writer import write_embeddings
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.formats.safetensors_file import write_safetensors

FORMS = {
    "cat.safetensors": safetensors({"emb_params": VECTORS}, "cat.safetensors"),
    "other.safetensors": safetensors({"cat": VECTORS}, "other.safetensors"),
    "learned_embeds.bin": saved({"cat": VECTORS}, "learned_embeds.bin"),
    "cat.pt": saved({
        "string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}, "name": "other",
        "step": 12, "sd_checkpoint": None, "sd_checkpoint_name": None,
    }, "cat.pt"),
    "embeddings.pt": saved({"string_to_param": {"cat": VECTORS}}, "embeddings.pt"),
    "bare tensor": saved(VECTORS, "cat.pt"),
    "ParameterDict": parameter_dict(),
    "other.png": png(
        {"string_to_param": {"*": {"TORCHTENSOR": VECTORS.tolist()}}, "name": "cat", "step": 12},
        "other.png",
    ),
    "lora.safetensors": safetensors({
        "bundle_emb.cat.string_to_param.*": VECTORS, "lora_unet_conv_in.lora_up.weight": VECTORS,
    }, "lora.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("file", FORMS)
def test_forms(tmp_path, file):
    (found,) = read_embeddings(FORMS[file](tmp_path))
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
