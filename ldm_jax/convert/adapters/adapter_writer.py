"""Adapters written in the forms of other programs: kohya's and LyCORIS' files, which hold all
kinds, the file of diffusers, and the folders of PEFT."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ldm_jax.adapters.adapter import Adapter
from ldm_jax.adapters.kind import mapped
from ldm_jax.convert.adapters.adapter_files import DIFFUSERS_FILES, PEFT_CONFIG, PEFT_FILES
from ldm_jax.convert.adapters.kohya_form import OF_A_FILE, kohya_form
from ldm_jax.convert.adapters.peft_form import diffusers_form, peft_form
from ldm_jax.convert.imported_model import ConvertError, Dtype, stored
from ldm_jax.convert.model_folders import new_folder
from ldm_jax.core.files import write_atomically
from ldm_jax.formats.safetensors_file import write_safetensors

Form = Literal["kohya", "diffusers", "peft"]


def write_adapter(
    adapter: Adapter, path: Path, form: Form, *, dtype: Dtype = None, overwrite: bool = False
) -> None:
    """Writes it to `path`: a file, or of PEFT a new folder.

    Numbers are written as they are, or in `dtype`; alpha always stays as it is.

    Raises:
        ConvertError: the target is there, or the form cannot hold a change, which is named.
        NotWritten: it cannot be written.
    """
    cast = _cast(adapter, dtype)
    if form == "peft":
        _write_folders(cast, path, overwrite)
        return
    if path.is_dir():
        path = path / DIFFUSERS_FILES[0]
    if path.suffix != ".safetensors":
        raise ConvertError(f"{path} does not end in .safetensors, as such a file must")
    if path.exists() and not overwrite:
        raise ConvertError(f"{path} exists; choose another, or --overwrite")
    write = kohya_form if form == "kohya" else diffusers_form
    tensors, metadata = write(cast)
    write_safetensors(path, tensors, metadata)


def _cast(adapter: Adapter, dtype: Dtype) -> Adapter:
    def plain(array: Any) -> np.ndarray:
        array = np.asarray(array)
        return array if array.ndim == 0 else np.asarray(stored(array, dtype))

    components = {
        name: {path: tuple(mapped(one, plain) for one in kinds) for path, kinds in modules.items()}
        for name, modules in adapter.components.items()
    }
    return Adapter(
        components, adapter.name, adapter.family, adapter.words, adapter.metadata,
        adapter.embeddings,
    )  # fmt: skip


def _write_folders(adapter: Adapter, path: Path, overwrite: bool) -> None:
    """A folder of PEFT, or one with a folder for each component."""
    made = peft_form(adapter)
    metadata = {name: text for name, text in adapter.metadata.items() if name not in OF_A_FILE}
    with new_folder(path, overwrite) as draft:
        for name, (tensors, settings) in made.items():
            folder = draft
            if len(made) > 1:
                folder = draft / name
                folder.mkdir()
            write_safetensors(folder / PEFT_FILES[0], tensors, metadata | {"format": "pt"})
            write_atomically(folder / PEFT_CONFIG, json.dumps(settings, indent=2).encode())
