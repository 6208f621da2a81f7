"""How much two pictures are alike: PSNR and SSIM, in programs of training and evaluation alike."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

WINDOW = 11
SIGMA = 1.5
"""Of the Gaussian window of SSIM, in pixels (Wang 2004, section III.B)."""


def psnr(
    a: Float[Array, "b h w c"], b: Float[Array, "b h w c"], data_range: float = 2.0
) -> Float32[Array, "b"]:
    """Peak signal-to-noise ratio of each image in dB: 10 log10(data_range^2 / MSE).

    `data_range` is the distance of white from black, 2 for pixels in [-1, 1]. Equal images have
    an MSE of 0, which is taken as 1e-10 data_range^2: 100 dB.
    """
    error = (a.astype(jnp.float32) - b.astype(jnp.float32)) / data_range
    return -10 * jnp.log10(jnp.maximum(jnp.mean(error**2, axis=(1, 2, 3)), 1e-10))


def ssim(
    a: Float[Array, "b h w c"], b: Float[Array, "b h w c"], data_range: float = 2.0
) -> Float32[Array, "b"]:
    """Structural similarity of each image, at most 1 (Wang 2004, eq. 13), per channel, averaged.

    The window is a Gaussian of 11 pixels and sigma 1.5; where it would reach beyond the image
    nothing is measured. K1 = 0.01, K2 = 0.03; variances are those of the weighted population.
    This is scikit-image's `structural_similarity` with `gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False`.

    Raises:
        ValueError: images smaller than the window.
    """
    if min(a.shape[1:3]) < WINDOW:
        raise ValueError(
            f"SSIM needs sides of {WINDOW} pixels at least; the images have "
            f"{a.shape[1]}x{a.shape[2]}"
        )
    # Scaled to a range of 1. Variances are differences of means of squares, so that what is
    # common to both images is better taken away first.
    a, b = a.astype(jnp.float32) / data_range, b.astype(jnp.float32) / data_range
    centre = jnp.mean((a + b) / 2, axis=(1, 2), keepdims=True)
    x, y = a - centre, b - centre
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = jnp.maximum(_windowed(x * x) - mean_x**2, 0)
    variance_y = jnp.maximum(_windowed(y * y) - mean_y**2, 0)
    covariance = _windowed(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + centre, mean_y + centre
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def _windowed(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """The Gaussian mean around each pixel that has a whole window."""
    down, across = _blur(x.shape[1]), _blur(x.shape[2])
    # TPUs would otherwise round what variances are the small differences of.
    exact = jax.lax.Precision.HIGHEST
    x = jnp.einsum("bhwc,kh->bkwc", x, down, precision=exact)
    return jnp.einsum("bkwc,lw->bklc", x, across, precision=exact)


def _blur(side: int) -> Float32[np.ndarray, "k n"]:
    """The matrix whose rows are the window, each a pixel further than the one before."""
    window = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
    blur = np.zeros((side - WINDOW + 1, side), np.float32)
    for row in range(len(blur)):
        blur[row, row : row + WINDOW] = window / window.sum()
    return blur
