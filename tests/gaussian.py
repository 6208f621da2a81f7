"""Gaussian data in two dimensions, whose denoiser and whose flow are known in closed form."""

import jax.numpy as jnp
import numpy as np

from ldm_jax.core import rngs
from ldm_jax.core.typing import Level, Prediction

MEAN = np.array([1.0, -0.5], np.float32)
COV = np.array([[1.0, 0.3], [0.3, 0.25]], np.float32)
STD, BASIS = np.sqrt(np.linalg.eigvalsh(COV)), np.linalg.eigh(COV)[1]


def denoise(x, level):
    """E[x0 | x] for x0 ~ N(MEAN, COV)."""
    alpha, sigma = level.alpha, level.sigma
    gain = alpha * STD[None] ** 2 / (alpha**2 * STD[None] ** 2 + sigma**2)
    x0 = MEAN[None] + (((x - alpha * MEAN[None]) @ BASIS) * gain) @ BASIS.T
    return Prediction(x0=x0, eps=(x - alpha * x0) / sigma)


class Arc:
    """The process alpha = cos t, sigma = sin t, smooth in t."""

    t_min, t_max = 0.0, np.pi / 2

    def alpha_at(self, t):
        return np.cos(t)

    def sigma_at(self, t):
        return np.sin(t)

    def drift_at(self, t):
        return -np.tan(t)

    def diffusion_at(self, t):
        return np.sqrt(2 * np.tan(t))

    def time_at(self, u):
        return u * np.pi / 2

    def time_of(self, noise_to_signal):
        return np.arctan(noise_to_signal)

    def network_time(self, t):
        return t


def arc(steps, first=1.45, last=0.05):
    """Arc's levels, smooth in the step, so that errors show the order of a method alone."""
    return arc_at(np.linspace(first, last, steps + 1))


def arc_at(angles):
    """Arc's levels at these times, the last of them final."""
    scales = (jnp.asarray(v, jnp.float32) for v in (angles, np.cos(angles), np.sin(angles)))
    return Level(*scales, final=jnp.arange(angles.size) == angles.size - 1)


def flow(x, run):
    """Where the probability flow of this data takes x from run's first level to its last."""
    alpha, sigma = np.float64(run.alpha[0]), np.float64(run.sigma[0])
    to_alpha, to_sigma = np.float64(run.alpha[-1]), np.float64(run.sigma[-1])
    scale = np.sqrt((to_alpha**2 * STD**2 + to_sigma**2) / (alpha**2 * STD**2 + sigma**2))
    x = np.asarray(x, np.float64)
    return to_alpha * MEAN + (((x - alpha * MEAN) @ BASIS) * scale) @ BASIS.T


def keys(n, name):
    """One key for each of n examples."""
    return rngs.example_keys(rngs.stream(0, name), jnp.arange(n))


def marginal(n, run):
    """Exact samples of the data's marginal at run's first level."""
    alpha, sigma = np.float64(run.alpha[0]), np.float64(run.sigma[0])
    unit = np.asarray(rngs.normal(keys(n, "start"), (2,)), np.float64)
    x = alpha * MEAN + (unit * np.sqrt(alpha**2 * STD**2 + sigma**2)) @ BASIS.T
    return jnp.asarray(x, jnp.float32)
