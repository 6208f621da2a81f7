"""Adapters as the tensors and settings of PEFT, which diffusers' files have as well."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ldm_jax.adapters.adapter import UNET, Adapter, Modules
from ldm_jax.adapters.dora import DoRA
from ldm_jax.adapters.kind import Kind
from ldm_jax.adapters.lora import LoRA
from ldm_jax.convert.adapters.adapter_files import METADATA
from ldm_jax.convert.adapters.kohya_form import (
    OF_A_FILE,
    alpha_of,
    in_pixels,
    lycoris_arrays,
    plain_change,
)
from ldm_jax.convert.adapters.module_names import PEFT, TEXT_MODEL
from ldm_jax.convert.imported_model import ConvertError

Tensors = dict[str, np.ndarray]
_TYPES = {"lora": "LORA", "loha": "LOHA"}
"""Kinds that are written. Of Kronecker products PEFT loads none but those of its own factors."""


def diffusers_form(adapter: Adapter) -> tuple[Tensors, dict[str, str]]:
    tensors: Tensors = {}
    settings: dict[str, Any] = {}
    for component, modules in adapter.components.items():
        prefix = folder_of(component)
        own = _peft_tensors(component, modules, "diffusers", ("lora",))
        tensors |= {f"{prefix}.{key}": array for key, array in own.items()}
        config = _peft_config(modules)
        del config["peft_type"]
        settings |= {f"{prefix}.{name}": value for name, value in config.items()}
    _refuse_embeddings(adapter, "diffusers")
    kept = {n: text for n, text in adapter.metadata.items() if n not in OF_A_FILE}
    return tensors, kept | {"format": "pt", METADATA: json.dumps(settings, sort_keys=True)}


def peft_form(adapter: Adapter) -> dict[str, tuple[Tensors, dict[str, Any]]]:
    """Tensors and settings of each component, by the name of its folder.

    Raises:
        ConvertError: names a change that PEFT does not have.
    """
    _refuse_embeddings(adapter, "PEFT")
    made = {}
    for component, modules in adapter.components.items():
        tensors = _peft_tensors(component, modules, "PEFT", tuple(_TYPES))
        named = {f"{PEFT}{key}": array for key, array in tensors.items()}
        made[folder_of(component)] = named, _peft_config(modules)
    return made


def folder_of(component: str) -> str:
    """What a component of adapters is called there."""
    return UNET if component == UNET else "text_encoder"


def _peft_tensors(
    component: str, modules: Modules, program: str, kinds: tuple[str, ...]
) -> Tensors:
    """The arrays of a component by module and PEFT's suffix."""
    names = {plain_change(one).name for all_ in modules.values() for one in all_}
    decomposed = {isinstance(kinds[0], DoRA) for kinds in modules.values()}
    tensors: Tensors = {}
    for path, (first, *more) in modules.items():
        inner = plain_change(first)
        problem = None
        if more or inner.name not in kinds:
            problem = f"is {(more or [inner])[0].name}"
        elif len(names) > 1:
            problem = f"is {inner.name} beside {', '.join(sorted(names - {inner.name}))}"
        elif isinstance(inner, LoRA) and inner.mid is not None:
            problem = "is LoRA with a middle factor"
        elif isinstance(first, DoRA) and (inner.name != "lora" or _of_inputs(first)):
            problem = "is DoRA of inputs, or of another change than LoRA"
        elif len(decomposed) > 1:
            problem = f"is {first.name}, where other modules are not: all are DoRA, or none"
        if problem:
            raise ConvertError(
                f"{program} cannot hold the change of {component}/{path}, which {problem}; write "
                "the form kohya"
            )
        name = path.replace("/", ".")
        tensors |= {f"{name}.{suffix}": array for suffix, array in _peft_arrays(first).items()}
    return tensors


def _of_inputs(one: DoRA) -> bool:
    return one.magnitude.shape[0] == 1 and one.magnitude.shape[1] > 1


def _peft_arrays(one: Kind) -> Tensors:
    match one:
        case DoRA(magnitude=magnitude, change=change):
            of_convolution = magnitude.reshape(1, -1, 1, 1)
            vector = magnitude.reshape(-1) if magnitude.ndim == 2 else of_convolution
            return {"lora_magnitude_vector": vector, **_peft_arrays(change)}
        case LoRA():
            return {"lora_A.weight": one.down, "lora_B.weight": in_pixels(one.up, one.down)}
    return {suffix: array for suffix, array in lycoris_arrays(one).items() if suffix != "alpha"}


def _peft_config(modules: Modules) -> dict[str, Any]:
    """PEFT's settings of a component: the most frequent rank and alpha, and those that differ by
    the modules' names."""
    # Programs differ in whether CLIP has that level, and take the end of a name for the whole.
    ends = {path: path.removeprefix(TEXT_MODEL).replace("/", ".") for path in modules}
    firsts = {ends[path]: plain_change(kinds[0]) for path, kinds in modules.items()}
    kind = next(iter(firsts.values())).name
    ranks = {name: one.rank for name, one in firsts.items()}
    alphas = {name: float(alpha_of(one)) for name, one in firsts.items()}
    rank, alpha = _most(ranks), _most(alphas)
    alpha_name = "lora_alpha" if kind == "lora" else "alpha"
    config = {
        "peft_type": _TYPES[kind],
        "r": rank, alpha_name: _whole(alpha), "target_modules": sorted(firsts),
        "rank_pattern": {n: r for n, r in ranks.items() if r != rank},
        "alpha_pattern": {n: _whole(a) for n, a in alphas.items() if a != alpha},
    }  # fmt: skip
    if kind == "lora":
        config |= {
            "use_dora": any(isinstance(kinds[0], DoRA) for kinds in modules.values()),
            "use_rslora": False, "bias": "none",
        }  # fmt: skip
    elif any(one.t2 is not None for one in firsts.values()):
        config["use_effective_conv2d"] = True
    return config


def _most(values: Mapping[str, Any]) -> Any:
    listed = [*values.values()]
    return max(dict.fromkeys(listed), key=listed.count)


def _whole(number: float) -> int | float:
    return int(number) if number == int(number) else number


def _refuse_embeddings(adapter: Adapter, program: str) -> None:
    if adapter.embeddings:
        raise ConvertError(
            f"{program} cannot hold an embedding beside changes "
            f"({next(iter(adapter.embeddings))}); write the form kohya"
        )
