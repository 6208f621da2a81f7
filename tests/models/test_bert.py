"""The BERT text encoder: what it sees, widths, dtypes, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.models.bert import BERTTextModel

BERT = cfg.BERTText(vocab_size=20, max_length=6, width=8, layers=2, num_heads=3, head_dim=5)
TOKENS = jnp.array([[1, 2, 3, 4, 0, 0], [1, 2, 3, 7, 0, 0]])


def test_every_position_sees_every_other_and_padding_too(parameters):
    module = BERTTextModel(BERT)
    variables = parameters(module, TOKENS)
    context = jax.jit(module.apply)(variables, TOKENS).context
    assert context.shape == (2, 6, 8) and context.dtype == jnp.float32
    assert (jnp.abs(context[0] - context[1]).max(-1) > 1e-4).all()
    padded = jax.jit(module.apply)(variables, TOKENS[:, :4]).context
    assert not np.allclose(padded, context[:, :4], atol=1e-4)


def test_heads_have_a_width_of_their_own_and_no_bias():
    shapes = jax.eval_shape(BERTTextModel(BERT).init, jax.random.key(0), TOKENS)["params"]
    attention = shapes["model"]["layers"]["1"]["self_attn"]
    assert {name: part["kernel"].shape for name, part in attention.items()} == {
        "q_proj": (8, 15), "k_proj": (8, 15), "v_proj": (8, 15), "out_proj": (15, 8),
    }  # fmt: skip
    assert [name for name, part in attention.items() if "bias" in part] == ["out_proj"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close_and_returns_float32(dtype, parameters):
    module, half = BERTTextModel(BERT), BERTTextModel(BERT, dtype)
    variables = parameters(module, TOKENS)
    context = jax.jit(half.apply)(variables, TOKENS).context
    assert context.dtype == jnp.float32
    want = jax.jit(module.apply)(variables, TOKENS).context
    np.testing.assert_allclose(context, want, atol=0.05)


def test_captions_that_are_too_long_are_refused():
    with pytest.raises(ValueError, match="7 tokens; the text encoder takes at most 6"):
        BERTTextModel(BERT).init(jax.random.key(0), jnp.zeros((1, 7), jnp.int32))
