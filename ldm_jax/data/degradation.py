"""Low-resolution images for super-resolution, made from the full ones: bicubic, or by the random
degradations of BSRGAN (Zhang et al. 2021, arXiv:2103.14006) as latent diffusion trains with them.

Images are float32 in [0, 1] between the steps, RGB.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.data import resampling
from ldm_jax.data.random_stream import RandomStream

Picture = Float32[np.ndarray, "_ _ 3"]


def degrade(
    image: UInt8[np.ndarray, "h w 3"], scale: int, how: cfg.Degradation, stream: RandomStream
) -> UInt8[np.ndarray, "height width 3"]:
    """The image at 1/scale of its sides, degraded as `how` says.

    Raises:
        ValueError: a side of the image is not a multiple of `scale`.
    """
    height, width = image.shape[:2]
    if height % scale or width % scale:
        raise ValueError(
            f"an image of {height} x {width} pixels cannot be made smaller by {scale}; its sides "
            f"must be multiples of {scale}"
        )
    if isinstance(how, cfg.Bicubic):
        sides = width // scale, height // scale
        return np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.BICUBIC))
    strength = LIGHT if how.light else FULL
    return _chain(image.astype(np.float32) / np.float32(255), scale, strength, stream)


@dataclass(frozen=True)
class Strength:
    """The ends of what is drawn: whole numbers include both."""

    blurs: int
    """Number of blurs."""
    spread: float
    """Factor on the widths of blurs."""
    oval_sizes: tuple[int, ...]
    """Sides of kernels that differ by direction, in pixels."""
    round_sizes: tuple[int, ...]
    """Sides of those that do not."""
    shrinks: float
    """Probability that a plain resize, not a shifted blur, comes before the last resize."""
    noise: tuple[int, int]
    """Standard deviation, in grey levels of 255."""
    quality: tuple[int, int]
    """Quality of JPEG compression."""


FULL = Strength(2, 1.0, tuple(range(7, 26, 2)), tuple(range(7, 26, 2)), 0.75, (2, 25), (30, 95))
LIGHT = Strength(1, 0.25, tuple(range(5, 15)), (5, 6, 7), 0.8, (1, 2), (80, 95))


def _chain(
    image: Picture, scale: int, strength: Strength, stream: RandomStream
) -> UInt8[np.ndarray, "height width 3"]:
    """All steps, in random order but for the first and the last, and that the resize to the final
    size comes after the other one."""
    height, width = (side // scale for side in image.shape[:2])
    # The published code halves first at a scale of 4 only.
    if scale == 4 and stream.chance(0.25):
        scale = 2
        if stream.chance(0.5):
            image = _resize(image, tuple(side // 2 for side in image.shape[:2]), stream)
        else:
            image = np.clip(resampling.halve_evenly(image), 0, 1)

    steps: list[Callable[[Picture], Picture]] = [
        lambda image: _shrink(image, scale, strength, stream),
        lambda image: _resize(image, (height, width), stream),
        lambda image: _noise(image, strength, stream),
        lambda image: _compress_often(image, strength, stream),
    ]
    steps += [lambda image: _blur(image, scale, strength, stream)] * strength.blurs
    order = stream.order(len(steps)).tolist()
    first, second = order.index(0), order.index(1)
    if first > second:
        order[first], order[second] = 1, 0
    for step in order:
        image = steps[step](image)
    return compress(image, stream.within(*strength.quality))


# ------------------------------------------------------------------------------ random choices


def _resize(image: Picture, sides: tuple[int, ...], stream: RandomStream) -> Picture:
    kernels: tuple[resampling.Kernel, ...] = ("linear", "cubic", "area")
    height, width = sides
    made = resampling.resize(image, (height, width), kernels[stream.below(3)])
    return np.clip(made, 0, 1)


def _shrink(image: Picture, scale: int, strength: Strength, stream: RandomStream) -> Picture:
    if stream.chance(strength.shrinks):
        factor = 1 / stream.uniform(1, 2 * scale)
        # A side of a few pixels keeps one.
        sides = tuple(max(1, int(factor * side)) for side in image.shape[:2])
        return _resize(image, sides, stream)
    return np.clip(shifted_shrink(image, scale, stream.uniform(0.1, 0.6 * scale)), 0, 1)


def _blur(image: Picture, scale: int, strength: Strength, stream: RandomStream) -> Picture:
    if stream.chance(0.5):
        variances = [strength.spread * (4 + scale) * stream.uniform() for _ in range(2)]
        sizes = strength.oval_sizes
        size, angle = sizes[stream.below(len(sizes))], stream.uniform(0, np.pi)
        return resampling.convolve(image, oval_kernel(size, variances[0], variances[1], angle))
    size = strength.round_sizes[stream.below(len(strength.round_sizes))]
    weights = gaussian(size, strength.spread * (2 + 0.2 * scale) * stream.uniform())
    rows, columns = (resampling.blurred(weights, side) for side in image.shape[:2])
    return resampling.apply(image, rows, columns)


def _noise(image: Picture, strength: Strength, stream: RandomStream) -> Picture:
    """Of each pixel's own three channels, grey, or of one correlation of channels."""
    level, kind = stream.within(*strength.noise) / 255, stream.uniform()
    height, width = image.shape[:2]
    if kind < 0.8:
        noise = level * stream.normals((height, width, 3 if kind < 0.4 else 1))
    else:
        # As published: the correlated kind has the highest level, whatever was drawn.
        mixing = stream.uniforms((3, 3))
        covariance = channel_covariance(strength.noise[1] / 255, mixing, stream.uniforms(3))
        noise = correlated(stream.normals((height, width, 3)), covariance)
    return np.clip(image + noise.astype(np.float32), 0, 1)


def _compress_often(image: Picture, strength: Strength, stream: RandomStream) -> Picture:
    if not stream.chance(0.9):
        return image
    compressed = compress(image, stream.within(*strength.quality))
    return compressed.astype(np.float32) / np.float32(255)


# ----------------------------------------------------------------------- what is done with them


def gaussian(size: int, deviation: float) -> Float[np.ndarray, " size"]:
    """Weights of a Gaussian blur, of sum 1; with a deviation of 0 those of the middle alone.

    The published code makes a black image where the size is even and the deviation nearly 0, as
    all weights then vanish. Here they do not.
    """
    return _normalized(-0.5 * (_centred(size) / max(deviation, 1e-6)) ** 2)


def oval_kernel(
    size: int, variance: float, other: float, angle: float
) -> Float[np.ndarray, "size size"]:
    """Weights of a Gaussian of `variance` along a direction `angle` from the horizontal, and of
    `other` across it; of sum 1."""
    y, x = _centred(size)[:, None], _centred(size)
    along, across = x * np.cos(angle) + y * np.sin(angle), x * np.sin(angle) - y * np.cos(angle)
    return _normalized(-0.5 * (along**2 / max(variance, 1e-12) + across**2 / max(other, 1e-12)))


def _centred(size: int) -> Float[np.ndarray, " size"]:
    return np.arange(size) - (size - 1) / 2


def _normalized(exponents: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    weights = np.exp(exponents - exponents.max())
    return weights / weights.sum()


def shifted_shrink(image: Picture, scale: int, deviation: float) -> Picture:
    """Every scale-th pixel of the image after a Gaussian blur of 25 x 25 pixels that is shifted, so
    that new pixels lie in the middle of what they stand for."""
    size = 25
    at = np.clip(np.arange(size) + (scale - 1) / 2, 0, size - 1)
    weights = np.interp(at, np.arange(size), gaussian(size, deviation))
    weights /= weights.sum()
    rows, columns = (resampling.blurred(weights, side, scale) for side in image.shape[:2])
    return resampling.apply(image, rows, columns)


def channel_covariance(
    level: float, mixing: Float[np.ndarray, "3 3"], shares: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3 3"]:
    """Covariance of noise in red, green and blue: `shares` of level^2, turned by the left singular
    vectors of `mixing`, all without their signs (which for three channels stays a covariance)."""
    turn = np.linalg.svd(mixing)[0]
    return level**2 * np.abs(turn.T @ np.diag(shares) @ turn)


def correlated(
    normals: Float[np.ndarray, "h w 3"], covariance: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "h w 3"]:
    """Standard normal numbers with a covariance of channels."""
    values, vectors = np.linalg.eigh(covariance)
    return normals @ (vectors * np.sqrt(np.clip(values, 0, None))).T


def compress(image: Picture, quality: int) -> UInt8[np.ndarray, "h w 3"]:
    """The image after JPEG compression, with colours at half resolution."""
    pixels = np.rint(np.clip(image, 0, 1) * np.float32(255)).astype(np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        with Image.open(file) as read:
            return np.asarray(read)
