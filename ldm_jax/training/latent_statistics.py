"""How the latents of a first stage are distributed, as a new run of stage two measures it."""

from dataclasses import dataclass
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ldm_jax import config as cfg
from ldm_jax.convert.parts import FirstStage
from ldm_jax.core.sharding import local_rows, replicated, to_global
from ldm_jax.data.loader import make_loader
from ldm_jax.data.sources import Source
from ldm_jax.models.build import build_autoencoder
from ldm_jax.training.latents import encoded_batch, posterior_noise

IMAGES = 256
"""As many at least are measured where each channel is normalised, or all that there are."""
_SHOWN = 16
"""Channels whose numbers are told."""


@dataclass(frozen=True)
class LatentStatistics:
    """Of unscaled latents, sampled from their posterior."""

    images: int
    std: float
    """Standard deviation over all channels."""
    channel_mean: Float[np.ndarray, "z"]
    channel_std: Float[np.ndarray, "z"]

    def told(self) -> str:
        """The numbers in words."""
        mean, std = (" ".join(f"{n:.2g}" for n in numbers[:_SHOWN])
                     + (" …" if len(numbers) > _SHOWN else "")
                     for numbers in (self.channel_mean, self.channel_std))  # fmt: skip
        return (
            f"scale {1 / self.std:.3g}; per channel mean {mean}, deviation {std} "
            f"(of {self.images} images)"
        )


def measure_latents(
    stage: FirstStage,
    run: cfg.DiffusionRun | cfg.ClassifierRun,
    train: Source,
    mesh: jax.sharding.Mesh,
    images: int = 1,
) -> LatentStatistics:
    """Statistics of the first global batches of training, of `images` at least where there are.

    They do not depend on the number of devices or processes, but for rounding.

    Raises:
        cfg.ConfigError: all latents are the same, or some are not finite.
    """
    size = run.data.batch_size
    count = -(-min(images, len(train)) // size)
    rows = local_rows(mesh, size)
    loader = make_loader(train, run.data, seed=run.loop.seed, train=True, rows=rows)
    autoencoder = build_autoencoder(stage.config)

    def program(params: Any, batch: Any) -> Any:
        posterior = encoded_batch(autoencoder, params, batch)
        noise = posterior_noise(run.loop.seed, batch["index"], posterior.mode.shape[1:])
        latents = posterior.sample(noise)
        # Of each example by itself, so that the host can add up batches in float64.
        return jnp.std(latents), jnp.mean(latents, (1, 2)), jnp.var(latents, (1, 2))

    # Each process sees its own rows; what is replicated is the same for all of them.
    measured = jax.jit(program, out_shardings=replicated(mesh))
    found = [jax.device_get(measured(stage.params, to_global(mesh, b)))
             for b in islice(loader, count)]  # fmt: skip
    means, variances = (
        np.concatenate([batch[i] for batch in found]).astype(np.float64) for i in (1, 2)
    )
    square = variances.mean(0) + means.var(0)
    whole = np.sqrt(square.mean() + means.mean(0).var())
    std = float(found[0][0] if count == 1 else whole)
    if not np.isfinite(std) or std == 0:
        raise cfg.ConfigError(
            f"the latents that {stage.name} makes of the training images have a standard "
            f"deviation of {std}; name a first stage that was trained"
        )
    return LatentStatistics(count * size, std, means.mean(0), np.sqrt(square))
