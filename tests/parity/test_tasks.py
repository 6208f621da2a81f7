"""Data of super-resolution, inpainting and layout against numbers of the original code, which
`make_tasks.py` made."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import task_inputs
from PIL import Image
from scipy import stats

from ldm_jax import config as cfg
from ldm_jax.data import degradation, resampling
from ldm_jax.data.annotations import read_coco
from ldm_jax.data.hole_masks import draw_mask, draw_segment
from ldm_jax.data.layout_tokens import layout_tokens
from ldm_jax.data.random_stream import RandomStream
from ldm_jax.data.transforms import Crop

# Single precision, in another order of sums, of values in [0, 1].
CLOSE = {"rtol": 0, "atol": 1e-6}


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden" / "tasks.npz") as numbers:
        return {name: numbers[name] for name in numbers.files}


def _named(golden, start):
    return {
        tuple(name.split("/")[1:]): value
        for name, value in golden.items()
        if name.startswith(f"{start}/")
    }


# ---------------------------------------------------------------------------- super-resolution


def test_resizing(golden):
    image = golden["image"]
    np.testing.assert_allclose(resampling.halve_evenly(image), golden["halved"], **CLOSE)
    for (kernel, height, width), resized in _named(golden, "resize").items():
        made = resampling.resize(image, (int(height), int(width)), kernel)
        np.testing.assert_allclose(made, resized, **CLOSE)


@pytest.mark.parametrize("number", range(7))
def test_blurs(golden, number):
    (kind,) = {name[1] for name in _named(golden, "blur") if name[0] == str(number)}
    key = f"blur/{number}/{kind}"
    drawn, size = golden[f"{key}/draws"], int(golden[f"{key}/size"])
    strength = degradation.LIGHT if kind == "light" else degradation.FULL
    light, oval = kind == "light", len(drawn) == 4
    side = size + 3 if light else 2 * size + 3
    assert side in (strength.oval_sizes if oval else strength.round_sizes)
    image = golden["image"]
    if oval:
        variances = strength.spread * (4 + task_inputs.SCALE) * drawn[1:3]
        kernel = degradation.oval_kernel(side, *variances.tolist(), drawn[3] * np.pi)
        made = resampling.convolve(image, kernel)
    else:
        deviation = strength.spread * (2 + 0.2 * task_inputs.SCALE) * drawn[1]
        weights = degradation.gaussian(side, deviation)
        made = resampling.apply(image, *(resampling.blurred(weights, n) for n in image.shape[:2]))
    np.testing.assert_allclose(made, golden[key], **CLOSE)


def test_shifted_blurs_jpeg_and_noise(golden):
    image = golden["image"]
    for (scale, deviation), shrunk in _named(golden, "shrink").items():
        made = degradation.shifted_shrink(image, int(scale), float(deviation))
        np.testing.assert_allclose(made, shrunk, **CLOSE)
    for (quality,), compressed in _named(golden, "jpeg").items():
        # Two builds of libjpeg may round differently.
        made = degradation.compress(image, int(quality)).astype(int)
        assert np.abs(made - compressed).max() <= 2
    covariance = degradation.channel_covariance(25 / 255, golden["mixing"], golden["shares"])
    np.testing.assert_allclose(covariance, golden["covariance"], rtol=1e-9)


@pytest.mark.parametrize("light", [False, True])
def test_distances_of_degraded_pictures(golden, light):
    """1,000 draws; distances to the picture's bicubic version, in dB."""
    pictures = [task_inputs.picture(number) for number in range(task_inputs.COUNT)]
    sides = (task_inputs.SIDE // task_inputs.SCALE,) * 2
    clean = [
        np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.BICUBIC))
        for image in pictures
    ]
    how, made = cfg.BSRGAN(light), []
    for i in range(1000):
        which, stream = i % task_inputs.COUNT, RandomStream(0, i, "degradation")
        small = degradation.degrade(pictures[which], task_inputs.SCALE, how, stream)
        made.append(task_inputs.psnr(small, clean[which]))
    _same_distribution(np.array(made), golden[f"psnr/{'light' if light else 'full'}"], 0.5)


def _same_distribution(made, original, within):
    """Neither a test of Kolmogorov and Smirnov tells them apart, nor are quantiles further than
    `within` from each other."""
    assert stats.ks_2samp(made, original).pvalue > 0.01
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    np.testing.assert_allclose(
        np.quantile(made, shares), np.quantile(original, shares), rtol=0, atol=within
    )


# ---------------------------------------------------------------------------------- inpainting


@pytest.mark.parametrize("preset", ["training", "thick", "medium", "thin"])
def test_shares_that_masks_cover(golden, preset):
    how = dataclasses.replace(getattr(cfg.Masks, preset)(), max_share=1.0)
    made = [draw_mask((256, 256), how, RandomStream(0, i, "mask")).mean() for i in range(300)]
    _same_distribution(np.array(made), golden[f"covered/{preset}"], 0.06)


def test_strokes_are_nearly_those_of_opencv(golden):
    for name, bits in _named(golden, "line").items():
        y, x, end_y, end_x, width = map(int, name)
        original = np.unpackbits(bits).reshape(256, 256)
        made = np.zeros((256, 256), np.uint8)
        draw_segment(made, (y, x), (end_y, end_x), width + 1.0)
        assert (made & original).sum() > 0.9 * (made | original).sum()


# -------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("number", range(len(task_inputs.CROPS)))
def test_tokens_of_layouts(golden, number, mirrored):
    h, w, height, width, top, left, side = task_inputs.CROPS[number]
    crop = Crop((h, w), (height, width), (top, left), (side, side), mirrored)
    for name, classes, flags in (("coco", 171, ("group",)), ("open_images", 340, cfg.FLAGS)):
        how = cfg.LayoutTokens(classes, flags)
        boxes, kinds, told = task_inputs.objects(number, 12, classes)
        ends = np.concatenate([boxes[:, 1::-1], boxes[:, 1::-1] + boxes[:, :1:-1]], 1)
        tokens = layout_tokens(ends, kinds, how, crop, flags=told)
        np.testing.assert_array_equal(tokens, golden[f"tokens/{name}/{number}/{int(mirrored)}"])


def test_classes_of_coco_are_numbered_as_published(golden, tmp_path):
    ids = golden["coco_ids"].tolist()
    files = []
    for name, members in (("things", range(91)), ("stuff", range(92, 183))):
        categories = [{"id": n, "name": f"class {n}"} for n in members if n in ids]
        categories += [{"id": 183, "name": "other"}] if name == "stuff" else []
        files.append(tmp_path / f"{name}.json")
        listed = {"categories": categories, "images": [], "annotations": []}
        files[-1].write_text(json.dumps(listed))
    assert read_coco(*files).class_names == tuple(f"class {n}" for n in ids)
    assert len(read_coco(files[0]).class_names) == 80
