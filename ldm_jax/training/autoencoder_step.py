"""Stage one: the reconstruction objective of an autoencoder and its pure training step.

The adversarial part of the objective belongs beside `autoencoder_loss`: a second loss, with its
own parameters and optimiser in the state, applied after this one in the same step.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, UInt32

from ldm_jax import config as cfg
from ldm_jax import rngs
from ldm_jax.latent_diffusion import to_pixels
from ldm_jax.models.autoencoder import Autoencoder
from ldm_jax.training.gradients import Metrics, accumulated_gradients, apply_gradients
from ldm_jax.training.state import TrainState


def posterior_noise(
    seed: int, index: UInt32[Array, "b"], shape: tuple[int, ...]
) -> Float[Array, "b zh zw z"]:
    """The standard normal draws with which example `index` is sampled from its posterior."""
    return rngs.normal(rngs.example_keys(rngs.stream(seed, "posterior"), index), shape)


def make_autoencoder_loss(
    autoencoder: Autoencoder, run: cfg.AutoencoderRun
) -> Callable[[Any, Any], tuple[Float[Array, ""], Metrics]]:
    """`loss(params, batch)`: weighted L1, L2 (per pixel value) and KL (per latent value), means.

    KL is the closed form against N(0, I) (Kingma & Welling 2013, appendix B).
    """
    weights = run.loss
    side = run.data.image_size // run.autoencoder.factor
    shape = (side, side, run.autoencoder.latent_channels)

    def loss(params: Any, batch: Any) -> tuple[Float[Array, ""], Metrics]:
        pixels = to_pixels(batch["image"])
        noise = posterior_noise(run.loop.seed, batch["index"], shape)
        reconstruction, passed = autoencoder.apply({"params": params}, pixels, noise)
        error = reconstruction - pixels
        l1, l2 = jnp.mean(jnp.abs(error)), jnp.mean(error**2)
        kl = passed.loss / noise[0].size
        total = weights.l1_weight * l1 + weights.l2_weight * l2 + weights.kl_weight * kl
        return total, {"loss": total, "l1": l1, "l2": l2, "kl": kl}

    return loss


def make_autoencoder_step(
    autoencoder: Autoencoder, optimizer: optax.GradientTransformation, run: cfg.AutoencoderRun
) -> Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]:
    """`step(state, frozen, batch) -> (state, metrics)`; `frozen` is empty in stage one."""
    loss = make_autoencoder_loss(autoencoder, run)

    def step(state: TrainState, frozen: Any, batch: Any) -> tuple[TrainState, Metrics]:
        del frozen
        gradients, metrics = accumulated_gradients(
            loss, state.params, batch, run.optim.accumulation
        )
        state, norms = apply_gradients(state, gradients, optimizer, run.optim.ema_decay)
        return state, metrics | norms

    return step
