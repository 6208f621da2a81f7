"""The corpus' files of embeddings: three vectors for the word `cat`."""

import base64
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch_zips
from corpus import Case, Make, safetensors, saved, torch_file
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldm_jax.convert.embeddings.embedding_files import CHUNK, read_embeddings

VECTORS = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
NOT_FINITE = "has numbers that are not finite"


def read(path: Path) -> dict[str, np.ndarray]:
    return {one.name: np.asarray(one.vectors, np.float32) for one in read_embeddings(path)}


def clean() -> dict[str, np.ndarray]:
    return {"cat": VECTORS}


def kohya(vectors: Any, name: str = "cat.safetensors") -> Make:
    return safetensors({"emb_params": vectors}, name)


def a1111(params: Any, **more: Any) -> Make:
    return saved({"string_to_param": params} | more, "cat.pt")


def png(found: Any, name: str = "cat.png") -> Make:
    """A picture of the web UI with an embedding in its text."""

    def make(folder: Path) -> Path:
        text = found if isinstance(found, str) else base64.b64encode(json.dumps(found).encode())
        info = PngInfo()
        if text:
            info.add_text(CHUNK, text)
        Image.new("RGB", (4, 4)).save(folder / name, pnginfo=info)
        return folder / name

    return make


def parameter_dict(attributes: bytes | None = None) -> Make:
    """As rinongal's program saves it: an object of torch's, with parameters among its attributes"""
    parameter = torch_zips.call(
        "torch._utils._rebuild_parameter", torch_zips.whole("0", VECTORS), b"\x88",
        torch_zips.call("collections.OrderedDict"),
    )  # fmt: skip
    state = torch_zips.mapping({
        "training": b"\x88", "_modules": b"}", "_keys": b"}",
        "_parameters": torch_zips.mapping({"*": parameter}, ordered=True),
    })  # fmt: skip
    name = torch_zips.name("torch.nn.modules.container.ParameterDict")
    made = name + b")\x81" + (state if attributes is None else attributes) + b"b"
    value = torch_zips.mapping({"string_to_param": made})
    return lambda folder: torch_zips.write(folder / "cat.pt", value, {"0": VECTORS})


CASES = {
    "clean": Case(kohya(VECTORS)),
    **{
        f"in {np.dtype(dtype)}": Case(
            kohya(VECTORS.astype(dtype)),
            expected=lambda dtype=dtype: {"cat": VECTORS.astype(dtype).astype(np.float32)},
        )
        for dtype in (np.float16, ml_dtypes.bfloat16, np.float64)
    },
    "torch before 1.6": Case(torch_file({"cat": VECTORS}, "other.bin", old=True)),
    "safetensors called .pt": Case(kohya(VECTORS, "cat.pt")),
    "one vector": Case(kohya(VECTORS[0]), expected=lambda: {"cat": VECTORS[:1]}),
    "an optimizer beside it": Case(a1111({"*": VECTORS}, hash="ab", optimizer_state_dict={})),
    "SDXL": Case(safetensors({"clip_l": VECTORS, "clip_g": VECTORS}), "an embedding for SDXL, whi"),
    "SD 3": Case(safetensors(dict.fromkeys(("clip_l", "clip_g", "t5xxl"), VECTORS)), "for SDXL"),
    "hidden in pixels": Case(png(""), "hidden in pixels is not read: load it in the web UI"),
    "not base64": Case(png("?"), "is damaged: not base64"),
    "no numbers": Case(png({"string_to_param": {"*": {"TORCHTENSOR": ["a"]}}}), "are no numbers"),
    "PNG without vectors": Case(png({"step": 1}), "has no string_to_param"),
    "three axes": Case(kohya(VECTORS[None]), r"is of float32 \[1, 3, 8\]; an embedding has vector"),
    "a number": Case(kohya(np.float32(1)), r"is of float32 \[\]; an embedding has vectors of real"),
    "no vectors": Case(kohya(VECTORS[:0]), r"is of float32 \[0, 8\]; an embedding has vectors"),
    "whole numbers": Case(kohya(np.ones((1, 8), np.int32)), "is of int32 .* vectors of real numbe"),
    "complex numbers": Case(kohya(np.ones((1, 8), np.complex64)), "is of complex64"),
    "not a number": Case(kohya(VECTORS * np.nan), NOT_FINITE),
    "too large": Case(kohya(np.full((1, 8), 1e300)), NOT_FINITE),
    "nothing in torch's": Case(saved({}), "is empty: a tensor, a dict of words"),
    "nothing in safetensors": Case(safetensors({}), "is empty: a tensor, a dict of words"),
    "no word": Case(a1111({}), "has no vectors: a tensor, a dict of words"),
    "a list of words": Case(a1111([VECTORS]), "its string_to_param is no dict of tensors"),
    "text": Case(saved({"cat": "meow"}), "'cat' is no tensor but a str"),
    "None": Case(a1111({"*": None}), "is no tensor but a NoneType"),
    "state of another kind": Case(parameter_dict(b"K\x01"), "sets the state of a Record"),
    "a number as its word": Case(a1111({265: VECTORS}), "int is no word that a prompt may have"),
    "lines as its word": Case(safetensors({"a\nb": VECTORS}), "is no word that a prompt may have"),
    "nameless": Case(safetensors({"": VECTORS}), "'' is no word that a prompt may have in it"),
    "a layer": Case(safetensors({"conv_in.weight": VECTORS}), "has 'conv_in.weight', of a model o"),
}  # fmt: skip
