"""Captions that a text encoder has read before: whether they are what a run's own makes of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32

from ldm_jax import config as cfg
from ldm_jax.config.conditioning import ENCODED_CAPTION
from ldm_jax.core import tree
from ldm_jax.data.encoded_latents import LatentsSource, text_encoder_hash
from ldm_jax.data.inputs import Inputs
from ldm_jax.data.mixtures import single_sources
from ldm_jax.data.sources import Source
from ldm_jax.data.tokenizer import Tokenizer
from ldm_jax.models.build import build_conditioner
from ldm_jax.training.stage import Shown

ReadCaptions = Callable[[Int32[np.ndarray, "n l"]], Inputs]
"""Tokens of n captions → what a text encoder makes of them, as inputs by name."""


def check_captions(
    run: cfg.DiffusionRun,
    source: Source | None,
    begun_with: Any,
    untrained: Mapping[str, Any],
    tokenizer: Tokenizer | None,
) -> None:
    """Raises ConfigError where `source` has captions that were encoded otherwise than `run` would
    encode them.

    Args:
        run: its config.
        source: the examples.
        begun_with: parameters to be trained that models gave, or their shapes.
        untrained: parameters of the networks that it leaves as they are.
        tokenizer: the run's own.
    """
    latents = encoded_captions(source)
    text = cfg.find(run.conditioners, cfg.TextConditioner)
    if latents is None or text is None:
        return
    where, remedy = latents.folder, "encode the images again without --text_encoder"
    params = untrained.get("conditioners", {}).get(text.name)
    paths = tree.flatten(begun_with)
    if params is None or any(path.startswith(f"conditioners/{text.name}/") for path in paths):
        raise cfg.ConfigError(
            f"{where} has captions that a text encoder has read before, but this run trains its "
            f"text encoder (train is {' '.join(run.train)!r}): {remedy}, or leave the text encoder "
            "as it is, such as with --train unet"
        )
    if text.tags is not None:
        raise cfg.ConfigError(
            f"{where} has captions that a text encoder has read before, but this run changes the "
            f"tags of captions: {remedy}, or leave the conditioner's tags None"
        )
    own = text_encoder_hash(text, params, tokenizer)
    if own != latents.index.text.encoder:
        found = latents.index.text.encoder[:16]
        raise cfg.ConfigError(
            f"{where} has captions read by another text encoder ({found}) than this "
            f"run's ({own[:16]}): begin the run with the model that encoded them, or encode them "
            "again"
        )


def encoded_captions(source: Source | None) -> LatentsSource | None:
    """The first of the sources in `source` whose captions were encoded; None where none were.

    Raises:
        cfg.ConfigError: those of others were not, or otherwise.
    """
    singles = single_sources(source)
    how = [
        (one.index.text, one.index.dtype, one.index.compute)
        if isinstance(one, LatentsSource) and one.index.text is not None else None
        for one in singles
    ]  # fmt: skip
    if len({*how}) > 1:
        raise cfg.ConfigError(
            "data.source.sources have captions of which only some are encoded, or in different "
            "ways; encode all with the same --text_encoder, --dtype and --compute, or none"
        )
    return singles[0] if any(how) else None


def caption_reader(text: cfg.TextConditioner, params: Any, latents: LatentsSource) -> ReadCaptions:
    """Reads captions that are not among those of `latents`, computed and rounded as these were."""
    encoder = build_conditioner(text, latents.index.compute)

    def read(tokens: Int32[np.ndarray, "n l"]) -> Inputs:
        made = encoder.encoded(params, jnp.asarray(tokens), latents.index.dtype)
        return {name: np.asarray(array) for name, array in made.items()}

    return read


def with_states(shown: Sequence[Shown], read: ReadCaptions) -> tuple[Shown, ...]:
    """`shown` with the states of captions that no example brings: of prompts, and of none."""
    found = []
    for one in shown:
        inputs = one.batch["inputs"]
        if ENCODED_CAPTION[0] not in inputs:
            inputs = inputs | read(inputs["caption"])
        found.append(replace(one, batch={**one.batch, "inputs": inputs}))
    return tuple(found)
