"""Pictures and masks for inpainting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ldm_jax.images import masks
from ldm_jax.images.masks import MaskError

RNG = np.random.default_rng(0)


def picture(h: int, w: int):
    return RNG.integers(0, 256, (h, w, 3), np.uint8)


def square(h: int, w: int, top: int, left: int, bottom: int, right: int):
    mask = np.zeros((h, w), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


# ---------------------------------------------------------------------------------------- files


def test_pictures_of_any_mode_become_rgb(tmp_path):
    grey = RNG.integers(0, 256, (6, 5), np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(masks.load_image(tmp_path / "grey.png")[..., 1], grey)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(masks.load_image(tmp_path / "deep.png")[..., 0], grey)
    np.testing.assert_array_equal(masks.load_mask(tmp_path / "deep.png"), grey)
    Image.new("RGBA", (4, 3), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (masks.load_image(tmp_path / "clear.png") == 255).all()
    Image.new("1", (4, 3), 1).save(tmp_path / "bit.png")
    assert (masks.load_mask(tmp_path / "bit.png") == 255).all()
    Image.new("RGB", (4, 3), "red").convert("P").save(tmp_path / "palette.png")
    assert (masks.load_image(tmp_path / "palette.png") == (255, 0, 0)).all()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (4, 3)).save(tmp_path / "turned.jpg", exif=turned)
    assert masks.load_image(tmp_path / "turned.jpg").shape == (4, 3, 3)


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(MaskError, match="absent.png: does not exist"):
        masks.load_image(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(MaskError, match="text.png: is no picture"):
        masks.load_image(tmp_path / "text.png")
    Image.fromarray(picture(64, 64)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    with pytest.raises(MaskError, match="cut.png"):
        masks.load_image(tmp_path / "cut.png")
    Image.fromarray(np.zeros((3, 4), np.int32)).save(tmp_path / "int.tiff")
    with pytest.raises(MaskError, match="32 bits"):
        masks.load_image(tmp_path / "int.tiff")


def test_a_mask_must_not_be_transparent(tmp_path):
    Image.new("RGBA", (4, 3), (255, 255, 255, 255)).save(tmp_path / "opaque.png")
    assert (masks.load_mask(tmp_path / "opaque.png") == 255).all()
    Image.new("RGBA", (4, 3), (0, 0, 0, 254)).save(tmp_path / "hole.png")
    with pytest.raises(MaskError, match="transparent pixels"):
        masks.load_mask(tmp_path / "hole.png")


# --------------------------------------------------------------------------------------- pixels


def test_sizes():
    assert masks.size_for((70, 64), 8) == (64, 64)
    with pytest.raises(MaskError, match="7x70 pixels; .* at least 8"):
        masks.size_for((7, 70), 8)
    image = picture(16, 24)
    assert masks.resize(image, 16, 24) is image
    assert masks.resize(image, 8, 8).shape == (8, 8, 3)


def test_white_is_painted_and_black_kept():
    image, mask = picture(16, 24), square(16, 24, 2, 3, 9, 11)
    mask[0, 0], mask[0, 1] = 127, 128
    made = masks.prepare(image, mask, 16, 24)
    np.testing.assert_array_equal(made.mask, (mask > 127).astype(np.float32))
    np.testing.assert_array_equal(made.image, image)
    other = masks.prepare(image, 255 - mask, 16, 24, invert=True)
    np.testing.assert_array_equal(other.mask, made.mask)
    painted = picture(16, 24)
    result = made.paste(painted)
    np.testing.assert_array_equal(result[mask == 255], painted[mask == 255])
    np.testing.assert_array_equal(result[mask == 0], image[mask == 0])
    small = masks.prepare(image, mask, 8, 16)
    assert small.paste(painted[:8, :16]).shape == (8, 16, 3)


def test_blur_fades_across_the_edge():
    image, mask = np.zeros((32, 32, 3), np.uint8), square(32, 32, 0, 0, 32, 16)
    made = masks.prepare(image, mask, 32, 32, blur=3.0)
    np.testing.assert_array_equal(made.mask, masks.prepare(image, mask, 32, 32).mask)
    row = made.paste(np.full((32, 32, 3), 255, np.uint8))[16, :, 0].astype(int)
    assert row[0] == 255 and row[31] == 0 and (np.diff(row) <= 0).all() and np.diff(row).min() > -50


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_only_masked_keeps_the_rest_bit_for_bit(data):
    h, w = data.draw(st.integers(8, 60)), data.draw(st.integers(8, 60))
    top, left = data.draw(st.integers(0, h - 4)), data.draw(st.integers(0, w - 4))
    bottom, right = data.draw(st.integers(top + 4, h)), data.draw(st.integers(left + 4, w))
    image, mask = picture(h, w), square(h, w, top, left, bottom, right)
    margin, blur = data.draw(st.integers(0, 70)), data.draw(st.sampled_from([0.0, 0.7, 2.0]))
    height, width = data.draw(st.sampled_from([(16, 16), (32, 16), (16, 64)]))
    try:
        made = masks.prepare(image, mask, height, width, blur=blur, only_masked=margin)
    except MaskError as error:  # a small mask can fade away in a blur or a small picture
        assert "nothing would be painted" in str(error)
        return
    assert made.image.shape == (height, width, 3) and made.mask.shape == (height, width)
    result = made.paste(picture(height, width))
    assert result.shape == image.shape
    np.testing.assert_array_equal(result[made.alpha == 0], image[made.alpha == 0])
    if not blur:
        np.testing.assert_array_equal(made.alpha, mask)
    # All that is painted lies in the box.
    outside = made.alpha.copy()
    outside[made.box.rows_columns] = 0
    assert not outside.any()


def test_pasting_what_was_seen_changes_little():
    smooth = np.asarray(Image.fromarray(picture(5, 5)).resize((40, 40), Image.Resampling.BICUBIC))
    made = masks.prepare(smooth, square(40, 40, 10, 10, 30, 30), 80, 80, blur=2.0, only_masked=4)
    assert np.abs(made.paste(made.image).astype(int) - smooth).max() <= 3  # resized up and down


@settings(deadline=None)
@given(st.data())
def test_crop_boxes(data):
    h, w = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 50))
    top, left = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    bottom, right = data.draw(st.integers(top + 1, h)), data.draw(st.integers(left + 1, w))
    height, width = data.draw(st.sampled_from([(64, 64), (64, 96), (128, 64)]))
    margin = data.draw(st.integers(0, 10))
    box = masks.crop_box(square(h, w, top, left, bottom, right), height, width, margin)
    assert 0 <= box.top <= max(top - margin, 0) and min(bottom + margin, h) <= box.bottom <= h
    assert 0 <= box.left <= max(left - margin, 0) and min(right + margin, w) <= box.right <= w
    tall, wide = box.bottom - box.top, box.right - box.left
    # The right proportions to a pixel, unless the picture has no more room.
    assert abs(tall * width - wide * height) <= max(height, width) or tall == h or wide == w


def test_a_box_in_the_open_is_centred():
    box = masks.crop_box(square(100, 100, 40, 45, 60, 55), 64, 64, 5)
    assert box == masks.Box(35, 35, 65, 65)


def test_what_fits_not_is_refused():
    image, mask = picture(16, 16), square(16, 16, 4, 4, 8, 8)
    with pytest.raises(MaskError, match=r"16x16 pixels \(height x width\), the mask 16x8"):
        masks.prepare(image, mask[:, :8], 16, 16)
    with pytest.raises(MaskError, match="mask is nowhere 128 or more"):
        masks.prepare(image, np.full_like(mask, 127), 16, 16)
    with pytest.raises(MaskError, match="mask is inverted, nowhere"):
        masks.prepare(image, np.full_like(mask, 255), 16, 16, invert=True)
    with pytest.raises(MaskError, match="blurred by 9.0, nowhere"):
        masks.prepare(image, mask, 16, 16, blur=9.0)
    with pytest.raises(MaskError, match="resized to 2x2, nowhere"):
        masks.prepare(image, square(16, 16, 4, 4, 5, 5), 2, 2)
    for options in ({"blur": -1.0}, {"only_masked": -1}, {"blur": float("nan")}):
        with pytest.raises(MaskError, match="negative"):
            masks.prepare(image, mask, 16, 16, **options)
    with pytest.raises(MaskError, match="black everywhere"):
        masks.crop_box(np.zeros((4, 4), np.uint8), 8, 8, 0)


# ---------------------------------------------------------------------------------------- model


def test_latent_masks_take_the_upper_left_pixel():
    mask = (RNG.random((16, 24)) > 0.5).astype(np.float32)
    small = masks.latent_mask(mask, 8)
    assert small.shape == (2, 3) and small[1, 2] == mask[8, 16]
    with pytest.raises(MaskError, match="16x24 pixels; .* multiples of 16"):
        masks.latent_mask(mask, 16)
    thin = np.zeros((16, 16), np.float32)
    thin[:, 3] = 1
    with pytest.raises(MaskError, match="so thin"):
        masks.latent_mask(thin, 8)
