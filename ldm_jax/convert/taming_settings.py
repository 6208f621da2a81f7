"""What no shape in a checkpoint of VQGAN's second stage tells: heads, condition, image size. The
YAML file that it was trained with says them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.convert.compvis import keys
from ldm_jax.convert.compvis.yaml_settings import params_of
from ldm_jax.convert.fields import Fields
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core.reading import shown

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
    image_size: int | tuple[int, int] | None = None
    """None: that of which all codes fit the transformer's positions."""


def prefix_of(stage: cfg.Autoencoder | None, num_classes: int | None = None) -> cfg.Prefix | None:
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


def of_yaml(path: Path, transformer: cfg.CodeTransformer, stage: cfg.Autoencoder | None) -> Told:
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
        return prefix_of(stage)
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
