"""Stage two: the denoising objective on latents and its pure training step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, UInt32

from ldm_jax import config as cfg
from ldm_jax import rngs
from ldm_jax.diffusion.losses import min_snr_weight, simple_loss
from ldm_jax.diffusion.parameterization import network_input, q_sample, target
from ldm_jax.latent_diffusion import LatentDiffusion, Params, to_pixels
from ldm_jax.training.autoencoder_step import posterior_noise
from ldm_jax.training.gradients import Metrics, accumulated_gradients, apply_gradients
from ldm_jax.training.state import TrainState


def drop_condition(
    keys: Key[Array, "b"], inputs: Int[Array, "b ..."], empty: Int[Array, "..."], share: float
) -> Int[Array, "b ..."]:
    """Replaces a random `share` of the inputs by `empty` (Ho & Salimans 2022, algorithm 1)."""
    drop = rngs.uniform(keys, ()) < share
    return jnp.where(drop.reshape(-1, *[1] * (inputs.ndim - 1)), empty[None], inputs)


def denoising_loss(
    model: LatentDiffusion,
    run: cfg.DiffusionRun,
    params: Params,
    latents: Float[Array, "b zh zw z"],
    inputs: Int[Array, "b ..."],
    index: UInt32[Array, "b"],
    *,
    train: bool,
) -> Float[Array, "b"]:
    """Each example's loss at its own random timestep (Ho 2020, equation 14, and its weightings).

    Timestep, noise and dropout are functions of the run's seed and the example's global index.
    With `diffusion.map_weight` the caption's map is drawn towards the latents themselves, whose
    mean given the caption it then learns: what a network would predict if it saw only noise.
    """
    seed = run.loop.seed
    draw = partial(rngs.example_keys, index=index)
    t = model.process.time_at(rngs.uniform(draw(rngs.stream(seed, "timestep")), ()))
    eps = rngs.normal(draw(rngs.stream(seed, "noise")), latents.shape[1:])
    alpha, sigma = model.process.alpha_at(t), model.process.sigma_at(t)
    x = q_sample(latents, eps, alpha, sigma)
    dropout = rngs.at_step(rngs.stream(seed, "dropout"), index[0]) if train else None
    condition, kind = model.condition(params, inputs), run.diffusion.prediction
    sigma_data, told = run.diffusion.sigma_data, model.process.network_time(t)
    x = network_input(x, alpha, sigma, kind, sigma_data)
    output = model.network(params, x, told, condition, dropout)
    loss = simple_loss(output, target(latents, eps, alpha, sigma, kind, sigma_data))
    if run.diffusion.min_snr_gamma is not None:
        loss *= min_snr_weight(alpha**2, run.diffusion.min_snr_gamma, kind)
    if run.diffusion.map_weight:
        loss += run.diffusion.map_weight * simple_loss(condition.concat, latents)
    return loss


def make_diffusion_step(
    model: LatentDiffusion,
    optimizer: optax.GradientTransformation,
    run: cfg.DiffusionRun,
    empty: Int[Array, "..."],
    shape: tuple[int, int, int],
) -> Callable[[TrainState, Params, Any], tuple[TrainState, Metrics]]:
    """`step(state, frozen, batch) -> (state, metrics)`.

    `empty` is one example's unconditional input, `shape` that of its latents. The frozen first
    stage encodes outside of the differentiated function.
    """
    share = getattr(run.condition, "dropout", 0.0)

    def loss(params: Any, batch: Any) -> tuple[Float[Array, ""], Metrics]:
        losses = denoising_loss(
            model, run, params, batch["latents"], batch["condition"], batch["index"], train=True
        )
        mean = jnp.mean(losses)
        return mean, {"loss": mean}

    def step(state: TrainState, frozen: Params, batch: Any) -> tuple[TrainState, Metrics]:
        index, seed = batch["index"], run.loop.seed
        noise = posterior_noise(seed, index, shape)
        latents = jax.lax.stop_gradient(model.encode(frozen, to_pixels(batch["image"]), noise))
        keys = rngs.example_keys(rngs.stream(seed, "condition_dropout"), index)
        inputs = drop_condition(keys, batch["condition"], empty, share)
        gradients, metrics = accumulated_gradients(
            loss,
            state.params,
            {"latents": latents, "condition": inputs, "index": index},
            run.optim.accumulation,
        )
        state, norms = apply_gradients(state, gradients, optimizer, run.optim.ema_decay)
        return state, metrics | norms

    return step
