"""Embeddings from whatever holds them: the web UI's and kohya's files, those of diffusers, those of
the first textual inversion, PNGs of the web UI, and adapters that bring some along."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.adapters.adapted import ADAPTERS, EMBEDDINGS, TEXT
from ldm_jax.adapters.embedding import Embedding
from ldm_jax.convert.adapters.adapter_keys import embedding_of
from ldm_jax.convert.adapters.trained_adapter import FAMILIES, is_run
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.loading import workdir_of
from ldm_jax.convert.native import read_trained
from ldm_jax.convert.other_kinds import check_kind, read_saved
from ldm_jax.convert.state_dicts import is_finite
from ldm_jax.core.reading import FileFormatError, map_file, parse_json, shown
from ldm_jax.core.stores import as_path
from ldm_jax.images.infotext import read_png

PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")
"""What files of PNG, JPEG and WebP begin with."""
CHUNK = "sd-ti-embedding"
"""The PNG's text chunk with an embedding."""
KOHYA = "emb_params"
STAR = "*"
"""The word of embeddings that are called as their files."""
UNNAMED = ("learned_embeds", "embeddings", "embedding")
"""Names of files that say nothing of what is in them."""
_XL = (
    "{} holds clip_l and clip_g, the vectors of an embedding for SDXL, which has two text "
    "encoders; the models here have one. Use an embedding for Stable Diffusion 1 or 2"
)


def read_embeddings(path: str | Path) -> tuple[Embedding, ...]:
    """The embeddings in a file, in its order; nothing in it is run.

    Args:
        path: a file of safetensors, of torch, or a PNG; or the work directory of a run that trains
            words. One embedding without a word of its own is called as the file.

    Raises:
        ConvertError, FileFormatError: the file is damaged or holds something else, which is said.
    """
    path = as_path(path)
    if is_run(path):
        return _of_run(path)
    data = map_file(path)
    start = data[:512]
    data.close()
    return _of_picture(path) if start.startswith(PICTURES) else _of_saved(path)


def bundled_embeddings(where: str, tensors: Mapping[str, np.ndarray]) -> tuple[Embedding, ...]:
    """Those that an adapter brings along (`Adapter.embeddings`). Raises ConvertError for tensors
    that are none."""
    found: dict[str, list[np.ndarray]] = {}
    for key, tensor in tensors.items():
        name = embedding_of(key)
        found.setdefault(name, []).append(_rows(where, key, tensor))
    return tuple(Embedding(name, _joined(where, name, all_)) for name, all_ in found.items())


def check_width(where: str, one: Embedding, width: int) -> None:
    """Raises ConvertError for an embedding that a text encoder of this width cannot take."""
    if one.width != width:
        of = FAMILIES.get(one.width, "another model")
        wanted = FAMILIES.get(width, "this model")
        raise ConvertError(
            f"{where}: the embedding {shown(one.name)} has vectors of width {one.width} ({of}), "
            f"but the text encoder's width is {width} ({wanted}); use one that was made for it"
        )


# ----------------------------------------------------------------------------------------- forms


def _of_run(path: Path) -> tuple[Embedding, ...]:
    workdir, step = workdir_of(path)
    run, params, origin = read_trained(workdir, step=step)
    if not isinstance(getattr(run, "adapter", None), cfg.TextualInversion):
        raise ConvertError(f"{path} is the work directory of a run that trains no new words")
    rows = params["conditioners"][TEXT][ADAPTERS][EMBEDDINGS]
    return tuple(
        Embedding(word, np.asarray(rows[word]), step=origin["step"]) for word in run.adapter.words
    )


def _of_picture(path: Path) -> tuple[Embedding, ...]:
    chunks = read_png(path)
    if CHUNK not in chunks:
        raise FileFormatError(
            path,
            f"has no text {CHUNK!r}; an embedding that is hidden in pixels is not read: load it in "
            "the web UI, which hid it, and save it as .pt or .safetensors",
        )
    try:
        text = base64.b64decode(chunks[CHUNK], validate=True)
    except (binascii.Error, ValueError) as error:
        raise FileFormatError(path, f"its text {CHUNK!r} is damaged: not base64") from error
    found = parse_json(path, f"its text {CHUNK!r}", text)
    params = found.get("string_to_param")
    if not isinstance(params, dict):
        raise FileFormatError(path, f"its text {CHUNK!r} has no string_to_param")
    arrays = {word: _of_json(path, word, one) for word, one in params.items()}
    name = found.get("name")
    return _words(path, arrays, name if isinstance(name, str) and name else path.stem, found)


def _of_json(path: Path, word: str, one: Any) -> np.ndarray:
    numbers = one.get("TORCHTENSOR") if isinstance(one, dict) else None
    try:
        return np.asarray(numbers, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise FileFormatError(path, f"its vectors of {shown(word)} are no numbers") from error


def _of_saved(path: Path) -> tuple[Embedding, ...]:
    saved, _ = read_saved(path)
    if isinstance(saved, np.ndarray):
        return (Embedding(path.stem, _rows(str(path), "its tensor", saved)),)
    if isinstance(saved, dict) and (bundled := _bundled(saved)):
        return bundled_embeddings(str(path), bundled)
    check_kind(path, saved, "embedding")
    if not isinstance(saved, dict) or not all(isinstance(key, str) for key in saved):
        raise ConvertError(f"{path} is no embedding: {_WANTED}")
    if "string_to_param" not in saved:
        return _of_tensors(path, saved)
    params = saved["string_to_param"]
    if isinstance(params, dict):  # of a torch.nn.ParameterDict, its attributes
        params = params.get("_parameters", params)
    if not isinstance(params, dict):
        raise ConvertError(f"{path}: its string_to_param is no dict of tensors")
    return _words(path, params, path.stem, saved)


_WANTED = (
    "a tensor, a dict of words and their vectors, string_to_param, emb_params, or a PNG of the web "
    "UI is wanted"
)


def _bundled(saved: Mapping[Any, Any]) -> dict[str, Any]:
    return {key: tensor for key, tensor in saved.items()
            if isinstance(key, str) and embedding_of(key) is not None}  # fmt: skip


def _of_tensors(path: Path, tensors: Mapping[str, Any]) -> tuple[Embedding, ...]:
    """diffusers' words, or kohya's one."""
    if {"clip_l", "clip_g"} & tensors.keys():
        raise ConvertError(_XL.format(path))
    if tensors.keys() == {KOHYA}:
        return _words(path, {STAR: tensors[KOHYA]}, path.stem, {})
    if not tensors:
        raise ConvertError(f"{path} is empty: {_WANTED}")
    for key in tensors:
        if key.endswith((".weight", ".bias", ".alpha")):
            raise ConvertError(
                f"{path} is no embedding: it has {shown(key)}, of a model or an adapter"
            )
    return _words(path, tensors, path.stem, {})


# --------------------------------------------------------------------------------------- vectors


def _words(
    path: Path, tensors: Mapping[Any, Any], name: str, about: Mapping[str, Any]
) -> tuple[Embedding, ...]:
    """An embedding of each word; one whose word says nothing is called `name`."""
    for word in tensors:
        if not isinstance(word, str) or not word.strip() or not word.isprintable():
            raise ConvertError(f"{path}: {shown(word)} is no word that a prompt may have in it")
    rows = {word: _rows(str(path), word, tensor) for word, tensor in tensors.items()}
    if not rows:
        raise ConvertError(f"{path} has no vectors: {_WANTED}")
    step = about.get("step")
    step = step if type(step) is int else None
    if len(rows) > 1:
        return tuple(Embedding(word, array, step=step) for word, array in rows.items())
    ((word, array),) = rows.items()
    if word == STAR:
        return (Embedding(name, array, step=step),)
    alias = None if name == word or name in UNNAMED else name
    return (Embedding(word, array, alias, step),)


def _rows(where: str, key: str, tensor: Any) -> np.ndarray:
    """Vectors one below the other; a single one may stand alone."""
    if not isinstance(tensor, np.ndarray):
        raise ConvertError(
            f"{where}: {shown(key)} is no tensor but a {type(tensor).__name__}: {_WANTED}"
        )
    if tensor.ndim not in (1, 2) or 0 in tensor.shape or not _is_real(tensor):
        raise ConvertError(
            f"{where}: {shown(key)} is of {tensor.dtype} {list(tensor.shape)}; an embedding has "
            "vectors of real numbers, [width] or [vectors, width]"
        )
    if not is_finite(tensor):
        raise ConvertError(f"{where}: {shown(key)} has numbers that are not finite")
    return tensor.reshape(-1, tensor.shape[-1])


def _is_real(tensor: np.ndarray) -> bool:
    return tensor.dtype.kind == "f" or tensor.dtype.name == "bfloat16"


def _joined(where: str, name: str, arrays: list[np.ndarray]) -> np.ndarray:
    if len(arrays) > 1:
        raise ConvertError(
            f"{where}: the embedding {shown(name)} has {len(arrays)} tensors of vectors; one is "
            "wanted"
        )
    return arrays[0]
