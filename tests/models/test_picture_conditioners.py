"""What conditioners of pictures put beside the latents."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.models.build import build_conditioner
from ldm_jax.models.conditioners import Condition, Encoder
from ldm_jax.models.process import build_process

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def made(config, inputs, encode=lambda pixels, noise: noise, factor=4, params=None, mode=None):
    inputs = {name: jnp.asarray(value) for name, value in inputs.items()}
    encoder = Encoder(encode, mode)
    return build_conditioner(config, factor=factor)(params or {}, inputs, Condition(), encoder)


@pytest.mark.parametrize(
    ("form", "hole", "mask_first", "low"),
    [("stable_diffusion", 0.0, True, 0.0), ("latent_diffusion", -1.0, False, -1.0)],
)
def test_inpainting_has_the_conventions_of_its_form(form, hole, mask_first, low):
    mask = np.zeros((1, 8, 8, 1), np.uint8)
    mask[:, :, 4:] = 1
    inputs = {
        "mask": mask, "image": np.full((1, 8, 8, 3), 255, np.uint8),
        "masked_noise": jnp.zeros((2, 2, 2, 3)),
    }  # fmt: skip

    def encode(pixels, noise):
        np.testing.assert_array_equal(pixels[0, :, 4:], hole)
        np.testing.assert_array_equal(pixels[0, :, :4], 1.0)
        return pixels[:, ::4, ::4] + 5

    concat = made(cfg.InpaintingConditioner(form=form), inputs, encode).concat
    assert concat.shape == (2, 2, 2, 4)
    place, rest = (0, slice(1, 4)) if mask_first else (3, slice(0, 3))
    np.testing.assert_array_equal(concat[..., place], np.broadcast_to([low, 1.0], (2, 2, 2)))
    np.testing.assert_array_equal(concat[0, 0, 0, rest], 6.0)


def test_a_class_map_becomes_the_exact_mean_of_its_classes():
    """torch's bilinear halving, twice, is the mean of 4 x 4 pixels, which this is by definition."""
    config = cfg.ClassMapConditioner(cfg.ClassMaps(num_classes=5), channels=3)
    class_map = RNG.integers(-1, 5, (2, 8, 12)).astype(np.int16)
    conditioner = build_conditioner(config, factor=4)
    params = conditioner.init(KEY, {"class_map": jnp.asarray(class_map)}, Condition())
    kernel = params["channel_mapper"]["kernel"]
    assert kernel.shape == (1, 1, 5, 3) and len(jax.tree.leaves(params)) == 1
    one_hot = (class_map[..., None] == np.arange(5)).reshape(2, 2, 4, 3, 4, 5)
    concat = made(config, {"class_map": class_map}, params=params).concat
    np.testing.assert_allclose(concat, one_hot.mean((2, 4)) @ kernel[0, 0], atol=1e-6)
    nothing = made(config, {"class_map": np.full((1, 8, 8), -1, np.int16)}, params=params)
    np.testing.assert_array_equal(nothing.concat, 0)


def test_a_low_resolution_picture_gets_the_noise_of_its_level():
    noise = cfg.NoiseAugmentation()
    small = RNG.integers(0, 256, (2, 3, 3, 3), np.uint8)
    pixels = small / np.float32(127.5) - 1
    np.testing.assert_allclose(
        made(cfg.LowResConditioner(), {"low_res": small}).concat, pixels, atol=1e-6
    )
    inputs = {
        "low_res": small, "low_res_noise": jnp.ones((2, 3, 3, 3)),
        "noise_level": jnp.array([0, 349]),
    }  # fmt: skip
    condition = made(cfg.LowResConditioner(noise=noise), inputs)
    process = build_process(noise.process)
    for row, level in enumerate((0, 349)):
        expected = process.alpha_at(level) * pixels[row] + process.sigma_at(level)
        np.testing.assert_allclose(condition.concat[row], expected, atol=1e-6)
    np.testing.assert_array_equal(condition.label, [0, 349])


def test_a_layout_is_context():
    tokens = cfg.LayoutTokens(num_classes=4, max_objects=2, grid=4, vocab_size=32)
    config = cfg.LayoutConditioner(tokens, width=8, layers=1, num_heads=2, head_dim=4)
    boxes = np.zeros((2, tokens.length), np.int32)
    params = build_conditioner(config).init(KEY, {"boxes": jnp.asarray(boxes)}, Condition())
    plain = made(config, {"boxes": boxes}, params=params)
    assert plain.context.shape == (2, 8, 8) and plain.concat is None
    assert config.slots(4) == cfg.Slots(8)

    config = replace(config, box_map_channels=3)
    painted = np.full((2, 8, 8), -1, np.int16)
    painted[0, :4, :4] = 2
    inputs = {"boxes": jnp.asarray(boxes), "box_map": jnp.asarray(painted)}
    own = build_conditioner(config, factor=4).init(KEY, inputs, Condition())
    params = {**params, "channel_mapper": own["channel_mapper"]}
    both = made(config, inputs, params=params)
    np.testing.assert_array_equal(both.context, plain.context)
    kernel = own["channel_mapper"]["kernel"][0, 0]
    expected = np.zeros((2, 2, 2, 3))
    expected[0, 0, 0] = kernel[2]
    np.testing.assert_allclose(both.concat, expected, atol=1e-6)
    assert config.slots(4) == cfg.Slots(8, concat=3)


def test_a_picture_to_edit_is_its_unscaled_mode_or_zero():
    images = RNG.integers(0, 256, (2, 8, 8, 3), np.uint8)

    def mode(pixels):
        np.testing.assert_allclose(pixels, images / np.float32(127.5) - 1, atol=1e-6)
        return pixels[:, ::4, ::4] + 5

    inputs = {"edit_image": images, "edit_given": np.array([1, 0], np.int32)}
    concat = made(cfg.EditConditioner(), inputs, encode=None, mode=mode).concat
    expected = mode(images / np.float32(127.5) - 1)[0]
    np.testing.assert_allclose(concat[0], expected, atol=1e-6)
    np.testing.assert_array_equal(concat[1], 0.0)
    assert cfg.EditConditioner().slots(4).concat == 4


def test_sizes_are_waves_of_each_number():
    sizes = np.array([[600, 400, 0, 44, 512, 512], [0, 0, 0, 0, 0, 0]], np.int32)
    pooled = made(cfg.SizeConditioner(4), {"size": sizes}).pooled
    waves = [[np.cos(n), np.cos(n / 100), np.sin(n), np.sin(n / 100)] for n in sizes[0].tolist()]
    np.testing.assert_allclose(pooled[0], np.ravel(waves), atol=1e-4)
    assert pooled.shape == (2, 24) and cfg.SizeConditioner(4).slots(4).pooled == 24


def test_depth_fills_the_range_of_each_picture():
    depth = np.stack([np.array([[0.0, 3.0], [1.0, 4.0]]), np.full((2, 2), 7.0)]).astype(np.float32)
    concat = made(cfg.DepthConditioner(), {"depth": depth}).concat
    np.testing.assert_allclose(concat[0, ..., 0], [[-1.0, 0.5], [-0.5, 1.0]], atol=1e-6)
    np.testing.assert_array_equal(concat[1], -1.0)
    assert cfg.DepthConditioner().slots(4).concat == 1
