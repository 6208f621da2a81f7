"""Embeddings written in the forms of other programs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ldm_jax.adapters.embedding import Embedding
from ldm_jax.convert.embeddings.embedding_files import KOHYA
from ldm_jax.convert.imported_model import ConvertError, Dtype, stored
from ldm_jax.formats.safetensors_file import write_safetensors

Form = Literal["a1111", "diffusers"]


def write_embeddings(
    embeddings: Sequence[Embedding],
    path: Path,
    form: Form,
    *,
    dtype: Dtype = None,
    overwrite: bool = False,
) -> None:
    """Writes them to the file `path`: diffusers' form has each under its word, and the web UI's and
    kohya's has one, which is called as the file.

    Numbers are written as they are, or in `dtype`.

    Raises:
        ConvertError: the target is there, is called otherwise, or the form holds one alone.
        NotWritten: it cannot be written.
    """
    if path.suffix != ".safetensors":
        raise ConvertError(f"{path} does not end in .safetensors, as such a file must")
    if path.exists() and not overwrite:
        raise ConvertError(f"{path} exists; choose another, or --overwrite")
    if form == "a1111" and len(embeddings) != 1:
        names = ", ".join(one.name for one in embeddings)
        raise ConvertError(
            f"a file of the web UI's holds one embedding, not {len(embeddings)} ({names}); choose "
            "with --word, or write diffusers' form"
        )
    key = {one.name: KOHYA if form == "a1111" else one.name for one in embeddings}
    tensors = {key[one.name]: np.asarray(stored(one.vectors, dtype)) for one in embeddings}
    write_safetensors(path, tensors, {"format": "pt"})
