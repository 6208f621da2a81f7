"""Networks beside those of diffusers and transformers, live, with the same random weights.

Everything is float32; sums in another order make relative errors of some 1e-6.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (  # noqa: E402
    LDMBertConfig,
    LDMBertModel,
)
from torch_state import randomize, relative_error, to_tree  # noqa: E402

from ldm_jax import config as cfg  # noqa: E402
from ldm_jax.models.build import (  # noqa: E402
    build_autoencoder,
    build_conditioner,
    build_unet,
)
from ldm_jax.models.conditioners import Condition  # noqa: E402

# Torch warns of its own future.
pytestmark = pytest.mark.filterwarnings("default")
CLOSE = 1e-4


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def nhwc(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def check_structure(module, variables, *inputs):
    """The peer's names and shapes are exactly ours."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables)


SMALL = {"block_out_channels": (32, 64), "layers_per_block": 1}
CROSS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "sample_size": 8,
    "cross_attention_dim": 24,
}  # fmt: skip
OURS = {**SMALL, "attention": (True, False), "num_heads": (8, 8), "context_dim": 24}
CONDITIONAL = {
    "SD 1": ({**CROSS, "attention_head_dim": 8}, OURS),
    "SD 2": (
        {**CROSS, "attention_head_dim": (2, 4), "use_linear_projection": True},
        {**OURS, "num_heads": (2, 4), "use_linear_projection": True},
    ),
    "inpainting": (
        {**CROSS, "attention_head_dim": 8, "in_channels": 9}, {**OURS, "concat_channels": 5}
    ),
    "two transformer layers": (
        {**CROSS, "attention_head_dim": 8, "transformer_layers_per_block": 2},
        {**OURS, "transformer_layers": 2},
    ),
    "classes": ({**CROSS, "attention_head_dim": 8, "num_class_embeds": 5},
                {**OURS, "class_count": 5}),
    "class token": ({**CROSS, "attention_head_dim": 1}, {**OURS, "num_heads": (1, 1)}),
}  # fmt: skip


@pytest.mark.parametrize("name", CONDITIONAL)
def test_conditional_unet(name):
    theirs, ours = CONDITIONAL[name]
    peer = randomize(diffusers.UNet2DConditionModel(**SMALL, **theirs))
    x, t, context = normal(0, 2, 4, 8, 8), np.array([3, 901]), normal(1, 2, 5, 24)
    context = context[:, :1] if name == "class token" else context
    concat, labels = normal(2, 2, 5, 8, 8), np.array([4, 1])
    config = cfg.UNet(in_channels=4, out_channels=4, **ours)
    condition = Condition(
        context=jnp.asarray(context),
        label=jnp.asarray(labels) if config.class_count else None,
        concat=nhwc(concat) if config.concat_channels else None,
    )
    module, variables = build_unet(config), to_tree(peer)
    check_structure(module, variables, nhwc(x), jnp.asarray(t), condition)
    found = jax.jit(module.apply)(variables, nhwc(x), jnp.asarray(t), condition)
    x = np.concatenate([x, concat], axis=1) if config.concat_channels else x
    expected = peer(
        torch.from_numpy(x), torch.from_numpy(t), torch.from_numpy(context),
        class_labels=torch.from_numpy(labels) if config.class_count else None,
    ).sample  # fmt: skip
    assert relative_error(found, expected) < CLOSE


PLAIN = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "sample_size": 8,
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "attention_head_dim": 32,
    "in_channels": 3, "out_channels": 3,
}  # fmt: skip
UNCONDITIONAL = {
    # In diffusers the middle's attention has no norm with scale and shift unless it is told.
    "faces": (PLAIN, {"attention": (False, True), "num_heads": (1, 2)}),
    "churches": (
        {**PLAIN, "down_block_types": ("AttnDownBlock2D",) * 2, "attention_head_dim": 8,
         "up_block_types": ("AttnUpBlock2D",) * 2, "resnet_time_scale_shift": "scale_shift",
         "attn_norm_num_groups": 32, "downsample_type": "resnet", "upsample_type": "resnet"},
        {"attention": (True, True), "num_heads": (4, 8), "time_scale_shift": True,
         "resblock_updown": True},
    ),
    "resampling without attention": (
        {**PLAIN, "down_block_types": ("ResnetDownsampleBlock2D",) * 2,
         "up_block_types": ("ResnetUpsampleBlock2D",) * 2},
        {"attention": (False, False), "num_heads": (1, 2), "resblock_updown": True},
    ),
    "classes": ({**PLAIN, "num_class_embeds": 5},
                {"attention": (False, True), "num_heads": (1, 2), "class_count": 5}),
}  # fmt: skip


@pytest.mark.parametrize("name", UNCONDITIONAL)
def test_unconditional_unet(name):
    theirs, ours = UNCONDITIONAL[name]
    peer = randomize(diffusers.UNet2DModel(**SMALL, **theirs))
    config = cfg.UNet(
        **SMALL, in_channels=3, out_channels=3, attention_kind="plain", context_dim=None, **ours
    )
    x, t, labels = normal(0, 2, 3, 8, 8), np.array([3, 901]), np.array([4, 1])
    condition = Condition(label=jnp.asarray(labels) if config.class_count else None)
    module, variables = build_unet(config), to_tree(peer)
    check_structure(module, variables, nhwc(x), jnp.asarray(t), condition)
    found = jax.jit(module.apply)(variables, nhwc(x), jnp.asarray(t), condition)
    classes = {"class_labels": torch.from_numpy(labels)} if config.class_count else {}
    expected = peer(torch.from_numpy(x), torch.from_numpy(t), **classes).sample
    assert relative_error(found, expected) < CLOSE


# name: multiples of 32 channels, latent channels, coarsest levels with attention, codebook.
FIRST_STAGES = {
    "kl-f4": ((1, 2, 4), 3, 0, None),
    "kl-f16": ((1, 1, 2, 2, 4), 16, 1, None),
    "vq-f4-noattn": ((1, 2, 4), 3, 0, 64),
    "vq-f8": ((1, 2, 2, 4), 4, 1, 128),
}


def first_stage(name):
    """The peer with random weights and our config of the same."""
    multiples, z, attended, codebook = FIRST_STAGES[name]
    levels = len(multiples)
    attention = tuple(i >= levels - attended for i in range(levels))
    down = [f"{'Attn' if here else ''}DownEncoderBlock2D" for here in attention]
    up = [f"{'Attn' if here else ''}UpDecoderBlock2D" for here in attention[::-1]]
    shared = {"block_out_channels": tuple(32 * n for n in multiples), "layers_per_block": 1}
    middle = name != "vq-f4-noattn"
    kind, more = diffusers.AutoencoderKL, {}
    if codebook is not None:
        kind, more = diffusers.VQModel, {"num_vq_embeddings": codebook}
    peer = kind(
        latent_channels=z, down_block_types=down, up_block_types=up,
        mid_block_add_attention=middle, **shared, **more,
    )  # fmt: skip
    config = cfg.Autoencoder(
        latent_channels=z, attention=attention, mid_attention=middle, **shared,
        bottleneck=cfg.KL() if codebook is None else cfg.VQ(codebook),
    )  # fmt: skip
    return randomize(peer), config


@pytest.mark.parametrize("name", FIRST_STAGES)
def test_first_stage(name):
    peer, config = first_stage(name)
    image, side = normal(0, 1, 3, 64, 64), 64 // config.factor
    z = normal(1, 1, config.latent_channels, side, side)
    module, variables = build_autoencoder(config), to_tree(peer)
    check_structure(module, variables, nhwc(image), nhwc(z))

    @jax.jit
    def both(variables):
        encoded = module.apply(variables, nhwc(image), method="encode")
        return encoded, module.apply(variables, nhwc(z), method="decode")

    encoded, decoded = both(variables)
    theirs = peer.encode(torch.from_numpy(image))
    if config.codes is None:
        assert relative_error(encoded.mean, theirs.latent_dist.mean) < CLOSE
        assert relative_error(encoded.logvar, theirs.latent_dist.logvar) < CLOSE
    else:
        assert relative_error(encoded.mode, theirs.latents) < CLOSE
    assert relative_error(decoded, peer.decode(torch.from_numpy(z)).sample) < CLOSE
    if config.codes is not None:
        # Vectors of the codebook are their own nearest: the peer's decoder alone agrees too.
        *_, (_, _, indices) = peer.quantize(torch.from_numpy(z))
        found = module.apply(variables, nhwc(z), method=lambda m, z: m.quantize(z))
        np.testing.assert_array_equal(found.indices.ravel(), indices)
        vectors = found.latents.transpose(0, 3, 1, 2)
        alone = peer.decode(torch.from_numpy(np.array(vectors)), force_not_quantize=True).sample
        assert relative_error(decoded, alone) < CLOSE


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_clip(activation):
    config = transformers.CLIPTextConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=12, hidden_act=activation,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    peer = randomize(transformers.CLIPTextModel(config))
    tokens = np.random.default_rng(0).integers(0, 50, (2, 12))
    hidden = peer(torch.from_numpy(tokens), output_hidden_states=True)
    penultimate = peer.final_layer_norm(hidden.hidden_states[-2])
    for skip, expected in enumerate((hidden.last_hidden_state, penultimate)):
        ours = cfg.CLIPText(
            vocab_size=50, max_length=12, width=32, layers=3, num_heads=4, intermediate=64,
            activation=activation, skip_last=skip,
        )  # fmt: skip
        module = build_conditioner(cfg.TextConditioner(ours)).module
        unused = ("encoder.layers.2.",) if skip else ()
        variables = to_tree(peer, "text_model", unused)
        check_structure(module, variables, jnp.asarray(tokens))
        found = jax.jit(module.apply)(variables, jnp.asarray(tokens)).context
        assert relative_error(found, expected) < CLOSE


def test_bert():
    config = LDMBertConfig(
        vocab_size=50, max_position_embeddings=12, encoder_layers=2, encoder_ffn_dim=96,
        encoder_attention_heads=4, head_dim=10, d_model=24,
    )  # fmt: skip
    peer = randomize(LDMBertModel(config))
    ours = cfg.BERTText(vocab_size=50, max_length=12, width=24, layers=2, num_heads=4, head_dim=10)
    module = build_conditioner(cfg.TextConditioner(ours)).module
    tokens = np.random.default_rng(0).integers(0, 50, (2, 12))
    tokens[:, 8:] = 0
    variables = to_tree(peer, skip=("to_logits",))
    check_structure(module, variables, jnp.asarray(tokens))
    found = jax.jit(module.apply)(variables, jnp.asarray(tokens)).context
    assert relative_error(found, peer(torch.from_numpy(tokens))[0]) < CLOSE
