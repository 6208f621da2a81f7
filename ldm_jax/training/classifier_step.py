"""The classifier that guides: cross-entropy on noisy latents and its pure training step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, UInt32

from ldm_jax import config as cfg
from ldm_jax.core import rngs
from ldm_jax.core.typing import Process
from ldm_jax.diffusion.parameterization import q_sample
from ldm_jax.latent_diffusion import Params
from ldm_jax.models.classifier import Classifier
from ldm_jax.training.gradients import Metrics, accumulated_gradients, apply_gradients
from ldm_jax.training.state import TrainState

LEVELS = (0.125, 0.375, 0.625, 0.875)
"""Shares of the training distribution of noise levels, from clean to noise, at which validation
tells the accuracy."""


def noisy_logits(
    classifier: Classifier,
    process: Process,
    params: Any,
    latents: Float[Array, "b zh zw z"],
    share: Float[Array, "b"],
    eps: Float[Array, "b zh zw z"],
    dropout: Key[Array, "b"] | None = None,
) -> Float[Array, "b k"]:
    """Logits at the noise level that a uniform `share` in [0, 1) stands for in training."""
    t = process.time_at(share)
    x = q_sample(latents, eps, process.alpha_at(t), process.sigma_at(t))
    told = process.network_time(t)
    return classifier.apply({"params": params}, x, told, dropout)


def level_noise(
    seed: int, index: UInt32[Array, "b"], shape: tuple[int, ...]
) -> tuple[Float[Array, "b"], Float[Array, "b ..."]]:
    """The level, as a share of the training distribution, and the noise of each example."""
    share = rngs.uniform(rngs.example_keys(rngs.stream(seed, "timestep"), index), ())
    return share, rngs.normal(rngs.example_keys(rngs.stream(seed, "noise"), index), shape)


def cross_entropy(logits: Float[Array, "b k"], labels: Int[Array, "b"]) -> Float[Array, "b"]:
    """-log p(label) of each example."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def accuracy(logits: Float[Array, "b k"], labels: Int[Array, "b"]) -> Float[Array, ""]:
    """Share of examples whose label has the largest logit."""
    return jnp.mean((jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32))


def make_classifier_step(
    classifier: Classifier,
    process: Process,
    optimizer: optax.GradientTransformation,
    run: cfg.ClassifierRun,
    encode: Callable[[Params, Any], Float[Array, "b zh zw z"]],
) -> Callable[[TrainState, Params, Any], tuple[TrainState, Metrics]]:
    """`step(state, frozen, batch) -> (state, metrics)`; `encode(frozen, batch)` gives latents.

    Dhariwal & Nichol 2021 (arXiv:2105.05233), section 4: the classifier sees the noise levels that
    the diffusion model is trained on. Level, noise and dropout are functions of the run's seed and
    the example's global index.
    """
    seed = run.loop.seed

    def loss(params: Any, batch: Any) -> tuple[Float[Array, ""], Metrics]:
        latents, labels, index = batch["latents"], batch["inputs"]["label"], batch["index"]
        share, eps = level_noise(seed, index, latents.shape[1:])
        dropout = rngs.example_keys(rngs.stream(seed, "dropout"), index)
        logits = noisy_logits(classifier, process, params, latents, share, eps, dropout)
        mean = jnp.mean(cross_entropy(logits, labels))
        return mean, {"loss": mean, "accuracy": accuracy(logits, labels)}

    def step(state: TrainState, frozen: Params, batch: Any) -> tuple[TrainState, Metrics]:
        latents = jax.lax.stop_gradient(encode(frozen, batch))
        examples = {key: batch[key] for key in ("inputs", "index")} | {"latents": latents}
        gradients, metrics = accumulated_gradients(
            loss, state.params, examples, run.optim.accumulation
        )
        state, norms = apply_gradients(
            state, gradients, optimizer, run.optim.ema_decay, run.loop.norm_depth
        )
        return state, metrics | norms

    return step


def make_classifier_scores(
    classifier: Classifier,
    process: Process,
    run: cfg.ClassifierRun,
    encode: Callable[[Params, Any], Float[Array, "b zh zw z"]],
) -> Callable[[Any, Params, Any], Metrics]:
    """`scores(params, frozen, batch) -> metrics`: the loss, and the accuracy at each of LEVELS.

    The noise is fixed by the examples' indices.
    """

    def scores(params: Any, frozen: Params, batch: Any) -> Metrics:
        latents, labels = encode(frozen, batch), batch["inputs"]["label"]
        share, eps = level_noise(run.loop.seed, batch["index"], latents.shape[1:])
        logits = noisy_logits(classifier, process, params, latents, share, eps)
        metrics = {"loss": jnp.mean(cross_entropy(logits, labels))}
        for level in LEVELS:
            there = jnp.full_like(share, level)
            logits = noisy_logits(classifier, process, params, latents, there, eps)
            metrics[f"accuracy_at_{level}"] = accuracy(logits, labels)
        return metrics

    return scores
