"""Pictures and texts become embeddings of length 1, whatever the batch that they are in."""

import clip_files
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.convert.clip.clip_folders import ImportedClip, clip_shapes, write_clip
from ldm_jax.core import tree
from ldm_jax.evaluation.features.clip import EMBEDDING, read_clip_embedder

CONFIG = cfg.CLIP(
    cfg.CLIPText(vocab_size=600, max_length=8, width=16, layers=1, num_heads=2, intermediate=16),
    cfg.CLIPVision(image_size=8, patch_size=4, width=16, layers=1, num_heads=2, intermediate=16),
    embedding=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path, random = tmp_path_factory.mktemp("clip"), np.random.default_rng(0)
    flat = tree.flatten(clip_shapes(CONFIG)).items()
    params = {name: random.standard_normal(leaf.shape, np.float32) for name, leaf in flat}
    tokenizer = clip_files.write_clip(path / "tokenizer")
    write_clip(ImportedClip(CONFIG, tree.unflatten(params), tokenizer, ""), path / "whole")
    return path / "whole"


def test_embeddings(folder):
    embedder = read_clip_embedder(folder, batch_size=4)
    images = np.random.default_rng(1).integers(0, 256, (6, 11, 14, 3), dtype=np.uint8)
    found = embedder.images(images)
    assert found.shape == (6, 12) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(embedder.images(images[4:]), found[4:], atol=1e-6)
    texts = ["a red cat", "three", "", "a", "red", "cat"]
    words = embedder.texts(texts)
    assert words.shape == (6, 12) and words.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(words, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(embedder.texts(texts[4:]), words[4:], atol=1e-6)
    assert embedder.images(images[:0]).shape == embedder.texts([]).shape == (0, 12)


def test_what_they_depend_on_is_told(folder):
    embedder = read_clip_embedder(folder)
    told = embedder.describe()
    assert told["features"] == [EMBEDDING] and told["side"] == 8 and told["crop"]
    assert told["resize"] == "pillow_bicubic_uint8"
    assert told["weights_sha256"] == embedder.clip.weights_sha256
