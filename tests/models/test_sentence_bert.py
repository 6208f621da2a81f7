"""BERT as a sentence encoder: what it sees, what it pools, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.models.sentence_bert import SentenceBERTModel

BERT = cfg.SentenceBERT(
    vocab_size=20, positions=8, max_length=6, width=8, layers=2, num_heads=2, intermediate=12
)
TOKENS = jnp.array([[2, 5, 6, 3, 0, 0], [2, 5, 6, 7, 8, 3]])


def test_padding_is_not_seen_and_not_pooled(parameters):
    module = SentenceBERTModel(BERT)
    variables = parameters(module, TOKENS)
    found = jax.jit(module.apply)(variables, TOKENS)
    assert found.context.shape == (2, 6, 8) and found.context.dtype == jnp.float32
    shorter = jax.jit(module.apply)(variables, TOKENS[:1, :4])
    np.testing.assert_allclose(found.context[:1, :4], shorter.context, atol=1e-6)
    np.testing.assert_array_equal(found.context[0, 4:], 0)
    np.testing.assert_allclose(found.pooled[0], found.context[0, :4].mean(0), atol=1e-6)
    np.testing.assert_allclose(found.pooled[1], found.context[1].mean(0), atol=1e-6)
    first = SentenceBERTModel(dataclasses.replace(BERT, pooling="first"))
    np.testing.assert_array_equal(
        jax.jit(first.apply)(variables, TOKENS).pooled, found.context[:, 0]
    )
    nothing = jax.jit(module.apply)(variables, jnp.zeros((1, 6), jnp.int32))
    assert not np.any(nothing.context) and not np.any(nothing.pooled)


def test_captions_that_are_too_long_are_refused():
    with pytest.raises(ValueError, match="9 tokens; the text encoder takes at most 8"):
        SentenceBERTModel(BERT).init(jax.random.key(0), jnp.zeros((1, 9), jnp.int32))
    with pytest.raises(cfg.ConfigError, match="max_length is 9; it must be at most positions, 8"):
        dataclasses.replace(BERT, max_length=9)
