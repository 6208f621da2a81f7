"""What files of adapters, embeddings, hypernetworks and ControlNets have in common in the corpus of
`convert/test_adapter_corpus.py`: how they are written, and how any file may be damaged."""

import json
import os
import pickle
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch_zips

from ldm_jax.formats.safetensors_file import write_safetensors
from ldm_jax.formats.torch_writer import write_torch

Make = Callable[[Path], Path]
"""Writes a file, or a folder, into a folder, and returns its path."""
Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A file, or a folder."""

    make: Make
    words: str | None = None
    """Of its refusal; None where it is read."""
    expected: Callable[[], Arrays] | None = None
    """What it is read as; None for what the clean file is."""


def safetensors(tensors: Arrays, name: str = "a.safetensors", **metadata: str) -> Make:
    def make(folder: Path) -> Path:
        arrays = {key: np.asarray(array) for key, array in tensors.items()}
        write_safetensors(folder / name, arrays, metadata)
        return folder / name

    return make


def unsorted_safetensors(tensors: Arrays) -> Make:
    """In the order of `tensors` and without padding, as `write_safetensors` does not write."""
    names = {np.float32: "F32", np.float16: "F16", ml_dtypes.bfloat16: "BF16", np.int64: "I64"}
    names = {np.dtype(dtype): name for dtype, name in names.items()}
    header, end = {}, 0
    for key, array in tensors.items():
        begin, end = end, end + array.nbytes
        offsets = {"data_offsets": [begin, end]}
        header[key] = {"dtype": names[array.dtype], "shape": array.shape} | offsets
    text = json.dumps(header).encode()
    data = b"".join(array.tobytes() for array in tensors.values())
    return content(struct.pack("<Q", len(text)) + text + data)


def torch_file(tensors: Arrays, name: str = "a.pt", outer: str = "", old: bool = False) -> Make:
    """A dict of tensors as torch writes it, or as torch before 1.6 did."""
    stored = {str(n): np.asarray(array, order="C") for n, array in enumerate(tensors.values())}
    value = torch_zips.mapping(
        {key: torch_zips.whole(*one) for key, one in zip(tensors, stored.items(), strict=True)}
    )
    if outer:
        value = torch_zips.mapping({outer: value})
    write = torch_zips.write_old if old else torch_zips.write
    return lambda folder: write(folder / name, value, stored)


def saved(value: Any, name: str = "a.pt") -> Make:
    """Any value, as torch writes it."""

    def make(folder: Path) -> Path:
        write_torch(folder / name, value)
        return folder / name

    return make


def content(data: bytes | str, name: str = "a.safetensors") -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
        return folder / name

    return make


def _cut(whole: Make, kept: int | float) -> Make:
    """The beginning of a file: so many bytes, or such a share of them, or all but so many."""

    def make(folder: Path) -> Path:
        path = whole(folder)
        data = path.read_bytes()
        path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
        return path

    return make


class _Code:
    """What runs when Python's own reader of pickles reads it."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch touched",)


def _zipped_code(folder: Path) -> Path:
    program = torch_zips.call("posix.system", torch_zips.text("touch touched"))
    return torch_zips.write(folder / "a.pt", torch_zips.mapping({"a": program}))


def _arrays(folder: Path) -> Path:
    np.savez(folder / "a.npz", a=np.ones(3))
    return folder / "a.npz"


def damaged(clean: Make) -> dict[str, Case]:
    """Files that are cut short, something else altogether, or not there."""
    page = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    return {
        "empty": Case(content(b""), "is empty; copy or download it again"),
        "text": Case(content("a cat, a dog, and a mouse"), "neither a safetensors file nor one of"),
        "zeros": Case(content(bytes(1000), "a.bin"), "neither a safetensors file nor one of"),
        "page": Case(content(page), "is a page that was saved under this name"),
        "page as .pt": Case(content(page, "a.pt"), "is a page that was saved under this name"),
        "message in JSON": Case(content('{"error": "gated"}'), "is JSON, an index or a message"),
        "pointer": Case(content(pointer, "a.pt"), "Git LFS in place of the weights"),
        "folder": Case(lambda folder: folder, "is a folder; name|a folder with .* is wanted"),
        "absent": Case(lambda folder: folder / "no.pt", "does not exist"),
        "first byte": Case(_cut(clean, 1), "truncated"),
        "sixty bytes": Case(_cut(clean, 60), "truncated"),
        "first half": Case(_cut(clean, 0.5), "truncated"),
        "without its last byte": Case(_cut(clean, -1), "truncated"),
        "code in a zip": Case(_zipped_code, "asks for 'posix.system', which is not allowed"),
        "code": Case(
            content(pickle.dumps({"a": _Code()}, 2), "a.pt"), "asks for 'posix.system', which is no"
        ),
        "list": Case(saved([1, "a"]), "holds a list, not a dict of tensors|is no [eh]"),
        "arrays of NumPy": Case(_arrays, "without the one data.pkl that torch.save writes"),
    }
