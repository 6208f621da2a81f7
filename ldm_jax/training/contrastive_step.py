"""CLIP's pure training step, and what is measured on validation examples."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from ldm_jax import config as cfg
from ldm_jax.losses.contrastive import (
    retrieval_accuracy,
    same_texts,
    sigmoid_loss,
    softmax_loss,
)
from ldm_jax.models.clip_model import CLIP, Compared, normalised_pixels, similarities
from ldm_jax.training.gradients import Metrics, accumulated_gradients, apply_gradients
from ldm_jax.training.state import TrainState

LARGEST_SCALE = 100.0
"""What similarities are multiplied by, at most (Radford 2021, section 2.5)."""
LOSSES = {"softmax": softmax_loss, "sigmoid": sigmoid_loss}


def compare(
    model: CLIP, run: cfg.ContrastiveRun, params: Any, batch: Any
) -> tuple[Compared, Bool[Array, "b b"]]:
    """The embeddings of a whole batch, and which of its pairs match.

    The batch is spread over all devices of all processes, and so are the rows of similarities: the
    compiler gathers the embeddings of texts, so that each image is compared with all.
    """
    tokens = batch["inputs"]["caption"]
    pixels = normalised_pixels(batch["image"].astype(jnp.float32))
    compared = model.apply({"params": params}, pixels, tokens)
    if run.equal_captions == "apart":
        return compared, jnp.eye(len(tokens), dtype=bool)
    return compared, same_texts(tokens)


def make_contrastive_step(
    model: CLIP, optimizer: optax.GradientTransformation, run: cfg.ContrastiveRun
) -> Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]:
    """`step(state, frozen, batch) -> (state, metrics)`, with nothing frozen."""
    loss_of = LOSSES[run.loss]

    def loss(params: Any, batch: Any) -> tuple[Float[Array, ""], Metrics]:
        compared, matching = compare(model, run, params, batch)
        value = loss_of(similarities(compared), matching)
        return value, {"loss": value, "scale": compared.scale}

    def step(state: TrainState, frozen: Any, batch: Any) -> tuple[TrainState, Metrics]:
        examples = {key: batch[key] for key in ("image", "inputs")}
        gradients, metrics = accumulated_gradients(loss, state.params, examples, 1)
        state, norms = apply_gradients(
            state, gradients, optimizer, run.optim.ema_decay, run.loop.norm_depth
        )
        if run.loss == "softmax":
            state = state.replace(params=bounded(state.params))
        return state, metrics | norms

    return step


def bounded(params: Any) -> Any:
    """The parameters with a scale of LARGEST_SCALE at most. It is bounded after each step, since a
    scale that was cut in the loss would have no gradient back."""
    largest = jnp.float32(math.log(LARGEST_SCALE))
    return params | {"logit_scale": jnp.minimum(params["logit_scale"], largest)}


def make_contrastive_scores(
    model: CLIP, run: cfg.ContrastiveRun
) -> Callable[[Any, Any, Any], Metrics]:
    """`scores(params, frozen, batch) -> metrics`: the loss, and how often the most similar caption
    of the batch is right (`image_to_text`), and the most similar image (`text_to_image`). An
    equal caption is as right as an image's own."""

    def scores(params: Any, frozen: Any, batch: Any) -> Metrics:
        compared, matching = compare(model, run, params, batch)
        logits, right = similarities(compared), same_texts(batch["inputs"]["caption"])
        return {
            "loss": LOSSES[run.loss](logits, matching),
            "image_to_text": retrieval_accuracy(logits, right),
            "text_to_image": retrieval_accuracy(logits.T, right),
        }

    return scores
