"""The bundle: both kinds of autoencoder behind one pair of methods, and half precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm

LATENTS = (1, 4, 4, 3)
UNET = cfg.UNet(
    in_channels=3, out_channels=3, block_out_channels=(8,), layers_per_block=1, attention=(True,),
    num_heads=(2,), norm_num_groups=4, context_dim=None,
)  # fmt: skip


def _model(codebook=None, dtype="float32"):
    autoencoder = cfg.Autoencoder(
        latent_channels=3, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        bottleneck=cfg.KL() if codebook is None else cfg.VQ(codebook),
    )  # fmt: skip
    return ldm.build(cfg.Model(autoencoder, UNET, image_size=8), dtype)


def _frozen(model):
    images, noise = jnp.zeros((1, 8, 8, 3)), jnp.zeros(LATENTS)
    variables = jax.jit(model.autoencoder.init)(jax.random.key(0), images, noise)
    return {"autoencoder": variables["params"], "latent_scale": jnp.float32(0.5)}


@pytest.mark.parametrize("codebook", [None, 16])
def test_only_a_gaussian_is_sampled(codebook):
    model = _model(codebook)
    frozen = _frozen(model)
    pixels = jax.random.uniform(jax.random.key(1), (1, 8, 8, 3), minval=-1, maxval=1)
    encode = jax.jit(model.encode)
    still, moved = (encode(frozen, pixels, n) for n in (jnp.zeros(LATENTS), jnp.ones(LATENTS)))
    assert still.shape == LATENTS and still.dtype == jnp.float32
    assert np.allclose(still, moved) is (codebook is not None)


def test_a_codebook_quantises_unscaled_latents_when_they_are_decoded():
    model = _model(16)
    frozen = _frozen(model)
    vectors = frozen["autoencoder"]["quantize"]["embedding"]["embedding"]
    exact = jnp.broadcast_to(vectors[3], LATENTS) * frozen["latent_scale"]
    decode = jax.jit(model.decode)
    # Much nearer than the vectors are to each other.
    np.testing.assert_allclose(decode(frozen, exact + 1e-5), decode(frozen, exact), atol=1e-6)
    assert not np.allclose(decode(frozen, exact + 0.1), decode(frozen, exact), atol=1e-6)


def test_each_channel_may_be_normalised_by_itself():
    model = _model()
    frozen = _frozen(model)
    mean, std = jnp.asarray([3.0, 0.0, -1.0]), jnp.asarray([2.0, 1.0, 4.0])
    own = frozen | {"latent_mean": mean, "latent_std": std}
    pixels = jax.random.uniform(jax.random.key(1), (1, 8, 8, 3), minval=-1, maxval=1)
    noise = jax.random.normal(jax.random.key(2), LATENTS)
    scaled, normalised = (jax.jit(model.encode)(f, pixels, noise) for f in (frozen, own))
    expected = (np.asarray(scaled) / 0.5 - np.asarray(mean)) / np.asarray(std) * 0.5
    np.testing.assert_allclose(normalised, expected, atol=1e-6)
    again = (jax.jit(model.decode)(f, z) for f, z in ((frozen, scaled), (own, normalised)))
    np.testing.assert_allclose(*again, atol=1e-5)


def test_float16_spares_the_autoencoder():
    dtypes = {}
    for name in ("float32", "bfloat16", "float16"):
        model = _model(dtype=name)
        dtypes[name] = (str(model.autoencoder.dtype), str(model.unet.dtype))
    assert dtypes == {
        "float32": ("float32", "float32"),
        "bfloat16": ("bfloat16", "bfloat16"),
        "float16": ("float32", "float16"),
    }
