"""What a run trains, and how the rest is put beside it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.adapters.adapted import (
    ADAPTERS,
    TEXT,
    TOKENS,
    put_beside,
    put_embeddings_beside,
    put_hypernetworks_beside,
)
from ldm_jax.adapters.adapter import AdapterUse
from ldm_jax.adapters.fresh import fresh
from ldm_jax.adapters.hypernetwork import fresh_nets
from ldm_jax.convert.imported_model import control_shapes
from ldm_jax.core import rngs, tree
from ldm_jax.models.control_net import EMBEDDING, HintEmbedding

OF_FIRST_STAGE = {"all": r".*", "decoder": r"(decoder|post_quant_conv)/.*"}
"""As `cfg.TRAINED`, of an autoencoder's parameters."""


def split(params: Any, run: cfg.AutoencoderRun | cfg.DiffusionRun) -> tuple[Any, Any]:
    """All parameters as what `run` trains and what it leaves as it is.

    Raises:
        cfg.ConfigError: the model has nothing of what is to be trained.
    """
    if isinstance(run, cfg.AutoencoderRun):
        patterns = {run.train: OF_FIRST_STAGE[run.train]}
    else:
        patterns = {entry: cfg.TRAINED.get(entry, entry) for entry in run.train}
    paths = tree.flatten(params).keys()
    for entry, pattern in patterns.items():
        if not any(re.fullmatch(pattern, path) for path in paths):
            raise cfg.ConfigError(
                f"train is {entry!r}, but the model has no such parameters; choose another value"
            )
    return tree.split(params, [(p, True) for p in patterns.values()] + [(r".*", False)])


def bind(trained: Any, frozen: Mapping[str, Any]) -> Any:
    """All parameters of the networks: those in training with those that `frozen` leaves alone."""
    return tree.join(trained, frozen.get("untrained", {}))


def with_adapter(
    params: Mapping[str, Any],
    run: cfg.DiffusionRun,
    model: cfg.Model,
    init_tokens: Sequence[int] = (0,),
) -> dict[str, Any]:
    """The parameters of a whole `model`, with what `run` trains beside them as it begins; the
    vectors of new words as those of `init_tokens`.

    Raises:
        cfg.ConfigError: the model has nothing that could be changed so.
    """
    if isinstance(run.adapter, cfg.Hypernetwork):
        nets = fresh_nets(run.adapter, _widths(params, run.adapter), run.loop.seed)
        return put_hypernetworks_beside(params, [(1.0, nets)])
    if isinstance(run.adapter, cfg.TextualInversion):
        return put_embeddings_beside(params, _fresh_vectors(params, run.adapter, init_tokens))
    if isinstance(run.adapter, cfg.ControlNet):
        branch = cfg.control_of(model.unet, model.autoencoder)
        return {
            **params,
            ADAPTERS: {"control": {"0": fresh_control(branch, params, run.loop.seed)}},
        }
    text = cfg.find(run.conditioners, cfg.TextConditioner)
    adapter = fresh(run.adapter, params, None if text is None else text.name, run.loop.seed)
    return put_beside(params, [AdapterUse(adapter)])


def _fresh_vectors(
    params: Mapping[str, Any], config: cfg.TextualInversion, init_tokens: Sequence[int]
) -> dict[str, Any]:
    """The vectors of each word: rows of the table of tokens, one after the other."""
    flat = tree.flatten(params["conditioners"][TEXT])
    table = next(leaf for path, leaf in flat.items() if path.split("/")[-2] in TOKENS)
    rows = [init_tokens[i % len(init_tokens)] for i in range(config.vectors)]
    return {word: jnp.asarray(table, jnp.float32)[jnp.array(rows)] for word in config.words}


def _widths(params: Mapping[str, Any], form: cfg.Hypernetwork) -> list[int]:
    """The widths of what keys are made of that the hypernetwork has networks for."""
    flat = tree.flatten(params["unet"])
    there = sorted({leaf.shape[0] for path, leaf in flat.items() if path.endswith("to_k/kernel")})
    wrong = [width for width in form.widths if width not in there]
    if wrong or not there:
        raise cfg.ConfigError(
            f"adapter.widths is {form.widths}; this model's attention has widths {there}"
        )
    return list(form.widths) or there


def fresh_control(
    branch: cfg.ControlBranch, params: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """A ControlNet that begins as a copy of the U-Net's way down and middle, and adds nothing."""
    shapes = control_shapes(branch)
    own = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    width = branch.hint_factor
    hint = jnp.zeros((1, width, width, branch.hint_channels))
    embedding = HintEmbedding(branch).init(rngs.stream(seed, "init/control"), hint)["params"]
    base = tree.flatten(params["unet"])
    flat = tree.flatten({**own, EMBEDDING: embedding})
    return tree.unflatten({name: base.get(name, leaf) for name, leaf in flat.items()})


def shapes_beside(run: cfg.DiffusionRun, model: cfg.Model) -> dict[str, Any]:
    """Shapes of what a run with an adapter trains."""

    def whole() -> dict[str, Any]:
        return with_adapter(ldm.init_params(ldm.build(model), run.loop.seed), run, model)

    return split(jax.eval_shape(whole), run)[0]
