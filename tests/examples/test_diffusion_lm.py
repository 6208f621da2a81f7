"""The text example: words go to embeddings and back, and it runs from end to end."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import diffusion_lm as lm
from ldm_jax.core.typing import Level, Prediction


def test_captions_go_to_numbers_and_back():
    captions = lm.draw_captions(200, seed=0)
    assert all(map(lm.is_caption, captions)) and not lm.is_caption("a red red")
    assert max(len(caption.split()) for caption in captions) <= lm.LENGTH
    assert [lm.to_text(row) for row in lm.to_numbers(captions)] == captions


def test_words_are_read_of_their_own_embeddings():
    table = jax.random.normal(jax.random.key(0), (len(lm.WORDS), lm.DIMENSION))
    numbers = jnp.asarray(lm.to_numbers(lm.draw_captions(8, seed=1)), jnp.int32)
    x = lm.embedded(table, numbers)
    np.testing.assert_allclose((x**2).mean(-1), 1, rtol=1e-5)
    noisy = x + 0.2 * jax.random.normal(jax.random.key(1), x.shape)
    np.testing.assert_array_equal(lm.word_scores(table, noisy).argmax(-1), numbers)

    def off(x, level):
        return Prediction(x0=noisy, eps=jnp.zeros_like(x))

    level = Level(jnp.float32(5), jnp.float32(0.8), jnp.float32(0.6), jnp.bool_(False))
    said = lm.clamped(off, table)(0.8 * x, level)
    np.testing.assert_allclose(said.x0, x, atol=1e-6)
    np.testing.assert_allclose(said.eps, 0, atol=1e-6)


@pytest.fixture
def usual_promotion():
    """Optax mixes integers and floats in its schedules."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_from_end_to_end(usual_promotion, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lm, "STEPS", 2)
    monkeypatch.setattr(lm, "LAYERS", 1)
    monkeypatch.setattr(lm, "WISHES", {name: lm.WISHES[name] for name in ["three things"]})
    options = ["--steps=1", "--classifier_steps=1", "--num=4", f"--out={tmp_path}"]
    found = lm.main(options)
    report = json.loads((tmp_path / "report.json").read_text())
    assert found.items() <= report.items() and len(report["texts"]["no wish"]) == 4
    assert {*lm.WISHES} <= report.keys()
