"""Text encoders: causality, skipped layers, pooled vector, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.models.text import CaptionMapModel, CLIPTextModel, TextTransformerModel, quick_gelu

CLIP = cfg.CLIPText(vocab_size=20, max_length=6, width=8, layers=3, num_heads=2, intermediate=12)
SMALL = cfg.TextTransformer(
    vocab_size=20, max_length=6, width=8, layers=2, num_heads=2, pooled_dim=5
)
TOKENS = jnp.array([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7]])


def test_clip_is_causal_and_the_small_encoder_is_not(parameters):
    for module, causal in ((CLIPTextModel(CLIP), True), (TextTransformerModel(SMALL), False)):
        variables = parameters(module, TOKENS)
        context = module.apply(variables, TOKENS).context
        assert context.shape == (2, 6, 8) and context.dtype == jnp.float32
        # The captions differ in their last word only.
        assert np.allclose(context[0, :5], context[1, :5], atol=1e-6) is causal


def test_skipped_layers_leave_the_state_before_them(parameters):
    skipping = CLIPTextModel(dataclasses.replace(CLIP, skip_last=1))
    shorter = CLIPTextModel(dataclasses.replace(CLIP, layers=2))
    variables = parameters(skipping, TOKENS)
    jax.tree.map(
        np.testing.assert_array_equal,
        skipping.apply(variables, TOKENS).context, shorter.apply(variables, TOKENS).context,
    )  # fmt: skip


def test_shorter_prompts_are_allowed_for_clip(parameters):
    module = CLIPTextModel(CLIP)
    variables = parameters(module, TOKENS)
    short = module.apply(variables, TOKENS[:, :3]).context
    np.testing.assert_allclose(short, module.apply(variables, TOKENS).context[:, :3], atol=1e-5)


def test_pooled_vector_tells_where_a_word_stands(parameters):
    module = TextTransformerModel(SMALL)
    variables = parameters(module, TOKENS)
    pooled = module.apply(variables, TOKENS[:, ::-1]).pooled
    assert pooled.shape == (2, 5) and pooled.dtype == jnp.float32
    assert not np.allclose(pooled, module.apply(variables, TOKENS).pooled, atol=1e-2)
    without = TextTransformerModel(dataclasses.replace(SMALL, pooled_dim=None))
    assert jax.eval_shape(without.init_with_output, jax.random.key(0), TOKENS)[0].pooled is None


def test_the_caption_map_tells_where_a_word_stands_and_leaves_padding_out(parameters):
    module = CaptionMapModel(cfg.CaptionMapConditioner(4, 3, 16))
    states = jax.random.normal(jax.random.key(1), (*TOKENS.shape, 8))
    short = TOKENS.at[:, 4:].set(0)
    variables = parameters(module, TOKENS, states)

    def draw(tokens, states):
        return module.apply(variables, tokens, states)

    assert draw(short, states).shape == (2, 4, 4, 3)
    assert not np.allclose(draw(TOKENS, states), draw(TOKENS, states[:, ::-1]), atol=1e-3)
    np.testing.assert_array_equal(draw(short, states), draw(short, states.at[:, 4:].set(9.0)))


def test_bfloat16_returns_float32():
    for module in (CLIPTextModel(CLIP, "bfloat16"), TextTransformerModel(SMALL, "bfloat16")):
        condition, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), TOKENS)
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves((condition, variables)))


def test_wrong_lengths_are_named():
    long = jnp.zeros((1, 7), jnp.int32)
    with pytest.raises(ValueError, match="7 tokens; the text encoder takes at most 6"):
        CLIPTextModel(CLIP).init(jax.random.key(0), long)
    with pytest.raises(ValueError, match="captions of 7 tokens; .* exactly max_length 6"):
        TextTransformerModel(SMALL).init(jax.random.key(0), long)


def test_quick_gelu():
    x = jnp.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(quick_gelu(x), x / (1 + np.exp(-1.702 * np.array(x))), rtol=1e-5)
