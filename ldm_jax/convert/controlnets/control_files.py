"""ControlNets from whatever holds them: folders and files of diffusers, and the original's files,
with or without the model that they were trained beside."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import claims, imported_model, state_dicts
from ldm_jax.convert.adapters.adapter_files import FAMILIES
from ldm_jax.convert.adapters.trained_adapter import is_run
from ldm_jax.convert.compvis import keys
from ldm_jax.convert.compvis.yaml_settings import read_yaml
from ldm_jax.convert.controlnets.control_names import (
    BESIDE,
    DIFFERENCE,
    HINT,
    PREFIX,
    control_places,
    hint_widths,
    why_not,
)
from ldm_jax.convert.diffusers import architectures
from ldm_jax.convert.diffusers.pipeline_folders import CONFIG, read_component
from ldm_jax.convert.fields import Fields
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.loading import workdir_of
from ldm_jax.convert.native import read_trained
from ldm_jax.convert.other_kinds import read_tensors_of
from ldm_jax.core import tree
from ldm_jax.core.reading import read_json, shown
from ldm_jax.core.stores import as_path
from ldm_jax.models.control_net import EMBEDDING
from ldm_jax.workdir.frozen import load_first_stage

Tensors = dict[str, np.ndarray]
CLASS = "ControlNetModel"
"""What diffusers calls a ControlNet."""
_FIRST = f"{EMBEDDING}.conv_in.weight"
_KEYS = re.compile(r"(.*\.attn2\.to_k\.weight)")
_OWN = (
    "_class_name", "conditioning_channels", "controlnet_conditioning_channel_order",
    "conditioning_embedding_out_channels", "global_pool_conditions",
)  # fmt: skip
"""Fields of a config that a U-Net's does not have, or has otherwise."""


@dataclass(frozen=True, eq=False)
class ImportedControl:
    """One ControlNet."""

    config: cfg.ControlBranch
    params: dict[str, Any]
    """Numpy arrays as they were stored, in the layout of this project's module."""
    name: str
    ignored: Mapping[str, str]
    """Tensors of the source that are not used, and why."""
    notes: tuple[str, ...] = ()
    """What a user should know about its file."""


def read_control(
    path: str | Path, model: cfg.Model, params: Mapping[str, Any], variant: str | None = None
) -> ImportedControl:
    """The ControlNet in `path` for a model, which says what the file does not.

    Args:
        path: a work directory, or its `checkpoints/STEP`; a folder of diffusers, or a file of its
            weights or of the original's, which is read without running anything in it.
        model: what it is used with.
        params: that model's U-Net's parameters, to which those of a file of differences are added.
        variant: of a folder, as in `diffusers.pipeline_folders.read_folder`.

    Raises:
        ConvertError, FileFormatError: what is missing or damaged, made for another model, or of a
            kind that is not read.
    """
    path = as_path(path)
    beside = path if path.is_dir() else path.parent
    if is_run(path):
        found = _of_run(path)
    elif path.is_dir() or _is_ours(beside, path):
        found = _of_folder(beside, path, model, variant)
    else:
        found = _of_file(path, model, params)
    _check_fits(path, found.config, model)
    for name, leaf in tree.flatten(found.params).items():
        if not state_dicts.is_finite(np.asarray(leaf)):
            raise ConvertError(
                f"{path}: {name} has values that are no finite numbers; the file is damaged, or of "
                "a training that failed"
            )
    return found


def _of_run(path: Path) -> ImportedControl:
    workdir, step = workdir_of(path)
    run, params, _ = read_trained(workdir, step=step)
    if not isinstance(getattr(run, "adapter", None), cfg.ControlNet):
        raise ConvertError(f"{path} is the work directory of a run that trains no ControlNet")
    stage, _ = load_first_stage(run, workdir)
    branch = cfg.control_of(run.model(stage).unet, stage)
    own = params["adapters"]["control"]["0"]
    return ImportedControl(branch, jax.tree.map(np.asarray, own), workdir.name, {})


def _is_ours(folder: Path, path: Path) -> bool:
    """Whether a file's config lies beside it."""
    named = path.name.startswith("diffusion_pytorch_model.") and (folder / CONFIG).is_file()
    return named and read_json(folder / CONFIG).get("_class_name") == CLASS


# ------------------------------------------------------------------------------------- folders


def _of_folder(folder: Path, path: Path, model: cfg.Model, variant: str | None) -> ImportedControl:
    if not (folder / CONFIG).exists():
        raise ConvertError(
            f"{path} is no ControlNet: a folder with {CONFIG} and diffusion_pytorch_model."
            "safetensors is wanted, or the name of a file"
        )
    branch, turned = read_branch(folder / CONFIG)
    _check_fits(path, branch, model)
    if path.is_dir():
        params, ignored, notes = read_component(folder, branch, variant)
    else:
        tensors, _ = read_tensors_of(path, "ControlNet")
        claims.check(branch, tensors, str(folder / CONFIG))
        shapes = imported_model.control_shapes(branch)
        params, ignored = state_dicts.from_torch(tensors, shapes, str(path))
        notes = ()
    if turned:
        kernel = params[EMBEDDING]["conv_in"]["kernel"]
        params[EMBEDDING]["conv_in"]["kernel"] = kernel[:, :, ::-1]
        notes = (*notes, "its hints are blue, green, red; its first layer is turned to read red "
                 "first, as all others do")  # fmt: skip
    return ImportedControl(branch, params, folder.name, ignored, notes)


def read_branch(path: Path) -> tuple[cfg.ControlBranch, bool]:
    """What a ControlNet's config of diffusers describes, and whether its hints begin with blue.

    Raises:
        ConvertError, FileFormatError: no such file, or a field whose value is not supported.
    """
    values = read_json(path)
    own = Fields(path, {name: values[name] for name in _OWN if name in values})
    own.choice("_class_name", None, {CLASS: None})
    widths = own.wholes("conditioning_embedding_out_channels", cfg.ControlBranch().hint_widths)
    channels = own.whole("conditioning_channels", 3)
    pooled = own.flag("global_pool_conditions", False)
    turned = own.choice("controlnet_conditioning_channel_order", "rgb", {"rgb": False, "bgr": True})
    levels = values.get("down_block_types", ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"])
    if not isinstance(levels, list):
        raise ConvertError(f"{path}: down_block_types is {levels!r}; it must be a list of names")
    ups = [str(level).replace("Down", "Up") for level in reversed(levels)]
    inputs = values.get("in_channels", 4)
    rest = {name: value for name, value in values.items() if name not in _OWN} | {
        "_class_name": "UNet2DConditionModel", "down_block_types": levels, "up_block_types": ups,
        "in_channels": inputs, "out_channels": inputs,
    }  # fmt: skip
    fields = Fields(path, rest)
    with fields.naming():
        unet = architectures.read_unet(fields)
        branch = cfg.ControlBranch(unet, channels, widths, pooled)
    return branch, turned


# --------------------------------------------------------------------------------------- files


def _of_file(path: Path, model: cfg.Model, params: Mapping[str, Any]) -> ImportedControl:
    tensors, _ = read_tensors_of(path, "ControlNet")
    other = why_not(tensors)
    if other is not None:
        raise ConvertError(
            f"{path} {other[1]} (it has {shown(other[0])}); --control takes ControlNets for Stable "
            "Diffusion 1 and 2"
        )
    adds = tensors.pop(DIFFERENCE, None) is not None
    prefixed = any(name.startswith(PREFIX) for name in tensors)
    own = {n.removeprefix(PREFIX): t for n, t in tensors.items()
           if n.startswith(PREFIX) or not prefixed}  # fmt: skip
    adds |= own.pop(DIFFERENCE, None) is not None
    rest = [name for name in tensors if prefixed and not name.startswith(PREFIX)]
    if f"{HINT}0.weight" not in own and _FIRST not in own:
        raise ConvertError(
            f"{path} is no ControlNet: it has neither {HINT}0.weight, as the original's files, nor "
            f"{_FIRST}, as those of diffusers"
        )
    _check_width(path, own, model)
    branch, notes = _told_by(path, own, model)
    claims.check(branch, own, str(path))
    shapes = imported_model.control_shapes(branch)
    if _FIRST not in own:
        places = control_places((leaf.name for leaf in state_dicts.leaves(shapes)), branch)
        own, unknown = keys.read(own, places)
        if twice := sorted(own.keys() & unknown.keys()):
            raise ConvertError(
                f"{path} holds {shown(twice[0])} twice, under the original's name and under that "
                "of diffusers"
            )
        own |= unknown
    found, ignored = state_dicts.from_torch(
        own, shapes, f"{path}, for the model that it is used with,", BESIDE if prefixed else (),
        beside=rest,
    )  # fmt: skip
    if adds:
        found = _added(path, found, params)
        notes = (*notes, "it holds differences, which are added to this model's weights")
    return ImportedControl(branch, found, path.stem, ignored, notes)


def _told_by(
    path: Path, tensors: Tensors, model: cfg.Model
) -> tuple[cfg.ControlBranch, tuple[str, ...]]:
    """What the shapes, the model and what lies beside the file say of it."""
    notes: tuple[str, ...] = ()
    unet, shapes = model.unet, {name: tensor.shape for name, tensor in tensors.items()}
    first = shapes.get("conv_in.weight", shapes.get("input_blocks.0.0.weight", (0,)))
    if len(first) == 4 and first[1] == unet.in_channels:
        unet = replace(unet, concat_channels=0)
    hint = shapes.get(f"{HINT}0.weight", shapes.get(_FIRST, (0, 3)))
    settings = path.with_suffix(".yaml")
    if settings.is_file():
        pooled = _says_pooled(settings)
    else:
        pooled = "shuffle" in path.stem.lower()
        if pooled:
            notes = ("as its name says shuffle, what it adds is the mean over the picture",)
    channels = int(hint[1]) if len(hint) > 1 else 3
    unet = replace(unet, dropout=0.0)
    try:
        return cfg.ControlBranch(unet, channels, hint_widths(shapes), pooled), notes
    except cfg.ConfigError as error:
        raise ConvertError(
            f"{path} has layers of a hint that no ControlNet for Stable Diffusion has, or lacks "
            f"some: {error}"
        ) from error


def _says_pooled(path: Path) -> bool:
    """What the original's settings beside a file say of averages."""
    said = read_yaml(path, str(path))
    for level in ("model", "params"):
        said = said.get(level) if isinstance(said, dict) else None
    return bool(isinstance(said, dict) and said.get("global_average_pooling"))


def _added(path: Path, found: dict[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    base, flat = tree.flatten(params), tree.flatten(found)
    for name, leaf in flat.items():
        if name not in base:
            continue
        if base[name].shape != leaf.shape:
            raise ConvertError(
                f"{path} holds differences from a model whose {name} has the shape "
                f"{list(leaf.shape)}; this model's has {list(base[name].shape)}"
            )
        flat[name] = np.asarray(base[name], np.float32) + np.asarray(leaf, np.float32)
    return tree.unflatten(flat)


# ------------------------------------------------------------------------------------- refusals


def _check_width(path: Path, tensors: Tensors, model: cfg.Model) -> None:
    keys_of = (t.shape[1] for n, t in tensors.items() if _KEYS.fullmatch(n) and t.ndim == 2)
    width = next(keys_of, None)
    if width is not None:
        _check_context(path, width, model)


def _check_context(path: Path, width: int | None, model: cfg.Model) -> None:
    wanted = model.unet.context_dim
    if width == wanted:
        return
    made_for, own = FAMILIES.get(width or 0, "another model"), FAMILIES.get(wanted or 0)
    reads = "none" if wanted is None else f"text of width {wanted}"
    raise ConvertError(
        f"{path} is a ControlNet for {made_for}, whose attention reads text of width {width}; this "
        f"model{f', {own},' if own else ''} reads {reads}; use it with a model of the family that "
        "it is made for"
    )


def _check_fits(path: Path, branch: cfg.ControlBranch, model: cfg.Model) -> None:
    """Raises ConvertError where it cannot be used with the model."""
    unet, own = model.unet, branch.unet
    _check_context(path, own.context_dim, model)
    inputs = own.in_channels + own.concat_channels
    of_model = {unet.in_channels, unet.in_channels + unet.concat_channels}
    differing = [
        f"{name} is {value}, the model's {wanted}"
        for name, value, wanted in (
            ("block_out_channels", own.block_out_channels, unet.block_out_channels),
            ("layers_per_block", own.layers_per_block, unet.layers_per_block),
            ("class_count", own.class_count, unet.class_count),
            ("pooled_dim", own.pooled_dim, unet.pooled_dim),
            ("in_channels", inputs, inputs if inputs in of_model else unet.in_channels),
            ("size of a hint, in latents", branch.hint_factor,
             model.autoencoder.factor * unet.patch_size),
        )
        if value != wanted
    ]  # fmt: skip
    if differing:
        raise ConvertError(f"{path} is a ControlNet for another model: {'; '.join(differing)}")
