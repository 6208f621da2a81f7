"""Hypernetworks in the web UI's files (.pt), read without running anything in them, and written."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.adapters.adapted import ADAPTERS, HYPERNETWORKS
from ldm_jax.adapters.hypernetwork import ACTIVATIONS, Nets, shapes
from ldm_jax.config.checks import ConfigError
from ldm_jax.convert.adapters.trained_adapter import is_run
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.loading import workdir_of
from ldm_jax.convert.native import read_trained
from ldm_jax.convert.other_kinds import check_kind, read_saved
from ldm_jax.convert.state_dicts import READABLE, is_finite
from ldm_jax.core.reading import shown
from ldm_jax.core.stores import as_path
from ldm_jax.formats.torch_writer import write_torch

OLD_NAMES = {"linear1": "linear.0", "linear2": "linear.1"}
INITIALIZATIONS = {
    "Normal": "normal", "XavierUniform": "xavier_uniform", "XavierNormal": "xavier_normal",
    "KaimingUniform": "kaiming_uniform", "KaimingNormal": "kaiming_normal",
}  # fmt: skip
USUAL_DROPOUT = 0.3
"""Of files that say only that there is dropout."""


@dataclass(frozen=True, eq=False)
class HypernetworkFile:
    """A hypernetwork as its file has it."""

    form: cfg.Hypernetwork
    nets: Nets
    name: str
    step: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else the file says: the model that it was made for."""
    notes: tuple[str, ...] = ()
    """What a user should know about its file."""


def read_hypernetwork(path: str | Path, config: cfg.Model | None = None) -> HypernetworkFile:
    """The hypernetwork in `path`.

    Args:
        path: a file of the web UI's, or the work directory of a run that trains one.
        config: the model that it is for, whose attention must have the widths; None for any.

    Raises:
        ConvertError, FileFormatError: what is missing, unknown, or of the wrong shape.
    """
    path = as_path(path)
    found = _of_run(path) if is_run(path) else _of_file(path)
    return found if config is None else _fitting(path, found, config)


def write_hypernetwork(one: HypernetworkFile, path: Path, *, overwrite: bool = False) -> None:
    """Writes the web UI's form.

    Raises:
        ConvertError: the target is there, or does not end in .pt.
        NotWritten: it cannot be written.
    """
    if path.suffix != ".pt":
        raise ConvertError(f"{path} does not end in .pt, as such a file must")
    if path.exists() and not overwrite:
        raise ConvertError(f"{path} exists; choose another, or --overwrite")
    form = one.form
    whole = [int(size) if size == int(size) else size for size in form.layer_structure]
    words = {ours: theirs for theirs, ours in INITIALIZATIONS.items()}
    saved: dict[Any, Any] = {
        int(width): tuple(
            {f"linear.{number}.{name}": np.asarray(array)
             for number, arrays in pair[side].items() for name, array in arrays.items()}
            for side in ("k", "v")
        )
        for width, pair in one.nets.items()
    }  # fmt: skip
    saved |= {
        "step": one.step, "name": one.name, "layer_structure": whole,
        "activation_func": form.activation, "is_layer_norm": form.layer_norm,
        "weight_initialization": words[form.initialization],
        "sd_checkpoint": one.about.get("sd_checkpoint"),
        "sd_checkpoint_name": one.about.get("sd_checkpoint_name"),
        "activate_output": form.activate_output, "use_dropout": any(form.dropout),
        "dropout_structure": [*form.dropout] or [0] * len(whole),
        # Versions before 2023 go by this alone.
        "last_layer_dropout": bool(form.dropout and form.dropout[-2]),
        "optional_info": one.about.get("optional_info"),
    }  # fmt: skip
    write_torch(path, saved)


# ----------------------------------------------------------------------------------------- files


def _of_file(path: Path) -> HypernetworkFile:
    saved, _ = read_saved(path)
    check_kind(path, saved, "hypernetwork")
    pairs = {k: v for k, v in saved.items() if type(k) is int} if isinstance(saved, dict) else {}
    if not pairs:
        raise ConvertError(
            f"{path} is no hypernetwork: such a file has pairs of networks under the widths of "
            "attention, such as 768 and 320"
        )
    for width, pair in pairs.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ConvertError(f"{path}: {width} must be a pair of networks, of keys and of values")
    form = _form(path, saved, tuple(pairs))
    nets = {
        str(width): {
            side: _net(f"{path}, {side} of {width}", form, width, arrays)
            for side, arrays in zip("kv", pair, strict=True)
        }
        for width, pair in pairs.items()
    }
    names = ("sd_checkpoint", "sd_checkpoint_name", "optional_info")
    about = {name: saved[name] for name in names if isinstance(saved.get(name), str)}
    name, step = saved.get("name"), saved.get("step")
    return HypernetworkFile(
        form, nets, name if isinstance(name, str) else path.stem,
        step if isinstance(step, int) else 0, about,
    )  # fmt: skip


def _form(path: Path, saved: Mapping[Any, Any], widths: tuple[int, ...]) -> cfg.Hypernetwork:
    try:
        structure = saved.get("layer_structure") or [1, 2, 1]
        initialization = saved.get("weight_initialization") or "Normal"
        activation = (saved.get("activation_func") or "linear").lower()
        if activation not in ("linear", *ACTIVATIONS):
            raise ConvertError(
                f"{path}: its activation_func is {shown(activation)}; those that are read are "
                f"linear, {', '.join(ACTIVATIONS)}"
            )
        return cfg.Hypernetwork(
            widths,
            tuple(float(size) for size in structure),
            activation,
            bool(saved.get("is_layer_norm", False)),
            bool(saved.get("activate_output", True)),
            _dropout(saved, len(structure)),
            INITIALIZATIONS.get(initialization, "normal"),
        )
    except ConvertError:
        raise
    except ConfigError as error:
        raise ConvertError(f"{path}: {error}") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConvertError(
            f"{path} is damaged: of layer_structure, activation_func, weight_initialization, "
            f"dropout_structure and its other settings one cannot be read ({error})"
        ) from error


def _dropout(saved: Mapping[Any, Any], layers: int) -> tuple[float, ...]:
    """As the web UI reads it: `dropout_structure`, or else so much after all inner layers but the
    last of them, which `last_layer_dropout` adds."""
    given = saved.get("dropout_structure")
    if given is None and saved.get("use_dropout"):
        last = USUAL_DROPOUT if saved.get("last_layer_dropout") else 0.0
        given = [0.0] + [USUAL_DROPOUT] * max(layers - 3, 0) + [last, 0.0]
    shares = tuple(float(share) for share in given or ())
    return shares if any(shares) else ()


def _net(where: str, form: cfg.Hypernetwork, width: int, arrays: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(arrays, Mapping):
        raise ConvertError(f"{where} is no network: a dict of tensors is wanted")
    found = {}
    for key, array in arrays.items():
        first, _, rest = str(key).partition(".")
        name = f"{OLD_NAMES.get(first, first)}.{rest}"
        if name in found:
            raise ConvertError(f"{where}: {name} is there twice, in an old and a new spelling")
        found[name] = array
    net: dict[str, dict[str, Any]] = {}
    for number, name, shape in shapes(form, width):
        key = f"linear.{number}.{name}"
        array = found.pop(key, None)
        if not isinstance(array, np.ndarray) or array.shape != shape:
            there = "missing" if array is None else f"{list(np.shape(array))}"
            raise ConvertError(f"{where}: {key} is {there}, wanted {list(shape)}")
        if array.dtype not in READABLE:
            raise ConvertError(
                f"{where}: {key} is of {array.dtype}, a type that weights do not have"
            )
        if not is_finite(array):
            raise ConvertError(
                f"{where}: {key} has values that are no finite numbers; the file is damaged, or "
                "of a training that failed"
            )
        net.setdefault(str(number), {})[name] = array
    if found:
        raise ConvertError(
            f"{where}: {shown(next(iter(found)))} is unexpected; by its layer_structure, "
            "activation, norms and dropout the network has no such tensor"
        )
    return net


def _of_run(path: Path) -> HypernetworkFile:
    workdir, step = workdir_of(path)
    run, params, origin = read_trained(workdir, step=step)
    form = getattr(run, "adapter", None)
    if not isinstance(form, cfg.Hypernetwork):
        raise ConvertError(f"{path} is the work directory of a run that trains no hypernetwork")
    nets = params["unet"][ADAPTERS][HYPERNETWORKS]["0"]["nets"]
    widths = tuple(sorted(map(int, nets)))
    form = cfg.Hypernetwork(**vars(form) | {"widths": widths})
    return HypernetworkFile(form, nets, workdir.name, origin["step"])


def _fitting(path: Path, one: HypernetworkFile, config: cfg.Model) -> HypernetworkFile:
    """The hypernetwork, with a note where it has networks that the model has no use for, as files
    have that were made for several families.

    Raises:
        ConvertError: its networks are for text of another width than the model's, or for nothing.
    """
    unet, widths = config.unet, {*one.form.widths}
    idle = sorted(widths - {*unet.block_out_channels, unet.context_dim})
    if not idle:
        return one
    listed = ", ".join(map(str, idle))
    if unet.context_dim not in widths:
        raise ConvertError(
            f"{path} has networks for attention of width {listed}, which this model has not; its "
            f"text is of width {unet.context_dim}. Use a model of the family that it was made for"
        )
    return replace(one, notes=(f"{one.name}: its networks of width {listed} are not used here",))
