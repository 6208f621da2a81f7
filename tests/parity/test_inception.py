"""Features of images are those of torch-fidelity, pytorch-fid and clean-fid, with the same weights.

Features are compared relative to the largest of their kind, to 1e-4: ninety convolutions in float32
in another order of summation differ by some 1e-6. Resizes are compared to the rounding of 0..255 in
float32; that of 8 bits is bit for bit.
"""

import warnings

import inception_files
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import torchvision_python  # noqa: F401
from ldm_jax.evaluation.features import resizing
from ldm_jax.evaluation.features.extractors import MODES, read_extractor
from ldm_jax.models.inception import TAPS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import cleanfid.resize
    import pytorch_fid.inception
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x,
    )

SIDES = [(33, 41), (299, 299), (311, 520), (64, 601)]
TARGETS = [(299, 299), (224, 224)]


def pictures(height, width, count=2):
    """Smooth and rough, dark and bright, with black and white in them."""
    random = np.random.default_rng(height * 1000 + width)
    coarse = random.uniform(-60, 315, (count, 5, 7, 3))
    rows = np.linspace(0, 4, height).astype(int)
    columns = np.linspace(0, 6, width).astype(int)
    images = coarse[:, rows][:, :, columns] + random.normal(0, 25, (count, height, width, 3))
    return images.clip(0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return inception_files.save(tmp_path_factory.mktemp("inception"))


@pytest.fixture(scope="module")
def fidelity(file):
    """torch-fidelity's network, all of its features, and the spatial ones that ADM takes."""
    names = [name for name in TAPS if name != "spatial"]
    network = FeatureExtractorInceptionV3("inception", names, str(file))
    found = {}

    def keep(module, given, made):
        found["spatial"] = made[:, :7].permute(0, 2, 3, 1).flatten(1)

    network.Mixed_6d.branch1x1.register_forward_hook(keep)

    def features(images):
        values = network(torch.from_numpy(images).permute(0, 3, 1, 2))
        return dict(zip(names, values, strict=True)) | found

    return features


@pytest.fixture(scope="module")
def pytorch_fid_network(file):
    """The features of pixels [0, 1], resized in the network or not."""
    with pytest.MonkeyPatch.context() as patch:
        state = torch.load(file)
        patch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *_, **__: state)
        network = pytorch_fid.inception.InceptionV3([0, 1, 2, 3]).eval()

    def features(pixels, resize):
        network.resize_input = resize
        with torch.no_grad():
            return [x.mean((2, 3)).numpy() for x in network(pixels)]

    return features


@pytest.fixture(scope="module")
def extractors(file):
    """One of each mode."""
    return {
        mode: read_extractor(mode, file, taps=tuple(TAPS), batch_size=8)
        for mode in MODES
        if MODES[mode].network.name.startswith("Inception")
    }


def assert_near(found, want, tolerance=1e-4):
    want = np.asarray(want)
    # Two images are told apart a hundred times as far as the tolerance reaches.
    assert np.abs(want[0] - want[1]).max() > 100 * tolerance * np.abs(want).max()
    np.testing.assert_allclose(found, want, rtol=0, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("sides", SIDES[:1] + SIDES[2:3], ids=str)
def test_torch_fidelity_and_adm(sides, extractors, fidelity):
    images = pictures(*sides)
    want = fidelity(images)
    assert MODES["torch-fidelity"].preprocessing == MODES["adm"].preprocessing
    found = extractors["adm"].features(images)
    assert found.keys() == TAPS.keys()
    for name, values in found.items():
        assert values.shape == (2, TAPS[name])
        assert_near(values, want[name])


@pytest.mark.parametrize("sides", SIDES[:1] + SIDES[2:3], ids=str)
def test_pytorch_fid(sides, extractors, pytorch_fid_network):
    images = pictures(*sides)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    want = pytorch_fid_network(pixels, resize=True)
    found = extractors["pytorch-fid"].features(images)
    for name, values in zip(("64", "192", "768", "2048"), want, strict=True):
        assert_near(found[name], values)


def test_clean_fid(extractors, pytorch_fid_network):
    """Its resize, then the same network; the range is 0..256 there, less 128."""
    images = pictures(*SIDES[2])
    resized = np.stack([cleanfid.resize.build_resizer("clean")(image) for image in images])
    pixels = torch.from_numpy(resized / 256).permute(0, 3, 1, 2).float()
    want = pytorch_fid_network(pixels, resize=False)
    assert_near(extractors["clean-fid"].features(images)["2048"], want[3])


def test_images_that_fill_no_batch(extractors):
    """Rows of padding are dropped, and change nothing."""
    images = pictures(33, 41, 9)
    extractor = extractors["adm"]
    found = extractor.features(images)
    alone = extractor.features(images[8:])
    for name, values in found.items():
        assert len(values) == 9
        np.testing.assert_allclose(alone[name][0], values[8], rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------- resizes


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_tensorflow_bilinear(sides, target):
    images = pictures(*sides).astype(np.float32)
    torch_images = torch.from_numpy(images).permute(0, 3, 1, 2)
    want = interpolate_bilinear_2d_like_tensorflow1x(torch_images, target, align_corners=False)
    found = resizing.tensorflow_bilinear(jnp.asarray(images), target)
    np.testing.assert_allclose(found, want.permute(0, 2, 3, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_torch_bilinear(sides, target):
    images = pictures(*sides).astype(np.float32)
    torch_images = torch.from_numpy(images).permute(0, 3, 1, 2)
    want = torch.nn.functional.interpolate(torch_images, target, mode="bilinear")
    found = resizing.torch_bilinear(jnp.asarray(images), target)
    np.testing.assert_allclose(found, want.permute(0, 2, 3, 1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_clean_fids_bicubic(sides):
    images = pictures(*sides)
    want = np.stack([cleanfid.resize.build_resizer("clean")(image) for image in images])
    found = resizing.pillow_bicubic(jnp.asarray(images.astype(np.float32)), (299, 299))
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-3)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_pillows_bicubic_of_8_bits(sides, target):
    images = pictures(*sides)
    want = [
        np.asarray(Image.fromarray(image).resize(target[::-1], Image.Resampling.BICUBIC))
        for image in images
    ]
    found = resizing.pillow_bicubic_rounded(jnp.asarray(images), target)
    np.testing.assert_array_equal(found, np.stack(want))
