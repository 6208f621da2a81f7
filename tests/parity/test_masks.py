"""Masks and masked pictures beside diffusers' own preparation."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffusers.image_processor import VaeImageProcessor  # noqa: E402

from ldm_jax import config as cfg  # noqa: E402
from ldm_jax.images import masks  # noqa: E402
from ldm_jax.models.build import build_conditioner  # noqa: E402
from ldm_jax.models.conditioners import Condition, Encoder  # noqa: E402

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(64, 96), (48, 64)])
@pytest.mark.parametrize("blur", [0.0, 4.0])
def test_whole_pictures_agree_with_diffusers(size, blur):
    height, width = size
    image = RNG.integers(0, 256, (64, 96, 3), np.uint8)
    mask = np.zeros((64, 96), np.uint8)
    mask[10:50, 20:77], mask[0:8, 0:8] = 255, RNG.integers(0, 256, (8, 8), np.uint8)

    pixels = VaeImageProcessor(vae_scale_factor=8)
    binary = VaeImageProcessor(
        vae_scale_factor=8, do_normalize=False, do_binarize=True, do_convert_grayscale=True
    )
    peer_mask = Image.fromarray(mask)
    if blur:
        peer_mask = binary.blur(peer_mask, blur_factor=blur)
    x = pixels.preprocess(Image.fromarray(image), height=height, width=width)
    m = binary.preprocess(peer_mask, height=height, width=width)
    hole = (x * (m < 0.5))[0].permute(1, 2, 0).numpy()
    small = torch.nn.functional.interpolate(m, size=(height // 8, width // 8))[0, 0].numpy()

    ours = masks.prepare(image, mask, height, width, blur=blur)
    np.testing.assert_array_equal(ours.mask, m[0, 0].numpy())
    np.testing.assert_array_equal(masks.latent_mask(ours.mask, 8), small)
    conditioner = build_conditioner(cfg.InpaintingConditioner())
    inputs = {
        "mask": jnp.asarray(ours.mask)[None, ..., None], "image": jnp.asarray(ours.image)[None],
        "masked_noise": jnp.zeros((1, height // 8, width // 8, 3), np.float32),
    }  # fmt: skip
    seen = []

    def encode(pixels, noise):
        seen.append(pixels)
        return noise

    shown = conditioner({}, inputs, Condition(), Encoder(encode, None))
    np.testing.assert_array_equal(shown.concat[0, ..., 0], small)
    # x / 127.5 - 1 and 2 (x / 255) - 1 round differently.
    np.testing.assert_allclose(seen[0][0], hole, atol=2e-7)


def test_crop_boxes_agree_with_diffusers_in_the_open():
    mask = np.zeros((200, 300), np.uint8)
    mask[80:111, 120:151] = 255
    for height, width, margin in ((64, 64, 0), (64, 128, 8), (96, 64, 20)):
        box = masks.crop_box(mask, height, width, margin)
        peer = VaeImageProcessor.get_crop_region(Image.fromarray(mask), width, height, pad=margin)
        left, top, right, bottom = peer
        # Theirs rounds down, ours to the nearest.
        found = np.array([box.top, box.left, box.bottom, box.right])
        assert np.abs(found - [top, left, bottom, right]).max() <= 1
