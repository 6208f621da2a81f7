"""What a training step does to a codebook beside gradients, and what it measures of its codes."""

from typing import Any

import jax
from jaxtyping import Array, Float, Int

from ldm_jax import config as cfg
from ldm_jax.models import bottlenecks
from ldm_jax.training.gradients import Metrics

COUNTED = 2**20
"""The most codes whose frequencies are measured."""


def create_codebook(run: cfg.AutoencoderRun, params: Any) -> Any:
    """The averages that the codebook of `run` keeps, or an empty dict where it keeps none."""
    return bottlenecks.init_codebook_state(_vectors(params)) if _moves(run) else {}


def update_codebook(
    run: cfg.AutoencoderRun,
    state: Any,
    params: Any,
    compared: Float[Array, "b h w d"],
    indices: Int[Array, "b h w"],
    step: Int[Array, ""],
) -> tuple[Any, Any]:
    """Averages and parameters after the optimiser's step, from all latents of the global batch:
    moving averages become the vectors, and vectors long without use become latents."""
    if not _moves(run):
        return state, params
    config, vectors = run.autoencoder.bottleneck, _vectors(params)
    state, vectors = bottlenecks.update_codebook(
        state, vectors, compared, indices, config.ema_decay
    )
    if config.revive_after is not None:
        state, vectors = bottlenecks.revive(
            state, vectors, compared, after=config.revive_after, seed=run.loop.seed, step=step
        )
    quantize = params["quantize"] | {"embedding": {"embedding": vectors}}
    return state, params | {"quantize": quantize}


def code_metrics(run: cfg.AutoencoderRun, indices: Int[Array, "b h w"]) -> Metrics:
    """How many codes a batch uses: the share of all, and the perplexity."""
    size = run.autoencoder.codes
    if size is None or size > COUNTED:
        return {}
    counts = bottlenecks.uses(indices, size)
    return {
        "code_usage": bottlenecks.usage(counts),
        "code_perplexity": bottlenecks.perplexity(counts),
    }


def _moves(run: cfg.AutoencoderRun) -> bool:
    """Whether anything but gradients changes the vectors."""
    config = run.autoencoder.bottleneck
    vector = isinstance(config, cfg.VQ) and run.train == "all"
    return vector and (config.ema_decay is not None or config.revive_after is not None)


def _vectors(params: Any) -> jax.Array:
    return params["quantize"]["embedding"]["embedding"]
