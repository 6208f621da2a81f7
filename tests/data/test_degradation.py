import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ldm_jax import config as cfg
from ldm_jax.data import degradation, resampling
from ldm_jax.data.degradation import degrade
from ldm_jax.data.random_stream import RandomStream

KINDS = (cfg.Bicubic(), cfg.BSRGAN(), cfg.BSRGAN(light=True))


def _waves(height, width):
    """Smooth colours with one sharp edge."""
    y, x = np.mgrid[:height, :width] / 16
    channels = np.sin(2 * x + y), np.cos(x - 2 * y), np.sign(x + y - 2) * 0.8
    return np.uint8(127.5 + 100 * np.stack(channels, -1))


@pytest.mark.parametrize("how", KINDS, ids=("bicubic", "bsrgan", "light"))
@pytest.mark.parametrize(("scale", "sides"), [(4, (16, 16)), (2, (16, 24)), (8, (64, 40)),
                                              (4, (4, 8))])  # fmt: skip
def test_pictures_of_any_size_become_smaller_and_stay_themselves(how, scale, sides):
    """Also such that only a pixel is left in between; the mean stays, whatever order is drawn."""
    image = _waves(*sides)
    for position in range(30):
        small = degrade(image, scale, how, RandomStream(0, position, "degradation"))
        assert small.shape == (sides[0] // scale, sides[1] // scale, 3) and small.dtype == np.uint8
        assert np.abs(small.mean((0, 1)) - image.mean((0, 1))).max() < 60


def test_degraded_pictures_depend_on_the_stream_only():
    image = _waves(32, 32)

    def drawn(position, how=KINDS[1]):
        return degrade(image, 4, how, RandomStream(3, position, "degradation")).tobytes()

    assert len({drawn(p) for p in range(20)}) == 20 and drawn(7) == drawn(7)
    assert drawn(0, cfg.Bicubic()) == drawn(1, cfg.Bicubic())


def test_weaker_degradation_is_closer():
    image = _waves(64, 64)
    clean = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC))

    def error(how):
        drawn = [degrade(image, 4, how, RandomStream(0, p, "d")) for p in range(60)]
        return np.mean([np.abs(small.astype(int) - clean).mean() for small in drawn])

    assert 1 < error(cfg.BSRGAN(light=True)) < 0.7 * error(cfg.BSRGAN())


def test_sides_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="of 18 x 16 pixels .* multiples of 4"):
        degrade(_waves(18, 16), 4, cfg.Bicubic(), RandomStream(0, 0, "d"))


@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("width", [0.0, 1e-9, 0.01, 3.0])
def test_blurs_of_any_width_keep_brightness(size, width):
    """The original's makes pictures black where the size is even and the width nearly 0."""
    weights = degradation.gaussian(size, width)
    kernel = degradation.oval_kernel(size, width, 0.0, 1.0)
    assert abs(weights.sum() - 1) < 1e-6 and abs(kernel.sum() - 1) < 1e-6
    flat = np.full((4, 9, 3), 0.5, np.float32)
    np.testing.assert_allclose(resampling.convolve(flat, kernel), flat, atol=1e-6)


@pytest.mark.parametrize("sides", [(20, 30), (3, 40), (1, 2)])
@pytest.mark.parametrize("size", [6, 25])
def test_convolutions_are_those_of_scipy(sides, size):
    generator = np.random.default_rng(size)
    image = generator.random((*sides, 3), dtype=np.float32)
    kernel, weights = generator.random((size, size)), generator.random(size)
    expected = ndimage.convolve(image, kernel[..., None], mode="mirror")
    np.testing.assert_allclose(resampling.convolve(image, kernel), expected, rtol=1e-5)
    for step in (1, 4):
        rows, columns = (resampling.blurred(weights, side, step) for side in sides)
        expected = ndimage.convolve(image, np.outer(weights, weights)[..., None], mode="mirror")
        made = resampling.apply(image, rows, columns)
        np.testing.assert_allclose(made, expected[::step, ::step], rtol=1e-5)


@pytest.mark.parametrize("kernel", ["linear", "cubic", "area"])
def test_resizing_keeps_flat_pictures_and_places(kernel):
    flat = np.full((7, 9, 3), 0.25, np.float32)
    ramp = np.broadcast_to(np.linspace(0, 1, 48, dtype=np.float32)[:, None, None], (48, 8, 3))
    for sides in ((3, 5), (7, 9), (20, 31), (1, 1), (7, 4)):
        np.testing.assert_allclose(resampling.resize(flat, sides, kernel), 0.25, atol=1e-6)
    small = resampling.resize(ramp, (12, 2), kernel)
    # New pixels stand for the middle of four old ones.
    np.testing.assert_allclose(small[1:-1, 0, 0], (1.5 + 4 * np.arange(1, 11)) / 47, atol=1e-3)


def test_channels_of_noise_correlate_as_asked():
    stream = RandomStream(0, 0, "noise")
    covariance = degradation.channel_covariance(0.1, stream.uniforms((3, 3)), stream.uniforms(3))
    noise = degradation.correlated(stream.normals((100, 200, 3)), covariance)
    np.testing.assert_allclose(np.cov(noise.reshape(-1, 3).T), covariance, atol=3e-4)
