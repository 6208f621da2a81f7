"""Tensors by name from whatever file holds them, told by its content: safetensors, torch, or a set
of several with an index."""

from pathlib import Path

import numpy as np

from ldm_jax.core.reading import FileFormatError, map_file, parse_json, shown
from ldm_jax.formats import pickles, torch_file, torch_old_file
from ldm_jax.formats.safetensors_file import looks_like_safetensors, read_safetensors

STATE_DICTS = ("state_dict", "model", "module", "model_state_dict")
"""Where training programs put a state dict among other things; the first that is there is meant."""
_MAX_INDEX = 64 * 2**20
_LISTED = 5


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors or torch file, by name; read-only views of the mapped file.

    A torch file is a state dict, or holds one under a name of `STATE_DICTS` beside things that are
    no tensors (step, callbacks, optimizer), which are left out. Inside a state dict everything is
    a tensor: also numbers are refused, for leaving one out would change the model.

    Raises:
        FileFormatError: the file is missing, damaged or of another format, or its state dict has
            an entry, which is named, that is not a tensor.
    """
    data = map_file(path)
    start = data[:512]
    data.close()
    if looks_like_safetensors(start):
        return read_safetensors(path)[0]
    if start.startswith(torch_file.MAGIC) or torch_old_file.is_old_format(start):
        return state_dict(path, torch_file.read_torch(path))
    raise FileFormatError(path, torch_file.what_else(start))


def state_dict(path: Path, saved: object) -> dict[str, np.ndarray]:
    """The tensors by name in what `torch_file.read_torch` read of `path`.

    Raises:
        FileFormatError: as `read_tensors`.
    """
    if not isinstance(saved, dict):
        raise FileFormatError(path, f"holds a {type(saved).__name__}, not a dict of tensors")
    tensors, where = saved, "it"
    while (inner := next((n for n in STATE_DICTS if _is_inner(tensors, n)), None)) is not None:
        beside = [name for name, value in tensors.items() if isinstance(value, np.ndarray)]
        if beside:
            raise FileFormatError(
                path, f"has tensors beside its {inner}: {_listed(beside)}; save one of the two"
            )
        tensors, where = tensors[inner], f"its {inner}"
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise FileFormatError(path, f"{where} has a name that is a {type(name).__name__}")
        if not isinstance(value, np.ndarray):
            what = repr(value) if isinstance(value, pickles.Placeholder) else type(value).__name__
            raise FileFormatError(
                path,
                f"{where} has, as {shown(name)}, a {what} and not a tensor; {pickles.ADVICE}",
            )
    return tensors


def _is_inner(saved: dict, name: str) -> bool:
    return name in saved and isinstance(saved[name], dict)


def read_sharded(index_path: Path) -> dict[str, np.ndarray]:
    """All tensors of a set of files, by name, from its index `*.index.json`:
    `{"weight_map": {name: file}}`.

    The files lie beside the index (there may be links to them). Each holds exactly the tensors
    that the index tells of it.

    Raises:
        FileFormatError: the index is damaged or names files elsewhere; a file is missing or
            damaged; a tensor, which is named, is missing or not in the index.
    """
    data = map_file(index_path)
    if len(data) > _MAX_INDEX:
        raise FileFormatError(index_path, f"has {len(data)} bytes, too many for an index")
    weight_map = parse_json(index_path, "it", data[:]).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FileFormatError(index_path, "has no weight_map of names to files")
    names: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or not _is_plain(file):
            raise FileFormatError(
                index_path, f"puts {shown(name)} into {shown(file)}, which is not the plain name "
                "of a file beside it"
            )  # fmt: skip
        names.setdefault(file, set()).add(name)

    tensors: dict[str, np.ndarray] = {}
    for file, told in names.items():
        path = index_path.with_name(file)
        found = read_tensors(path)
        if missing := sorted(told - found.keys()):
            raise FileFormatError(path, f"lacks {_listed(missing)}, told of by {index_path.name}")
        if extra := sorted(found.keys() - told):
            raise FileFormatError(path, f"has {_listed(extra)}, not told of by {index_path.name}")
        tensors |= found
    return {name: tensors[name] for name in weight_map}


def _is_plain(name: str) -> bool:
    return name.isprintable() and not set(name) & {"/", "\\"} and name not in ("", ".", "..")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(shown, names[:_LISTED])) + more
