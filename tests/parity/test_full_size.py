"""The published networks at full size beside their peers, with random weights, in float32.

Each takes minutes and up to 10 GB: `pytest -m full_size`, one at a time, not as part of others.
"""

import gc

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
from ldm_jax.core import tree  # noqa: E402
from ldm_jax.models.build import (  # noqa: E402
    build_autoencoder,
    build_conditioner,
    build_unet,
)
from ldm_jax.models.conditioners import Condition  # noqa: E402

# Torch warns of its own future.
pytestmark = [pytest.mark.full_size, pytest.mark.filterwarnings("default")]
CLOSE = 1e-4


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def nhwc(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def taken(peer, **options):
    """The parameters of `peer`, which is emptied, so that both never fill the memory at once."""
    variables = to_tree(peer, **options, release=True)
    gc.collect()
    return variables, tree.count(variables)


def check(name, **errors):
    print(f"{name}: " + ", ".join(f"{what} {error:.1e}" for what, error in errors.items()))
    assert max(errors.values()) < CLOSE


def test_clip_vit_l():
    config = transformers.CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
        num_attention_heads=12, hidden_act="quick_gelu",
    )  # fmt: skip
    peer = randomize(transformers.CLIPTextModel(config))
    tokens = np.random.default_rng(0).integers(0, 49408, (2, 77))
    expected = peer(torch.from_numpy(tokens)).last_hidden_state
    variables, count = taken(peer, prefix="text_model")
    assert count == 123_060_480
    module = build_conditioner(cfg.TextConditioner(cfg.CLIPText())).module
    found = jax.jit(module.apply)(variables, jnp.asarray(tokens)).context
    check("CLIP ViT-L/14", context=relative_error(found, expected))


def test_openclip_vit_h():
    config = transformers.CLIPTextConfig(
        vocab_size=49408, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23,
        num_attention_heads=16, hidden_act="gelu",
    )  # fmt: skip
    peer = randomize(transformers.CLIPTextModel(config))
    tokens = np.random.default_rng(0).integers(0, 49408, (2, 77))
    expected = peer(torch.from_numpy(tokens)).last_hidden_state
    variables, count = taken(peer, prefix="text_model")
    assert count == 340_387_840
    # As diffusers publishes it: the last of 24 layers, which is never used, is left out.
    ours = cfg.CLIPText(
        width=1024, layers=24, num_heads=16, intermediate=4096, activation="gelu", skip_last=1
    )
    module = build_conditioner(cfg.TextConditioner(ours)).module
    found = jax.jit(module.apply)(variables, jnp.asarray(tokens)).context
    check("OpenCLIP ViT-H", context=relative_error(found, expected))


def test_bert():
    peer = randomize(LDMBertModel(LDMBertConfig()))
    tokens = np.random.default_rng(0).integers(0, 30522, (2, 77))
    expected = peer(torch.from_numpy(tokens))[0]
    variables, _ = taken(peer, skip=("to_logits",))
    module = build_conditioner(cfg.TextConditioner(cfg.BERTText())).module
    found = jax.jit(module.apply)(variables, jnp.asarray(tokens)).context
    check("BERT of the 1.45B model", context=relative_error(found, expected))


def test_stable_diffusion_autoencoder():
    widths = (128, 256, 512, 512)
    peer = randomize(diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths, layers_per_block=2, latent_channels=4,
    ))  # fmt: skip
    image, z = normal(1, 3, 256, 256), normal(1, 4, 32, 32)
    posterior = peer.encode(torch.from_numpy(image)).latent_dist
    decoded = peer.decode(torch.from_numpy(z)).sample
    variables, count = taken(peer)
    assert count == 83_653_863
    module = build_autoencoder(cfg.Autoencoder())
    ours = jax.jit(lambda v, x: module.apply(v, x, method="encode"))(variables, nhwc(image))
    image = jax.jit(lambda v, z: module.apply(v, z, method="decode"))(variables, nhwc(z))
    check(
        "SD autoencoder", mean=relative_error(ours.mean, posterior.mean),
        logvar=relative_error(ours.logvar, posterior.logvar), image=relative_error(image, decoded),
    )  # fmt: skip


def test_stable_diffusion_unet():
    peer = randomize(diffusers.UNet2DConditionModel(
        sample_size=64, cross_attention_dim=768, attention_head_dim=8,
    ))  # fmt: skip
    x, t, context = normal(1, 4, 32, 32), np.array([601]), normal(1, 77, 768)
    expected = peer(torch.from_numpy(x), torch.from_numpy(t), torch.from_numpy(context)).sample
    variables, count = taken(peer)
    assert count == 859_520_964
    condition = Condition(context=jnp.asarray(context))
    found = jax.jit(build_unet(cfg.UNet(in_channels=4, out_channels=4, context_dim=768)).apply)(
        variables, nhwc(x), jnp.asarray(t), condition
    )
    check("SD 1.5 U-Net", output=relative_error(found, expected))
