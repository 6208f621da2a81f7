"""Stage two: the denoising objective on latents and its pure training step."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, UInt32

from ldm_jax import config as cfg
from ldm_jax.adapters.adapted import with_keys
from ldm_jax.config.conditioning import ENCODED_CAPTION, WITH_EMPTY
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
from ldm_jax.models.conditioners import Inputs
from ldm_jax.training.gradients import Metrics, apply_gradients, over_parts
from ldm_jax.training.latents import batch_inputs, batch_latents
from ldm_jax.training.objective import Objective
from ldm_jax.training.state import TrainState
from ldm_jax.training.trainable import bind


def drop_inputs(
    conditioners: Sequence[cfg.Conditioner],
    seed: int,
    index: UInt32[Array, "b"],
    inputs: Inputs,
    uncond: Inputs,
) -> Inputs:
    """`inputs` with each conditioner's share of the examples made unconditional.

    Ho & Salimans 2022 (arXiv:2207.12598), algorithm 1. Which examples is a draw of each
    conditioner and example of its own (see `_dropped`). `uncond` has one example's unconditional
    inputs by name.
    """
    kept = dict(inputs)
    for conditioner in conditioners:
        if not conditioner.dropout:
            continue
        drop = _dropped(conditioner, conditioners, seed, index)
        names = WITH_EMPTY.intersection(conditioner.inputs)
        if "caption" in names:
            names = names.union(kept.keys() & set(ENCODED_CAPTION))
        for name in names:
            there = kept[name]
            rows = drop.reshape(-1, *[1] * (there.ndim - 1))
            kept[name] = jnp.where(rows, uncond[name][None], there)
    return kept


def _dropped(
    conditioner: cfg.Conditioner,
    conditioners: Sequence[cfg.Conditioner],
    seed: int,
    index: UInt32[Array, "b"],
) -> Bool[Array, "b"]:
    """Which examples `conditioner`, one of `conditioners`, is dropped of.

    A picture to edit and its caption are dropped by one uniform number, so that both, or either
    alone, are dropped as often as is asked for (Brooks 2022, section 3.2.1): the caption below its
    dropout, the picture from as much below that on as both are dropped together.
    """
    text = cfg.find(conditioners, cfg.TextConditioner)
    joint = isinstance(conditioner, cfg.EditConditioner) and text is not None
    name, first = conditioner.name, 0.0
    if joint:
        name, first = text.name, text.dropout - conditioner.dropped_with_caption
    keys = rngs.example_keys(rngs.stream(seed, f"condition_dropout/{name}"), index)
    drawn = rngs.uniform(keys, ())
    return (drawn >= first) & (drawn < first + conditioner.dropout)


def denoising_loss(
    model: LatentDiffusion,
    run: cfg.DiffusionRun,
    params: Params,
    latents: Float[Array, "b zh zw z"],
    inputs: Inputs,
    index: UInt32[Array, "b"],
    t: Float[Array, "b"],
    frozen: Params,
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
    if train and isinstance(run.adapter, cfg.ModuleAdapter | cfg.Hypernetwork):
        params = with_keys(params, rngs.named(dropout, "adapter"))
    condition = model.condition(params, frozen, inputs)
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
        where = cfg.concat_slice(run.conditioners, cfg.CaptionMapConditioner, latents.shape[-1])
        loss += run.objective.map_weight * distance_loss(condition.concat[..., where], latents)
    return loss


def denoising_losses_by_level(
    model: LatentDiffusion,
    run: cfg.DiffusionRun,
    params: Params,
    latents: Float[Array, "b zh zw z"],
    inputs: Inputs,
    index: UInt32[Array, "b"],
    frozen: Params,
) -> Metrics:
    """`loss`, the mean loss at times drawn as in training, and `loss/level_i`
    for each of the objective's levels: the mean loss at a time in part i of the process's times.

    Times and noise are functions of seed and index, so that every call of a run, and all runs of
    one seed, are asked the same. Each level costs one more network call.
    """
    objective = Objective(run, model.process)
    t, _ = objective.times(index, {})

    def loss(t: Float[Array, "b"]) -> Float[Array, ""]:
        losses = denoising_loss(model, run, params, latents, inputs, index, t, frozen, train=False)
        return jnp.mean(losses)

    means = jax.lax.map(loss, jnp.concatenate([t[None], objective.level_times(index)]))
    levels = {f"loss/level_{i}": mean for i, mean in enumerate(means[1:])}
    return {"loss": means[0]} | levels


def make_diffusion_step(
    model: LatentDiffusion,
    optimizer: optax.GradientTransformation,
    run: cfg.DiffusionRun,
    uncond: Inputs,
) -> Callable[[TrainState, Params, Any], tuple[TrainState, Metrics]]:
    """`step(state, frozen, batch) -> (state, metrics)`.

    `uncond` has one example's unconditional inputs by name. The frozen first stage encodes
    outside of the differentiated function, or has encoded before. Where the objective draws times
    by their losses, the state keeps these losses. Examples count for their `importance`, where a
    batch says it.
    """
    objective = Objective(run, model.process)

    def loss(params: Any, frozen: Params, batch: Any) -> tuple[Float[Array, ""], Any]:
        losses = denoising_loss(
            model, run, bind(params, frozen), batch["latents"], batch["inputs"], batch["index"],
            batch["t"], frozen, train=True,
        )  # fmt: skip
        mean = jnp.mean(batch["weight"] * losses)
        return mean, ({"loss": mean}, losses)

    def step(state: TrainState, frozen: Params, batch: Any) -> tuple[TrainState, Metrics]:
        index, seed = batch["index"], run.loop.seed
        latents = jax.lax.stop_gradient(batch_latents(model.autoencoder, frozen, batch, seed))
        inputs = drop_inputs(run.conditioners, seed, index, batch["inputs"], uncond)
        inputs = batch_inputs(model, batch, inputs, seed, latents.shape[1:])
        t, weight = objective.times(index, state.own)
        weight = weight * batch.get("importance", 1.0)
        examples = {
            "latents": latents, "inputs": inputs, "index": index, "t": t, "weight": weight
        }  # fmt: skip

        def part(examples: Any) -> tuple[Any, Any]:
            gradients, (metrics, losses) = jax.grad(loss, has_aux=True)(
                state.params, frozen, examples
            )
            return (gradients, metrics), losses

        (gradients, metrics), losses = over_parts(part, examples, run.optim.accumulation)
        if state.own:
            state = state.replace(own=state.own.observe(t.astype(jnp.int32), losses))
        state, norms = apply_gradients(
            state, gradients, optimizer, run.optim.ema_decay, run.loop.norm_depth
        )
        return state, metrics | norms

    return step
