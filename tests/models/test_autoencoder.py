"""The autoencoder's shapes, posterior, padding, patches and dtypes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.models.autoencoder import fold, unfold
from ldm_jax.models.bottlenecks import Gaussian, gaussian
from ldm_jax.models.build import build_autoencoder

TINY = cfg.Autoencoder(
    block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, latent_channels=3
)
ONE_LEVEL = dataclasses.replace(TINY, block_out_channels=(8,))


def _images(side=8):
    return jax.random.uniform(jax.random.key(1), (2, side, side, 3), minval=-1, maxval=1)


@pytest.fixture
def build(parameters):
    """Module, parameters and noise of a config, for images of 8 x 8."""

    def build(config, **kwargs):
        module = build_autoencoder(config, **kwargs)
        side = 8 // config.factor
        noise = jax.random.normal(jax.random.key(2), (2, side, side, config.latent_channels))
        return module, parameters(module, _images(), noise), noise

    return build


@pytest.mark.parametrize(
    "change",
    [{}, {"mid_attention": False}, {"patch_size": 2}, {"block_out_channels": (8,)},
     {"attention": (False, True)}, {"bottleneck": cfg.VQ(5)}],
    ids=str,
)  # fmt: skip
def test_shapes_and_dtypes(change, build):
    config = dataclasses.replace(TINY, **change)
    module, variables, noise = build(config)
    images, passed = jax.eval_shape(module.apply, variables, _images(), noise)
    assert images.shape == (2, 8, 8, 3) and images.dtype == jnp.float32
    assert {leaf.shape for leaf in passed.posterior} == {noise.shape}
    assert {leaf.dtype for leaf in passed.posterior} == {jnp.dtype(jnp.float32)}


def test_attention_follows_every_residual_block_of_its_levels():
    config = dataclasses.replace(TINY, attention=(False, True))
    shapes = jax.eval_shape(
        build_autoencoder(config).init, jax.random.key(0), _images(), jnp.zeros((2, 4, 4, 3))
    )["params"]
    # The decoder's levels go from coarse to fine, and have one block more.
    encoder, decoder = shapes["encoder"]["down_blocks"], shapes["decoder"]["up_blocks"]
    assert sorted(encoder["1"]["attentions"]) == ["0"] and "attentions" not in encoder["0"]
    assert sorted(decoder["0"]["attentions"]) == ["0", "1"] and "attentions" not in decoder["1"]
    assert sorted(encoder["1"]["attentions"]["0"]) == [
        "group_norm", "to_k", "to_out", "to_q", "to_v"
    ]  # fmt: skip


def test_a_codebook_halves_what_is_encoded_and_adds_its_vectors():
    config = dataclasses.replace(TINY, bottleneck=cfg.VQ(5))
    shapes = jax.eval_shape(
        build_autoencoder(config).init, jax.random.key(0), _images(), jnp.zeros((2, 4, 4, 3))
    )["params"]
    assert shapes["quant_conv"]["kernel"].shape == (1, 1, 3, 3)
    assert shapes["quantize"]["embedding"]["embedding"].shape == (5, 3)


def test_bfloat16_and_remat_keep_parameters_and_outputs_float32(build):
    module, variables, noise = build(TINY)
    other, same, _ = build(TINY, dtype="bfloat16", remat=True)
    jax.tree.map(np.testing.assert_array_equal, variables, same)
    want, passed = jax.jit(module.apply)(variables, _images(), noise)
    decode = jax.jit(functools.partial(module.apply, method="decode"))
    np.testing.assert_allclose(decode(variables, passed.posterior.sample(noise)), want, atol=1e-4)
    got, passed = jax.jit(other.apply)(variables, _images(), noise)
    posterior = passed.posterior
    assert got.dtype == posterior.mean.dtype == posterior.logvar.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=0.05 * float(jnp.abs(want).max()))


def test_remat_changes_no_gradient(build):
    gradients = []
    for remat in (False, True):
        module, variables, noise = build(ONE_LEVEL, remat=remat)

        def loss(variables, module=module, noise=noise):
            return jnp.mean(module.apply(variables, _images(), noise)[0] ** 2)

        gradients.append(jax.jit(jax.grad(loss))(variables))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *gradients)


def test_downsampling_in_the_encoder_pads_only_after_the_end(build):
    module, variables, noise = build(TINY)
    capture = {"capture_intermediates": True, "mutable": "intermediates"}
    encode = jax.jit(functools.partial(module.apply, method="encode", **capture))
    _, state = encode(variables, _images())
    blocks = state["intermediates"]["encoder"]["down_blocks"]["0"]
    (before,) = blocks["resnets"]["0"]["__call__"]
    (after,) = blocks["downsamplers"]["0"]["__call__"]
    conv = variables["params"]["encoder"]["down_blocks"]["0"]["downsamplers"]["0"]["conv"]
    first = jnp.einsum("bhwc,hwcd->bd", before[:, :3, :3], conv["kernel"]) + conv["bias"][None]
    np.testing.assert_allclose(after[:, 0, 0], first, atol=1e-5)


def test_folding_goes_back_and_keeps_neighbours_together():
    x = _images()
    np.testing.assert_array_equal(unfold(fold(x, 2), 2), x)
    np.testing.assert_array_equal(fold(x, 2)[:, 1, 2].reshape(2, 2, 2, 3), x[:, 2:4, 4:6])


def test_images_that_do_not_fit_are_refused():
    module = build_autoencoder(TINY)
    with pytest.raises(ValueError, match="the image has sides 7x7; both must be multiples of 2"):
        module.init(jax.random.key(0), _images(7), method="encode")


def test_posterior_is_clamped_and_its_kl_is_that_of_gaussians():
    moments = jnp.array([0.5, 100.0]).reshape(1, 1, 1, 2)
    assert gaussian(moments).logvar.item() == 20
    assert gaussian(-moments).logvar.item() == -30
    standard = Gaussian(jnp.zeros((2, 1, 1, 3)), jnp.zeros((2, 1, 1, 3)))
    np.testing.assert_array_equal(standard.kl(), [0, 0])
    other = Gaussian(jnp.ones((1, 1, 1, 3)), jnp.full((1, 1, 1, 3), 2 * np.log(2.0)))
    np.testing.assert_allclose(other.kl(), [3 * (-np.log(2) + (4 + 1) / 2 - 0.5)], rtol=1e-6)
    np.testing.assert_allclose(other.sample(jnp.ones((1, 1, 1, 3))), 3.0, rtol=1e-6)


@pytest.mark.parametrize(
    "kind",
    [cfg.VQ(5), cfg.VQ(5, cosine=True, code_dim=2), cfg.Gumbel(6), cfg.FSQ((4, 3, 5)), cfg.LFQ()],
    ids=lambda kind: type(kind).__name__,
)
def test_codes_decode_to_what_their_latents_do(kind):
    config = dataclasses.replace(ONE_LEVEL, mid_attention=False, bottleneck=kind)
    module = build_autoencoder(config)

    @jax.jit
    def both_ways(images):
        variables = module.init(jax.random.key(0), images)
        reconstruction, passed = module.apply(variables, images)
        quantized = module.apply(
            variables, passed.posterior.mode, method=lambda m, z: m.quantize(z)
        )
        decoded = module.apply(variables, passed.posterior.mode, method="decode")
        from_codes = module.apply(variables, passed.indices, method="decode_codes")
        return reconstruction, passed, quantized, decoded, from_codes

    reconstruction, passed, quantized, decoded, from_codes = both_ways(_images())
    np.testing.assert_array_equal(passed.indices, quantized.indices)
    assert passed.indices.shape == (2, 8, 8) and passed.indices.max() < config.codes
    assert passed.loss.shape == () and np.isfinite(passed.loss)
    np.testing.assert_allclose(decoded, reconstruction, atol=1e-5)
    # Straight-through adds and takes away the latents.
    np.testing.assert_allclose(from_codes, decoded, atol=1e-4)


def test_a_gaussian_has_no_codes_and_its_loss_is_the_divergence():
    module = build_autoencoder(dataclasses.replace(ONE_LEVEL, mid_attention=False))

    @jax.jit
    def encode(images):
        return module.init_with_output(jax.random.key(0), images)

    (_, passed), variables = encode(_images())
    np.testing.assert_allclose(passed.loss, passed.posterior.kl().mean(), rtol=1e-6)
    assert passed.indices is None
    with pytest.raises(ValueError, match="bottleneck KL has no codes"):
        module.apply(variables, jnp.zeros((1, 2, 2), jnp.int32), method="decode_codes")
