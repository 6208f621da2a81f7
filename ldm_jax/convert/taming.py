"""Checkpoints of VQGAN's second stage (taming-transformers' `Net2NetTransformer`), read.

A file holds `transformer.…`, the network, and `first_stage_model.…`, the autoencoder with its
codebook; `cond_stage_model.…`, another, is there where the condition is itself made of codes. What
no shape tells is in the YAML file that it was trained with, or is given as options.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model, state_dicts
from ldm_jax.convert.compvis import keys, shapes
from ldm_jax.convert.compvis.reader import read_any
from ldm_jax.convert.compvis.yaml_settings import params_of
from ldm_jax.convert.fields import Fields
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core.reading import shown

TRANSFORMER = "transformer."
_MARK = "transformer.tok_emb.weight"
_MASKS = ((r"blocks\.\d+\.attn\.mask", "which tokens see which, computed again"),)
_FIRST_STAGE = ((r"loss\..*", "discriminator and perceptual loss of training"),)
_CONDITION_STAGE = (*_FIRST_STAGE, (r"colorize", "random colours to show class maps in"))
_CLASSES = "Labelator"
_START = "SOSProvider"
_COORDINATES = "CoordStage"
_CODES = ("VQModel", "VQSegmentationModel", "VQNoDiscModel")
_COCO_STUFF = 183


@dataclass(frozen=True)
class Told:
    """What shapes do not tell."""

    num_heads: int
    condition: cfg.Prefix | None
    n_unmasked: int = 0
    image_size: int | None = None
    """None: that of which all codes fit the transformer's positions."""


@dataclass(frozen=True)
class ImportedCodes:
    """One model of codes; the leaves are as those of `Imported`."""

    config: cfg.CodeModel
    params: dict[str, Any]
    """`{"transformer"}`."""
    frozen: dict[str, Any]
    """`{"autoencoder"}`, and `"condition_stage"` where the config has one."""
    origin: dict[str, Any]
    ignored: dict[str, str]
    """Tensors of the source that are not used, and why."""


def is_code_model(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether these are the tensors of a transformer over codes."""
    return _MARK in tensors


def read_taming(
    path: str | Path,
    *,
    original_config: str | Path | None = None,
    heads: int | None = None,
    num_classes: int | None = None,
) -> ImportedCodes:
    """The model in a file of taming-transformers.

    Args:
        path: a `.ckpt` or `.safetensors` file.
        original_config: the YAML settings that it was trained with.
        heads: without these, the number of attention heads, which its tensors do not tell.
        num_classes: without these, the number of classes it is conditioned on; None: of none.

    Raises:
        ConvertError, FileFormatError, ConfigError: what is wrong with the file, or what is missing
            to know its architecture, and which option gives it.
    """
    path = Path(path)
    tensors, _ = read_any(path)
    try:
        return _read(tensors, path.name, original_config, heads, num_classes)
    except (ConvertError, cfg.ConfigError) as error:
        raise ConvertError(f"{path}: {error}") from error


def _read(
    tensors: Mapping[str, np.ndarray],
    name: str,
    original_config: str | Path | None,
    heads: int | None,
    num_classes: int | None,
) -> ImportedCodes:
    if not is_code_model(tensors):
        first = ", ".join(shown(name) for name in list(tensors)[:3])
        raise ConvertError(
            f"it is not VQGAN's second stage: it has no {_MARK}; its first names are {first}"
        )
    prefixes = TRANSFORMER, keys.FIRST_STAGE, keys.CONDITIONER
    parts = {prefix: _below(tensors, prefix) for prefix in prefixes}
    transformer, block_size = _transformer(parts[TRANSFORMER])
    of_conditions = parts[keys.CONDITIONER]
    stage = shapes.autoencoder(of_conditions) if of_conditions else None
    if original_config is not None:
        if heads is not None or num_classes is not None:
            raise ConvertError("give either --original_config or --heads and --num_classes")
        told = _of_yaml(Path(original_config), transformer, stage)
    elif heads is None:
        raise ConvertError(
            "its tensors do not tell the number of attention heads, nor the condition; give "
            "--original_config=FILE.yaml, the settings it was trained with, or --heads=N, and "
            "--num_classes=N for a model of classes"
        )
    else:
        told = Told(heads, _prefix_of(stage, num_classes))
    config = _configure(parts[keys.FIRST_STAGE], transformer, block_size, told, stage)
    params, ignored = _component(
        parts[TRANSFORMER], _places(config.transformer), _shapes(config.transformer),
        "the transformer", _MASKS,
    )  # fmt: skip
    autoencoder, left = _first_stage(
        parts[keys.FIRST_STAGE], config.autoencoder, "the first stage", _FIRST_STAGE
    )
    frozen, more = {"autoencoder": autoencoder}, {}
    if config.condition_stage is not None:
        frozen["condition_stage"], more = _first_stage(
            of_conditions, config.condition_stage, "the condition's first stage", _CONDITION_STAGE
        )
    unexpected = [name for name in tensors if not name.startswith(tuple(parts))]
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


def _prefix_of(stage: cfg.Autoencoder | None, num_classes: int | None = None) -> cfg.Prefix | None:
    """The condition whose first stage is `stage`, or of `num_classes`, or none.

    Raises:
        ConvertError: it is of images, or both are given.
    """
    if stage is None:
        return None if num_classes is None else cfg.ClassPrefix(num_classes)
    channels = stage.image_channels
    if num_classes is not None:
        raise ConvertError("it is conditioned on codes, not on classes; leave out --num_classes")
    if channels == 1:
        return cfg.DepthPrefix()
    if channels == 3:
        raise ConvertError(
            f"it is conditioned on the codes of images ({keys.CONDITIONER}* has 3 channels), which "
            "is not supported; class maps, depth, coordinates and classes are"
        )
    if channels == _COCO_STUFF:  # its 255, no class, is written as 0, and all others move by one
        return cfg.ClassMapPrefix(cfg.ClassMaps(channels, ignore=255, shift=1))
    return cfg.ClassMapPrefix(cfg.ClassMaps(channels, ignore=None))


def _of_yaml(path: Path, transformer: cfg.CodeTransformer, stage: cfg.Autoencoder | None) -> Told:
    """What the settings `path` say.

    Raises:
        ConvertError: they are those of another model, or of a condition that is not supported.
    """
    document, network = params_of(path, "transformer_config", "VQGAN's second stage")
    params, fields = Fields(path, document), Fields(path, network)
    for ours, theirs in (
        ("vocab_size", "vocab_size"), ("block_size", "block_size"), ("layers", "n_layer"),
        ("width", "n_embd"),
    ):  # fmt: skip
        said, there = fields.whole(theirs), getattr(transformer, ours)
        if said != there:
            raise ConvertError(
                f"--original_config={path} is of another model: its {theirs} is {said}, the "
                f"file's {there}"
            )
    order = params.get("permuter_config", None) or {}
    if order and not str(order.get("target")).endswith(".Identity"):
        raise params.error("permuter_config", "left out, or Identity: codes row by row")
    unmasked = fields.get("n_unmasked", 0)
    if type(unmasked) is not int or unmasked < 0:
        raise fields.error("n_unmasked", "a whole number, 0 or more")
    params.only(downsample_cond_size=-1)
    condition = _condition(path, params, stage)
    return Told(fields.whole("n_head"), condition, unmasked, _resolution(params))


def _condition(path: Path, params: Fields, stage: cfg.Autoencoder | None) -> cfg.Prefix | None:
    """What the model is conditioned on."""
    said = params.get("cond_stage_config", None)
    if params.flag("unconditional", False) or said == "__is_unconditional__":
        params.only(sos_token=cfg.START)
        return None
    target = said.get("target") if isinstance(said, dict) else said
    inner = said.get("params") if isinstance(said, dict) else None
    fields = Fields(path, inner if isinstance(inner, dict) else {})
    kind = str(target).rpartition(".")[2]
    if kind in _CODES and stage is not None:
        return _prefix_of(stage)
    if kind == _COORDINATES:
        factor = _first_stage_factor(params)
        if factor is not None and fields.whole("down_factor") != factor:
            raise fields.error("down_factor", f"{factor}, that of the first stage")
        return cfg.CoordinatePrefix(fields.whole("n_embed"))
    if kind == _CLASSES:
        return cfg.ClassPrefix(fields.whole("n_classes"))
    if kind == _START:
        fields.only(sos_token=cfg.START)
        return None
    raise ConvertError(
        f"--original_config={path}: the condition is {shown(str(target))}, which is not supported, "
        "or the file has no weights of it; class maps, depth, coordinates and classes are supported"
    )


def _of_first_stage(params: Fields, name: str) -> Any:
    """A field of the first stage's network; None where the settings do not say it."""
    found: Any = params.get("first_stage_config", None)
    for inner in ("params", "ddconfig", name):
        found = found.get(inner) if isinstance(found, dict) else None
    return found


def _resolution(params: Fields) -> int | None:
    """The side of the training images, where the first stage's settings say it."""
    found = _of_first_stage(params, "resolution")
    return found if type(found) is int and found > 0 else None


def _first_stage_factor(params: Fields) -> int | None:
    """Pixels per code along one side, where the first stage's settings say it."""
    found = _of_first_stage(params, "ch_mult")
    return 2 ** (len(found) - 1) if isinstance(found, list) and found else None


def _shapes(config: cfg.CodeTransformer) -> dict[str, Any]:
    return imported_model.code_transformer_shapes(config)


def _places(config: cfg.CodeTransformer) -> dict[str, keys.Place]:
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
