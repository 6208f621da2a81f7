"""Published parameter counts, state-dict names, and a module for every condition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from ldm_jax import config as cfg
from ldm_jax.models import conditioners
from ldm_jax.models.build import build_autoencoder, build_conditioner, build_unet
from ldm_jax.models.conditioners import Condition, Encoder

KEY = jax.random.key(0)


def _paths(variables):
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    return {"/".join(key.key for key in path) for path, _ in leaves}


def _count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


def test_stable_diffusion_unet():
    condition = Condition(context=jnp.zeros((1, 77, 768)))
    unet = build_unet(cfg.UNet(in_channels=4, out_channels=4, context_dim=768))
    variables = jax.eval_shape(unet.init, KEY, jnp.zeros((1, 64, 64, 4)), jnp.zeros(1), condition)
    assert _count(variables) == 859_520_964
    assert {
        "conv_in/kernel",
        "time_embedding/linear_1/kernel",
        "down_blocks/0/resnets/1/time_emb_proj/bias",
        "down_blocks/0/attentions/0/transformer_blocks/0/attn1/to_q/kernel",
        "down_blocks/0/attentions/0/transformer_blocks/0/attn2/to_out/0/bias",
        "down_blocks/0/attentions/0/transformer_blocks/0/ff/net/0/proj/kernel",
        "down_blocks/0/attentions/0/transformer_blocks/0/ff/net/2/kernel",
        "down_blocks/2/downsamplers/0/conv/kernel",
        "mid_block/attentions/0/proj_in/kernel",
        "mid_block/resnets/1/norm2/scale",
        "up_blocks/0/upsamplers/0/conv/kernel",
        "up_blocks/1/resnets/2/conv_shortcut/kernel",
        "conv_norm_out/scale",
    } <= _paths(variables)


def test_stable_diffusion_autoencoder():
    autoencoder = build_autoencoder(cfg.Autoencoder())
    images, noise = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 8, 8, 4))
    variables = jax.eval_shape(autoencoder.init, KEY, images, noise)
    assert _count(variables) == 83_653_863
    assert {
        "encoder/down_blocks/1/resnets/0/conv_shortcut/kernel",
        "encoder/down_blocks/0/downsamplers/0/conv/bias",
        "encoder/mid_block/attentions/0/group_norm/scale",
        "encoder/mid_block/attentions/0/to_out/0/kernel",
        "decoder/up_blocks/3/resnets/2/conv1/kernel",
        "decoder/conv_norm_out/bias",
        "quant_conv/kernel",
        "post_quant_conv/kernel",
    } <= _paths(variables)


def test_clip_text_encoder():
    clip = build_conditioner(cfg.TextConditioner(cfg.CLIPText())).module
    variables = jax.eval_shape(clip.init, KEY, jnp.zeros((1, 77), jnp.int32))
    assert _count(variables) == 123_060_480
    assert {
        "text_model/embeddings/token_embedding/embedding",
        "text_model/encoder/layers/0/self_attn/q_proj/kernel",
        "text_model/encoder/layers/11/mlp/fc2/bias",
        "text_model/encoder/layers/0/layer_norm1/scale",
        "text_model/final_layer_norm/bias",
    } <= _paths(variables)


def test_bert_text_encoder():
    bert = build_conditioner(cfg.TextConditioner(cfg.BERTText())).module
    variables = jax.eval_shape(bert.init, KEY, jnp.zeros((1, 77), jnp.int32))
    width, inner, words, places = 1280, 512, 30522, 77
    layer = 4 * width * inner + width + 2 * 4 * width**2 + 5 * width + 2 * 2 * width
    assert _count(variables) == (words + places) * width + 32 * layer + 2 * width
    assert {
        "model/embed_tokens/embedding",
        "model/embed_positions/embedding",
        "model/layers/31/self_attn/q_proj/kernel",
        "model/layers/0/self_attn/out_proj/bias",
        "model/layers/0/self_attn_layer_norm/scale",
        "model/layers/0/fc1/kernel",
        "model/layers/0/final_layer_norm/bias",
        "model/layer_norm/scale",
    } <= _paths(variables)


def sampled(pixels, noise):
    """A first stage that averages 8 x 8 pixels."""
    b, h, w, _ = pixels.shape
    small = pixels.mean(-1).reshape(b, h // 8, 8, w // 8, 8).mean((2, 4))
    return small[..., None] + noise


ENCODER = Encoder(sampled, mode=lambda pixels: sampled(pixels, 0.0))


def test_conditioners_add_up():
    """Contexts follow each other, channels lie side by side; a class joins the time embedding."""
    inputs = {
        "label": jnp.array([0, 4]), "mask": jnp.ones((1, 16, 16, 1), jnp.uint8),
        "image": jnp.full((1, 16, 16, 3), 9, jnp.uint8), "masked_noise": jnp.ones((2, 2, 2, 4)),
        "caption": jnp.zeros((2, 5), jnp.int32),
    }  # fmt: skip
    text = cfg.TextTransformer(9, 5, width=6, layers=1, num_heads=1, pooled_dim=4)
    configs = (
        cfg.TextConditioner(text), cfg.CaptionMapConditioner(2, 3, 8),
        cfg.ClassConditioner(4, context_dim=6), cfg.InpaintingConditioner(),
    )  # fmt: skip
    built = [build_conditioner(config) for config in configs]
    params, condition = {}, Condition()
    for one in built:
        params[one.name] = one.init(KEY, inputs, condition)
        condition = condition.joined(one(params[one.name], inputs, condition, ENCODER))
    assert _count(params["class_token"]) == 5 * 6, "the fifth class is the unconditional one"
    assert params["inpainting"] == {}
    assert condition.context.shape == (2, 5 + 1, 6) and condition.pooled.shape == (2, 4)
    assert condition.concat.shape == (2, 2, 2, 3 + 1 + 4) and condition.label is None
    np.testing.assert_array_equal(condition.concat[..., 3:4], jnp.ones((2, 2, 2, 1)))
    np.testing.assert_array_equal(condition.concat[..., 4:], jnp.ones((2, 2, 2, 4)))
    again = conditioners.run(built, params, inputs, ENCODER)
    np.testing.assert_array_equal(again.context, condition.context)
    slots = cfg.slots_of(configs, latent_channels=4)
    assert slots == cfg.Slots(context=6, pooled=4, label=None, concat=8)


def test_a_label_joins_the_time_embedding_and_nothing_is_nothing():
    labels = jnp.array([0, 4])
    by_time = build_conditioner(cfg.ClassConditioner(num_classes=4))
    assert by_time.init(KEY, {"label": labels}, Condition()) == {}
    condition = conditioners.run([by_time], {}, {"label": labels}, ENCODER)
    np.testing.assert_array_equal(condition.label, labels)
    assert conditioners.run([], {}, {}, ENCODER) == Condition()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_training_gradient_exports_for_every_platform(dtype):
    config = cfg.UNet(
        in_channels=4, out_channels=4,
        block_out_channels=(8, 16), layers_per_block=1, attention=(True, True), num_heads=(1, 2),
        norm_num_groups=4, context_dim=8, pooled_dim=4,
    )  # fmt: skip
    text = cfg.TextTransformer(
        vocab_size=9, max_length=4, width=8, layers=1, num_heads=1, pooled_dim=4
    )
    unet, encoder = (
        build_unet(config, dtype),
        build_conditioner(cfg.TextConditioner(text), dtype).module,
    )
    tokens, x, t = jnp.zeros((2, 4), jnp.int32), jnp.zeros((2, 4, 4, 4)), jnp.zeros(2)
    condition, words = jax.eval_shape(encoder.init_with_output, KEY, tokens)
    variables = jax.eval_shape(unet.init, KEY, x, t, condition)

    def loss(variables, words, x, t, tokens):
        return jnp.mean(unet.apply(variables, x, t, encoder.apply(words, tokens)) ** 2)

    gradient = jax.jit(jax.grad(loss, (0, 1)))
    exported = export.export(gradient, platforms=["cpu", "tpu", "cuda"])(
        variables, words, x, t, tokens
    )
    assert exported.platforms == ("cpu", "tpu", "cuda")
