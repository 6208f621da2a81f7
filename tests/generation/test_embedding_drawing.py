"""Drawing with embeddings: words of prompts that stand for vectors of their own."""

from dataclasses import replace

import clip_files
import convert_models as small
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.native import write_native
from ldm_jax.core import tree
from ldm_jax.formats.safetensors_file import write_safetensors
from ldm_jax.generation.pipeline import Pipeline

SAMPLING = cfg.Sampling(steps=2, seed=1, guidance_scale=2.0, batch_size=1)
CONFIG = replace(
    small.MODELS["sd1"],
    unet=replace(small.UNET, block_out_channels=(32,), attention=(True,), num_heads=(4,)),
    conditioners=(cfg.TextConditioner(replace(small.CLIP, vocab_size=600), tokenizer="clip"),),
)  # fmt: skip
WIDTH = small.CLIP.width
TABLE = "conditioners/text_encoder/text_model/embeddings/token_embedding/embedding"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and embeddings that are rows of its own table: those of "red cat" under another
    word, and one of random numbers."""
    folder = tmp_path_factory.mktemp("embeddings")
    tokenizer = clip_files.write_clip(folder / "tokenizer")
    model = imported_model.make(CONFIG, small.numbers(CONFIG), tokenizer=tokenizer)
    write_native(model, folder / "model")
    pipeline = Pipeline(folder / "model")
    table = np.asarray(tree.flatten(pipeline.params)[TABLE])
    rows = table[pipeline.tokenizer.pieces("red cat")]
    (folder / "words").mkdir()
    write_safetensors(folder / "words" / "zork.safetensors", {"emb_params": rows})
    noise = np.random.default_rng(0).standard_normal((3, WIDTH)).astype(np.float32)
    write_safetensors(folder / "words" / "blob.safetensors", {"emb_params": noise})
    return folder


@pytest.fixture(scope="module")
def pipeline(folder):
    return Pipeline(folder / "model", embeddings_dir=folder / "words")


def draw(pipeline, prompt, **how):
    return pipeline.generate([prompt], sampling=SAMPLING, **how)[0]


@pytest.mark.parametrize("brackets", ["{}", "({}:1.3)"])
def test_rows_of_the_table_draw_as_their_tokens(folder, pipeline, brackets):
    """Bit for bit, with emphasis, and in the negative prompt."""
    one, other = (f"a {brackets.format(word)} three" for word in ("zork", "red cat"))
    np.testing.assert_array_equal(draw(pipeline, one), draw(pipeline, other))
    np.testing.assert_array_equal(
        draw(pipeline, "a cat", negative=one), draw(pipeline, "a cat", negative=other)
    )
    assert (draw(pipeline, one) != draw(pipeline, "a three")).any()


def test_others_are_not_changed(folder, pipeline):
    plain = Pipeline(folder / "model")
    np.testing.assert_array_equal(draw(pipeline, "a red cat"), draw(plain, "a red cat"))


def test_named_files_and_unused_ones(folder):
    files = tuple(str(folder / "words" / f"{name}.safetensors") for name in ("zork", "blob"))
    pipeline = Pipeline(folder / "model", embeddings=files)
    plan = pipeline.plan(["a zork"], pipeline.resolve_sampling(SAMPLING))
    assert pipeline.unused_embeddings(plan) == ["blob"]
    plan = pipeline.plan(["a zork"], pipeline.resolve_sampling(SAMPLING), negative="blob")
    assert pipeline.unused_embeddings(plan) == []
    assert (draw(pipeline, "a zork") != draw(pipeline, "a blob")).any()


def test_folders_leave_out_what_cannot_be_used(folder, tmp_path):
    write_safetensors(tmp_path / "wide.safetensors", {"emb_params": np.ones((1, 768), np.float32)})
    (tmp_path / "torn.pt").write_bytes(b"torn")
    pipeline = Pipeline(folder / "model", embeddings_dir=tmp_path)
    assert pipeline.words is None
    wide, torn = sorted(pipeline.notes, key=len, reverse=True)[:2]
    assert "vectors of width 768 (Stable Diffusion 1)" in wide
    assert torn.startswith("left out: ")
    with pytest.raises(ConvertError, match="width 768"):
        Pipeline(folder / "model", embeddings=(str(tmp_path / "wide.safetensors"),))
    with pytest.raises(cfg.ConfigError, match="which is no folder"):
        Pipeline(folder / "model", embeddings_dir=tmp_path / "none")


def test_one_word_of_two_files_is_refused(folder, tmp_path):
    path = tmp_path / "zork.safetensors"
    write_safetensors(path, {"emb_params": np.ones((1, WIDTH), np.float32)})
    files = (str(path), str(folder / "words" / "zork.safetensors"))
    with pytest.raises(cfg.ConfigError, match="have the same word 'zork'"):
        Pipeline(folder / "model", embeddings=files)
