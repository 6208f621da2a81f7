"""What a file holds by the names in it, for those who name it with the wrong option."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ldm_jax.convert.adapters.adapter_keys import part_of
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core.reading import map_file
from ldm_jax.formats.model_files import state_dict
from ldm_jax.formats.safetensors_file import looks_like_safetensors, read_safetensors
from ldm_jax.formats.torch_file import read_torch

Kind = Literal["adapter", "embedding", "hypernetwork", "ControlNet"]
OPTIONS = {
    "adapter": "an adapter (LoRA or a relative of it), which --lora takes",
    "embedding": "an embedding, which --embeddings takes",
    "hypernetwork": "a hypernetwork, which --hypernetwork takes",
    "ControlNet": "a ControlNet, which --control takes",
    "model": "a whole model, which is named with --model",
}
_CONTROL = re.compile(r"(control_model\.)?(input_hint_block|controlnet_cond_embedding)\..*")
_MODEL = re.compile(r"(model\.diffusion_model|first_stage_model|cond_stage_model|model_ema)\..*")
_OTHERS = re.compile(r"lora_controlnet|.*(double_blocks|lllite_).*")
"""Names of files that only seem to be ControlNets."""


def kinds_of(names: Iterable[Any]) -> set[str]:
    """Which of `OPTIONS` the names in a file speak of."""
    names = [*names]
    texts = [name for name in names if isinstance(name, str)]
    parts = [part for name in texts if (part := part_of(name)) is not None]
    only_seem = any(map(_OTHERS.fullmatch, texts))
    found = {
        "adapter": any(part.kind not in ("", "ia3") for part in parts),
        "embedding": "string_to_param" in texts or texts == ["emb_params"],
        "hypernetwork": any(type(name) is int for name in names),
        "ControlNet": any(map(_CONTROL.fullmatch, texts)) and not only_seem,
        "model": any(map(_MODEL.fullmatch, texts)),
    }
    return {kind for kind, there in found.items() if there}


def check_kind(path: Path, saved: Any, wanted: Kind) -> None:
    """Raises ConvertError for what `path` holds, if its names speak of something else than what is
    wanted."""
    found = kinds_of(saved) if isinstance(saved, Mapping) else set()
    if found and wanted not in found:
        what = next(text for kind, text in OPTIONS.items() if kind in found)
        raise ConvertError(f"{path} is no {wanted} but {what}")


def read_saved(path: Path) -> tuple[Any, dict[str, str]]:
    """What a file of safetensors or of torch holds, and the metadata of the former.

    Raises:
        FileFormatError: it is missing, damaged, or neither of the two.
    """
    data = map_file(path)
    start = data[:9]
    data.close()
    return read_safetensors(path) if looks_like_safetensors(start) else (read_torch(path), {})


def read_tensors_of(path: Path, wanted: Kind) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of such a file by name, and its metadata.

    Raises:
        ConvertError: it holds another kind of thing, which is said.
        FileFormatError: as `read_saved`, or something in it is no tensor.
    """
    saved, metadata = read_saved(path)
    check_kind(path, saved, wanted)
    tensors = state_dict(path, saved)
    check_kind(path, tensors, wanted)
    return tensors, metadata
