"""PSNR and SSIM have the values of their definitions, worked out in float64 beside."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.losses.quality import psnr, ssim

RANDOM = np.random.default_rng(0)
A = np.clip(RANDOM.normal(size=(2, 16, 13, 3)), -1, 1).astype(np.float32)
B = np.clip(A + 0.3 * RANDOM.normal(size=A.shape), -1, 1).astype(np.float32)


def slow_ssim(a, b, data_range=2.0):
    """Window by window."""
    line = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    window = np.outer(line, line)[..., None] / line.sum() ** 2
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            x, y = (v[i : i + 11, j : j + 11].astype(np.float64) for v in (a, b))
            mx, my = (window * x).sum((0, 1)), (window * y).sum((0, 1))
            vx, vy = (window * (x - mx) ** 2).sum((0, 1)), (window * (y - my) ** 2).sum((0, 1))
            cov = (window * (x - mx) * (y - my)).sum((0, 1))
            top = (2 * mx * my + c1) * (2 * cov + c2)
            values.append(top / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return np.mean(values)


def test_ssim():
    found = ssim(jnp.asarray(A), jnp.asarray(B))
    np.testing.assert_allclose(
        found, [slow_ssim(a, b) for a, b in zip(A, B, strict=True)], rtol=1e-5
    )
    np.testing.assert_allclose(ssim(jnp.asarray(A), jnp.asarray(A)), 1, rtol=1e-6)


def test_ssim_of_flat_bright_pictures():
    """Where variances are differences of large numbers: only luminance tells them apart."""
    a, b = jnp.full((1, 12, 12, 1), 0.9), jnp.full((1, 12, 12, 1), 0.5)
    want = (2 * 0.9 * 0.5 + 0.02**2) / (0.9**2 + 0.5**2 + 0.02**2)
    assert ssim(a, b)[0] == pytest.approx(want, rel=1e-4)


def test_ssim_refuses_what_is_smaller_than_its_window():
    with pytest.raises(ValueError, match="11 pixels.*10x12"):
        ssim(jnp.zeros((1, 10, 12, 3)), jnp.zeros((1, 10, 12, 3)))


def test_psnr():
    want = 10 * np.log10(4 / np.mean((A - B).astype(np.float64) ** 2, axis=(1, 2, 3)))
    np.testing.assert_allclose(psnr(jnp.asarray(A), jnp.asarray(B)), want, rtol=1e-5)
    assert psnr(jnp.asarray(A), jnp.asarray(A))[0] == pytest.approx(100)
