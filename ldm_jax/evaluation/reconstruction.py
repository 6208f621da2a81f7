"""How well an autoencoder gives pictures back."""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, UInt8

from ldm_jax.latent_diffusion import to_images, to_pixels
from ldm_jax.models.build import build_autoencoder
from ldm_jax.training.checkpoint import Checkpoints, read_config


def reconstruct(
    workdir: Path, images: UInt8[np.ndarray, "n h w c"], batch_size: int = 64
) -> UInt8[np.ndarray, "n h w c"]:
    """Pictures through the autoencoder of `workdir` and back, by way of the posterior's mode.

    Raises:
        FileNotFoundError, ValueError: no checkpoint of an autoencoder, or a damaged one.
    """
    run = read_config(workdir)
    autoencoder = build_autoencoder(run.autoencoder)
    weights = "raw" if run.optim.ema_decay is None else "ema"
    _, params = Checkpoints.load_params(workdir, weights)

    @jax.jit
    def there_and_back(params, images):
        posterior = autoencoder.apply({"params": params}, to_pixels(images), method="encode")
        return to_images(autoencoder.apply({"params": params}, posterior.mode, method="decode"))

    found = []
    for start in range(0, len(images), batch_size):
        count = min(batch_size, len(images) - start)
        rows = np.resize(np.arange(start, start + count), batch_size)
        found.append(np.asarray(there_and_back(params, images[rows]))[:count])
    return np.concatenate(found)


def psnr(
    images: UInt8[np.ndarray, "n h w c"], references: UInt8[np.ndarray, "n h w c"]
) -> Float[np.ndarray, "n"]:
    """Peak signal-to-noise ratio of each picture in dB: 20 log10(255) - 10 log10(MSE)."""
    error = images.astype(np.float64) - references.astype(np.float64)
    mse = np.mean(error**2, axis=(1, 2, 3))
    return 20 * np.log10(255) - 10 * np.log10(np.maximum(mse, 1e-10))
