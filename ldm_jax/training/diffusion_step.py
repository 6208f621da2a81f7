"""Stage two: the denoising objective on latents and its pure training step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, UInt32

from ldm_jax import config as cfg
from ldm_jax.core import rngs
from ldm_jax.diffusion.losses import distance_loss
from ldm_jax.diffusion.parameterization import (
    network_input,
    q_sample,
    split_variance,
    target,
    to_prediction,
)
from ldm_jax.latent_diffusion import LatentDiffusion, Params
from ldm_jax.training.gradients import Metrics, apply_gradients, over_parts
from ldm_jax.training.latents import batch_latents
from ldm_jax.training.objective import Objective
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
    t: Float[Array, "b"],
    *,
    train: bool,
) -> Float[Array, "b"]:
    """Each example's loss at its time `t`, by the run's objective.

    Noise and dropout are functions of the run's seed and the example's global index. Outside of
    training the noise is plain. With `objective.map_weight` the caption's map is drawn towards the
    latents themselves, whose mean given the caption it then learns: what a network would predict
    if it saw only noise.
    """
    objective, process, seed = Objective(run, model.process), model.process, run.loop.seed
    kind, sigma_data = objective.kind, objective.sigma_data
    alpha, sigma = process.alpha_at(t), process.sigma_at(t)
    eps, input_eps = objective.noise(index, latents.shape[1:], train=train)
    x = q_sample(latents, input_eps, alpha, sigma)

    dropout = rngs.example_keys(rngs.stream(seed, "dropout"), index) if train else None
    condition = model.condition(params, inputs)
    seen = network_input(x, alpha, sigma, kind, sigma_data)
    output, share = model.network(params, seen, process.network_time(t), condition, dropout), None
    if objective.learned_variance:
        output, share = split_variance(output)

    if objective.bounded:
        prediction = to_prediction(output, x, alpha, sigma, kind, sigma_data)
        bound = objective.bound(prediction._replace(variance=share), latents, t)
    if run.objective.loss == "vlb":
        loss = bound
    else:
        goal = target(latents, eps, alpha, sigma, kind, sigma_data)
        loss = objective.weight(t) * objective.distance(output, goal)
    if run.objective.loss == "hybrid":
        loss += run.objective.vlb_weight * bound
    if run.objective.map_weight:
        loss += run.objective.map_weight * distance_loss(condition.concat, latents)
    return loss


def denoising_losses_by_level(
    model: LatentDiffusion,
    run: cfg.DiffusionRun,
    params: Params,
    latents: Float[Array, "b zh zw z"],
    inputs: Int[Array, "b ..."],
    index: UInt32[Array, "b"],
) -> Metrics:
    """`loss`, the mean loss at times drawn as in training, and `loss/level_i`
    for each of the objective's levels: the mean loss at a time in part i of the process's times.

    Times and noise are functions of seed and index, so that every call of a run, and all runs of
    one seed, are asked the same. Each level costs one more network call.
    """
    objective = Objective(run, model.process)
    t, _ = objective.times(index, {})

    def loss(t: Float[Array, "b"]) -> Float[Array, ""]:
        losses = denoising_loss(model, run, params, latents, inputs, index, t, train=False)
        return jnp.mean(losses)

    means = jax.lax.map(loss, jnp.concatenate([t[None], objective.level_times(index)]))
    levels = {f"loss/level_{i}": mean for i, mean in enumerate(means[1:])}
    return {"loss": means[0]} | levels


def make_diffusion_step(
    model: LatentDiffusion,
    optimizer: optax.GradientTransformation,
    run: cfg.DiffusionRun,
    empty: Int[Array, "..."],
    shape: tuple[int, int, int],
) -> Callable[[TrainState, Params, Any], tuple[TrainState, Metrics]]:
    """`step(state, frozen, batch) -> (state, metrics)`.

    `empty` is one example's unconditional input, `shape` that of its latents. The frozen first
    stage encodes outside of the differentiated function, or has encoded before. Where the
    objective draws times by their losses, the state keeps these losses.
    """
    share = getattr(run.condition, "dropout", 0.0)
    objective = Objective(run, model.process)

    def loss(params: Any, batch: Any) -> tuple[Float[Array, ""], Any]:
        losses = denoising_loss(
            model, run, params, batch["latents"], batch["condition"], batch["index"], batch["t"],
            train=True,
        )  # fmt: skip
        mean = jnp.mean(batch["weight"] * losses)
        return mean, ({"loss": mean}, losses)

    def step(state: TrainState, frozen: Params, batch: Any) -> tuple[TrainState, Metrics]:
        index, seed = batch["index"], run.loop.seed
        latents = jax.lax.stop_gradient(
            batch_latents(model.autoencoder, frozen, batch, seed, shape)
        )
        keys = rngs.example_keys(rngs.stream(seed, "condition_dropout"), index)
        inputs = drop_condition(keys, batch["condition"], empty, share)
        t, weight = objective.times(index, state.sampler)
        examples = {
            "latents": latents, "condition": inputs, "index": index, "t": t, "weight": weight
        }  # fmt: skip

        def part(examples: Any) -> tuple[Any, Any]:
            gradients, (metrics, losses) = jax.grad(loss, has_aux=True)(state.params, examples)
            return (gradients, metrics), losses

        (gradients, metrics), losses = over_parts(part, examples, run.optim.accumulation)
        if state.sampler:
            state = state.replace(sampler=state.sampler.observe(t.astype(jnp.int32), losses))
        state, norms = apply_gradients(state, gradients, optimizer, run.optim.ema_decay)
        return state, metrics | norms

    return step
