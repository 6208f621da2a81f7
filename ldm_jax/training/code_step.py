"""The transformer over codes: its loss, and its pure training step and scores."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, UInt32

from ldm_jax import config as cfg
from ldm_jax.code_model import CodeModel, Params
from ldm_jax.core import rngs
from ldm_jax.training.gradients import Metrics, accumulated_gradients, apply_gradients
from ldm_jax.training.state import TrainState


def batch_codes(model: CodeModel, frozen: Params, batch: Any) -> Int[Array, "b n"]:
    """The codes of a batch row by row, whether it holds images or what `cli.encode` made of
    them."""
    if "image" in batch:
        codes = model.codes(frozen, batch["image"])
    else:
        codes = batch["encoded"].astype(jnp.int32)
    return codes.reshape(codes.shape[0], -1)


def some_replaced(
    codes: Int[Array, "b n"], pkeep: float, size: int, seed: int, index: UInt32[Array, "b"]
) -> Int[Array, "b n"]:
    """`codes`, each with probability 1 - `pkeep` replaced by one of `size` at random, as example
    `index` draws it."""
    if pkeep == 1:
        return codes
    keys = rngs.example_keys(rngs.stream(seed, "pkeep"), index)
    random = rngs.randint(rngs.named(keys, "codes"), codes.shape[1:], 0, size)
    keep = rngs.uniform(rngs.named(keys, "keep"), codes.shape[1:]) < pkeep
    return jnp.where(keep, codes, random)


def decays(params: Any) -> Any:
    """Which parameters weight decay applies to: the weights of linear layers, not embeddings."""

    def linear(path: Any, leaf: Any) -> bool:
        return path[-1].key == "kernel"

    return jax.tree_util.tree_map_with_path(linear, params)


def make_code_step(
    model: CodeModel, optimizer: optax.GradientTransformation, run: cfg.CodeTransformerRun
) -> Callable[[TrainState, Params, Any], tuple[TrainState, Metrics]]:
    """`step(state, frozen, batch) -> (state, metrics)`.

    Esser 2021, eq. 4: cross-entropy of each code, given the condition and the codes before it; of
    these some are replaced at random. Which, and dropout, are functions of the run's seed and the
    example's global index.
    """
    seed = run.loop.seed

    def loss(params: Any, batch: Any) -> tuple[Float[Array, ""], Metrics]:
        codes, prefix, index = batch["codes"], batch["prefix"], batch["index"]
        seen = some_replaced(codes, run.pkeep, model.config.autoencoder.codes, seed, index)
        dropout = rngs.example_keys(rngs.stream(seed, "dropout"), index)
        mean = jnp.mean(model.nats(params, prefix, codes, seen, dropout))
        return mean, {"loss": mean}

    def step(state: TrainState, frozen: Params, batch: Any) -> tuple[TrainState, Metrics]:
        codes = batch_codes(model, frozen, batch)
        prefix = model.prefix(frozen, batch["inputs"], codes.shape[0])
        examples = {"codes": codes, "prefix": prefix, "index": batch["index"]}
        gradients, metrics = accumulated_gradients(
            loss, state.params, examples, run.optim.accumulation
        )
        state, norms = apply_gradients(
            state, gradients, optimizer, run.optim.ema_decay, run.loop.norm_depth
        )
        return state, metrics | norms

    return step


def make_code_scores(model: CodeModel) -> Callable[[Any, Params, Any], Metrics]:
    """`scores(params, frozen, batch) -> metrics`: the exact negative log-likelihood of a code in
    nats (`loss`) and in bits, the mean over all codes."""

    def scores(params: Any, frozen: Params, batch: Any) -> Metrics:
        codes = batch_codes(model, frozen, batch)
        prefix = model.prefix(frozen, batch["inputs"], codes.shape[0])
        nats = jnp.mean(model.nats(params, prefix, codes))
        return {"loss": nats, "bits_per_code": nats / math.log(2)}

    return scores
