"""Adapters as the tensors and the text of kohya's and LyCORIS' files, which hold all kinds."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from ldm_jax.adapters.adapter import UNET, Adapter
from ldm_jax.adapters.dora import DoRA
from ldm_jax.adapters.ia3 import IA3
from ldm_jax.adapters.kind import Kind
from ldm_jax.adapters.lokr import LoKr
from ldm_jax.adapters.lora import LoRA
from ldm_jax.adapters.whole_differences import BiasDifference, FullDifference, NormDifference
from ldm_jax.convert.adapters.adapter_files import FAMILIES, METADATA
from ldm_jax.formats.safetensors_file import tensors_digest

OF_A_FILE = (METADATA, "format", "sshs_model_hash", "sshs_legacy_hash")
"""Text that says something of a file's form or bytes, not of its adapter."""
_VERSIONS = {FAMILIES[768]: "sd_v1", FAMILIES[1024]: "sd_v2"}
_ALGORITHMS = {"loha": "loha", "lokr": "lokr", "ia3": "ia3", "full": "full"}


def kohya_form(adapter: Adapter) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata. A hash of the tensors is among these, as kohya's programs and the web
    UI take it."""
    tensors: dict[str, np.ndarray] = {}
    for component, path, one in _each(adapter):
        name = ("lora_unet_" if component == UNET else "lora_te_") + path.replace("/", "_")
        tensors |= {f"{name}.{suffix}": array for suffix, array in lycoris_arrays(one).items()}
    tensors |= adapter.embeddings
    return tensors, _metadata(adapter) | {"sshs_model_hash": tensors_digest(tensors)}


def _each(adapter: Adapter) -> Iterator[tuple[str, str, Kind]]:
    """Component, module and change, for all changes."""
    for component, modules in adapter.components.items():
        for path, kinds in modules.items():
            for one in kinds:
                yield component, path, one


def lycoris_arrays(one: Kind) -> dict[str, np.ndarray]:
    """The arrays of a change by LyCORIS' suffixes, which are kohya's for LoRA."""
    match one:
        case DoRA(magnitude=magnitude, change=change):
            return {"dora_scale": magnitude, **lycoris_arrays(change)}
        case LoRA():
            arrays = {"lora_down.weight": one.down, "lora_up.weight": in_pixels(one.up, one.down)}
            if one.mid is not None:
                arrays["lora_mid.weight"] = one.mid
            return arrays | {"alpha": alpha_of(one)}
        case IA3(scale=scale):
            on_input = scale.shape[0] == 1 and scale.shape[1] > 1
            weight = scale.reshape(-1) if scale.ndim == 2 else scale.reshape(1, -1, 1, 1)
            return {"weight": weight, "on_input": np.asarray(int(on_input), np.int64)}
        case FullDifference(diff=diff):
            return {"diff": diff}
        case BiasDifference(diff=diff):
            return {"diff_b": diff}
        case NormDifference():
            named = {"w_norm": one.scale, "b_norm": one.bias}
            return {name: array for name, array in named.items() if array is not None}
    prefix = "lokr" if isinstance(one, LoKr) else "hada"
    arrays = {f"{prefix}_{n}": a for n, a in vars(one).items() if a is not None and n != "alpha"}
    return arrays | {"alpha": alpha_of(one)}


def in_pixels(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """`up` with axes of one pixel where `down` has axes of pixels."""
    return up.reshape(*up.shape[:2], 1, 1) if up.ndim == 2 < down.ndim else up


def alpha_of(one: Any) -> np.ndarray:
    if one.alpha is not None:
        return np.asarray(one.alpha)
    return np.asarray(1 if one.rank is None else one.rank, np.float32)


def _metadata(adapter: Adapter) -> dict[str, str]:
    """What other programs look for, where the adapter's own text does not say it."""
    inner = [plain_change(one) for _, _, one in _each(adapter)]
    ranked = [one for one in inner if getattr(one, "rank", None)]
    plain = all(isinstance(one, LoRA) for one in inner)
    found = {_ALGORITHMS.get(one.name, "lora") for one in inner}
    said = {"ss_network_module": "networks.lora" if plain else "lycoris.kohya"}
    if ranked:
        said["ss_network_dim"] = str(max(one.rank for one in ranked))
        said["ss_network_alpha"] = str(float(max(float(alpha_of(one)) for one in ranked)))
    if not plain:
        algorithm = found.pop() if len(found) == 1 else "lora"
        said["ss_network_args"] = json.dumps({"algo": algorithm})
    if adapter.family in _VERSIONS:
        said["ss_base_model_version"] = _VERSIONS[adapter.family]
        said["ss_v2"] = str(adapter.family == FAMILIES[1024])
    if adapter.name:
        said["ss_output_name"] = adapter.name
    if adapter.words:
        said["modelspec.trigger_phrase"] = ", ".join(adapter.words)
    own = {name: text for name, text in adapter.metadata.items() if name not in OF_A_FILE}
    return said | own


def plain_change(one: Kind) -> Kind:
    return one.change if isinstance(one, DoRA) else one
