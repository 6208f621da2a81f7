"""Checkpoints of VQGAN's second stage (taming-transformers' `Net2NetTransformer`), read.

A file holds `transformer.…`, the network, and `first_stage_model.…`, the autoencoder with its
codebook; `cond_stage_model.…`, another, is there where the condition is itself made of codes. What
no shape tells is in the YAML file that it was trained with, or is given as options.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model, state_dicts
from ldm_jax.convert.compvis import keys, shapes
from ldm_jax.convert.compvis.reader import read_any
from ldm_jax.convert.compvis.settings import METADATA
from ldm_jax.convert.imported_codes import ImportedCodes
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.taming_settings import Told, of_yaml, prefix_of
from ldm_jax.core.reading import parse_json, shown
from ldm_jax.core.stores import as_path

TRANSFORMER = "transformer."
_MARK = "transformer.tok_emb.weight"
_MASKS = ((r"blocks\.\d+\.attn\.mask", "which tokens see which, computed again"),)
_FIRST_STAGE = ((r"loss\..*", "discriminator and perceptual loss of training"),)
_CONDITION_STAGE = (*_FIRST_STAGE, (r"colorize", "random colours to show class maps in"))


def is_code_model(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether these are the tensors of a transformer over codes."""
    return _MARK in tensors


def read_taming(
    path: str | Path,
    *,
    original_config: str | Path | None = None,
    heads: int | None = None,
    num_classes: int | None = None,
    told: Told | None = None,
) -> ImportedCodes:
    """The model in a file of taming-transformers.

    Args:
        path: a `.ckpt` or `.safetensors` file.
        original_config: the YAML settings that it was trained with.
        heads: without these, the number of attention heads, which its tensors do not tell.
        num_classes: without these, the number of classes it is conditioned on; None: of none.
        told: all of that, where neither these nor the file's own metadata say it.

    Raises:
        ConvertError, FileFormatError, ConfigError: what is wrong with the file, or what is missing
            to know its architecture, and which option gives it.
    """
    path = as_path(path)
    tensors, metadata = read_any(path)
    try:
        _check(tensors)
        if original_config is not None and (heads, num_classes) != (None, None):
            raise ConvertError("give either --original_config or --heads and --num_classes")
        if num_classes is not None and heads is None and original_config is None:
            raise ConvertError("give --heads=N beside --num_classes, which the file does not tell")
        if heads is not None:
            stage = _condition_stage(tensors)
            told = Told(heads, prefix_of(stage, num_classes))
        if original_config is None and heads is None and METADATA in metadata:
            config = _stored(tensors, metadata[METADATA])
        else:
            config = _told(tensors, original_config, told)
        return _read(tensors, path.name, config)
    except (ConvertError, cfg.ConfigError) as error:
        raise ConvertError(f"{path}: {error}") from error


def _check(tensors: Mapping[str, np.ndarray]) -> None:
    """Raises ConvertError unless these are the tensors of a transformer over codes."""
    if not is_code_model(tensors):
        first = ", ".join(shown(name) for name in list(tensors)[:3])
        raise ConvertError(
            f"it is not VQGAN's second stage: it has no {_MARK}; its first names are {first}"
        )


def _told(
    tensors: Mapping[str, np.ndarray], original_config: str | Path | None, told: Told | None
) -> cfg.CodeModel:
    """The config of what shapes say, and of what the YAML file says or is `told`."""
    transformer, block_size = _transformer(_below(tensors, TRANSFORMER))
    stage = _condition_stage(tensors)
    if original_config is not None:
        told = of_yaml(as_path(original_config), transformer, stage)
    if told is None:
        raise ConvertError(
            "its tensors do not tell the number of attention heads, nor the condition; give "
            "--original_config=FILE.yaml, the settings it was trained with, or --heads=N, and "
            "--num_classes=N for a model of classes"
        )
    return _configure(_below(tensors, keys.FIRST_STAGE), transformer, block_size, told, stage)


def _stored(tensors: Mapping[str, np.ndarray], text: str) -> cfg.CodeModel:
    """The config that this project wrote into a file."""
    parse_json("metadata", METADATA, text)
    config = cfg.from_json(text)
    if not isinstance(config, cfg.CodeModel):
        raise ConvertError(f"its metadata {METADATA} is not the settings of a model of codes")
    found, _ = _transformer(_below(tensors, TRANSFORMER))
    said = config.transformer
    same = replace(
        found, num_heads=said.num_heads, n_unmasked=said.n_unmasked,
        embedding_dropout=said.embedding_dropout, residual_dropout=said.residual_dropout,
        attention_dropout=said.attention_dropout,
    )  # fmt: skip
    if same != said:
        raise ConvertError(f"its metadata {METADATA} describes another model than its tensors")
    return config


def _condition_stage(tensors: Mapping[str, np.ndarray]) -> cfg.Autoencoder | None:
    """The first stage of what it is conditioned on, where that is made of codes."""
    found = _below(tensors, keys.CONDITIONER)
    return shapes.autoencoder(found) if found else None


def _read(tensors: Mapping[str, np.ndarray], name: str, config: cfg.CodeModel) -> ImportedCodes:
    prefixes = TRANSFORMER, keys.FIRST_STAGE, keys.CONDITIONER
    parts = {prefix: _below(tensors, prefix) for prefix in prefixes}
    params, ignored = _component(
        parts[TRANSFORMER], transformer_places(config.transformer), _shapes(config.transformer),
        "the transformer", _MASKS,
    )  # fmt: skip
    autoencoder, left = _first_stage(
        parts[keys.FIRST_STAGE], config.autoencoder, "the first stage", _FIRST_STAGE
    )
    frozen, more = {"autoencoder": autoencoder}, {}
    if config.condition_stage is not None:
        frozen["condition_stage"], more = _first_stage(
            parts[keys.CONDITIONER],
            config.condition_stage,
            "the condition's first stage",
            _CONDITION_STAGE,
        )
    used = prefixes if config.condition_stage is not None else prefixes[:2]
    unexpected = [name for name in tensors if not name.startswith(used)]
    if unexpected:
        raise ConvertError(f"it has unexpected tensors: {state_dicts.enumerated(unexpected)}")
    return ImportedCodes(
        config, {"transformer": params}, frozen, {"source": name, "kind": "taming"},
        {
            prefix + old: why
            for prefix, found in zip(prefixes, (ignored, left, more), strict=True)
            for old, why in found.items()
        },
    )  # fmt: skip


def _below(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _transformer(tensors: Mapping[str, np.ndarray]) -> tuple[cfg.CodeTransformer, int]:
    """What the shapes say, with one head, and the number of positions.

    Raises:
        ConvertError: they are no such transformer's.
    """
    places = tensors.get("pos_emb")
    if places is None or places.ndim != 3 or tensors["tok_emb.weight"].ndim != 2:
        raise ConvertError("it has no transformer.pos_emb [1, positions, width]")
    found = [re.match(r"blocks\.(\d+)\.", name) for name in tensors]
    layers = len({match[1] for match in found if match})
    if not layers:
        raise ConvertError("its transformer has no blocks")
    vocabulary, width = tensors["tok_emb.weight"].shape
    size = places.shape[1]
    return cfg.CodeTransformer(vocabulary, size, layers, width, num_heads=1), size


def _configure(
    first_stage: dict[str, np.ndarray],
    transformer: cfg.CodeTransformer,
    block_size: int,
    told: Told,
    stage: cfg.Autoencoder | None,
) -> cfg.CodeModel:
    autoencoder = shapes.autoencoder(first_stage)
    side = told.image_size
    if side is None:
        # After a spatial condition published models have one position more than is needed.
        count = -(-block_size // 2) if cfg.is_spatial(told.condition) else block_size
        codes = math.isqrt(count)
        if codes**2 != count:
            raise ConvertError(
                f"its transformer has {block_size} positions, which are not the codes of a square "
                "image after one token, nor after as many of a condition; give "
                "--original_config=FILE.yaml, which says what it is conditioned on and how large "
                "images are"
            )
        side = codes * autoencoder.factor
    whole = replace(transformer, num_heads=told.num_heads, n_unmasked=told.n_unmasked)
    return cfg.CodeModel(autoencoder, whole, told.condition, side, stage)


def _shapes(config: cfg.CodeTransformer) -> dict[str, Any]:
    return imported_model.code_transformer_shapes(config)


def transformer_places(config: cfg.CodeTransformer) -> dict[str, keys.Place]:
    """Where the transformer's parameters are: under their own names, but for the positions."""
    names = [leaf.name for leaf in state_dicts.leaves(_shapes(config))]
    return {name: keys.Place(name) for name in names} | {"pos_emb.weight": keys.Place("pos_emb")}


def _first_stage(
    tensors: dict[str, np.ndarray], config: cfg.Autoencoder, what: str, rules: state_dicts.Rules
) -> tuple[dict[str, Any], dict[str, str]]:
    tree = imported_model.autoencoder_shapes(config)
    listed = [leaf.name for leaf in state_dicts.leaves(tree)]
    return _component(tensors, keys.autoencoder_places(listed, config), tree, what, rules)


def _component(
    tensors: dict[str, np.ndarray],
    places: Mapping[str, keys.Place],
    tree: Any,
    what: str,
    rules: state_dicts.Rules,
) -> tuple[dict[str, Any], dict[str, str]]:
    found, rest = keys.read(tensors, places)
    if "pos_emb.weight" in found:
        found["pos_emb.weight"] = found["pos_emb.weight"][0]
    return state_dicts.from_torch(found, tree, what, rules, beside=rest)
