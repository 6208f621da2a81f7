"""Folders of CLIP and of DINOv2 as transformers keeps them: `config.json`, the weights, and of CLIP
the tokenizer's files. Both are read; CLIP is written too."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import claims, imported_model, state_dicts
from ldm_jax.convert.clip.clip_settings import (
    read_clip_settings,
    read_dinov2_settings,
    write_clip_settings,
)
from ldm_jax.convert.diffusers.pipeline_folders import CONFIG, UNUSED, weights_file
from ldm_jax.convert.diffusers.text_encoders import as_text
from ldm_jax.convert.fields import Fields
from ldm_jax.convert.imported_model import ConvertError, Dtype
from ldm_jax.convert.model_folders import new_folder
from ldm_jax.core import tree
from ldm_jax.core.reading import read_json
from ldm_jax.core.stores import as_path, local_copy
from ldm_jax.data.tokenizer import (
    KNOWN_FILES,
    Tokenizer,
    TokenizerError,
    load_clip_tokenizer,
    load_tokenizer,
)
from ldm_jax.formats.model_files import read_sharded, read_tensors
from ldm_jax.formats.safetensors_file import write_safetensors
from ldm_jax.models.clip_model import CLIP
from ldm_jax.models.dinov2 import DINOv2
from ldm_jax.workdir.checkpoints import Checkpoints
from ldm_jax.workdir.layout import tokenizer_of
from ldm_jax.workdir.run_config import read_config

_DINOV2_UNUSED = ((r"(dinov2\.)?embeddings\.mask_token", "of the pretraining alone"),)
_DINOV2_NAMES = {
    "encoder.layer.": "encoder.layers.", ".attention.attention.query.": ".attention.q_proj.",
    ".attention.attention.key.": ".attention.k_proj.",
    ".attention.attention.value.": ".attention.v_proj.",
    ".attention.output.dense.": ".attention.out_proj.",
}  # fmt: skip
_RUN = "ContrastiveRun"
START_OF_TEXT = "<|startoftext|>"
TokenizerKind = Literal["word", "bpe", "clip"]
"""As `cfg.TextConditioner` has it."""


@dataclass(frozen=True)
class ImportedClip:
    """A CLIP in memory: float32 parameters as `models.clip_model.CLIP` has them."""

    config: cfg.CLIP
    params: dict[str, Any]
    tokenizer: Path | None
    """Folder with the tokenizer's files, or one `tokenizer.json`; None where there is none."""
    name: str
    notes: tuple[str, ...] = ()
    kind: TokenizerKind = "clip"
    """Of the tokenizer."""

    @property
    def weights_sha256(self) -> str:
        """`tree.fingerprint` of the parameters: the same from whatever files they came."""
        return tree.fingerprint(self.params)

    def text_encoder(self) -> tuple[cfg.TextConditioner, dict[str, Any], Path | None]:
        """The text encoder as a diffusion model is conditioned on it, its parameters, and the
        tokenizer."""
        params = {"text_model": self.params["text_model"]}
        return cfg.TextConditioner(self.config.text, self.kind), params, self.tokenizer

    def open_tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            ConvertError, TokenizerError: there is none, it cannot be read, or it has more tokens
                than the text encoder knows.
        """
        if self.tokenizer is None:
            raise ConvertError(
                f"{self.name} has no tokenizer; put its files into the folder: vocab.json and "
                "merges.txt, or tokenizer.json"
            )
        load = load_clip_tokenizer if self.kind == "clip" else load_tokenizer
        found = load(self.tokenizer)
        if found.vocab_size > self.config.text.vocab_size:
            raise TokenizerError(
                f"the tokenizer {self.tokenizer} has {found.vocab_size} tokens, but the text "
                f"encoder knows {self.config.text.vocab_size}; it is the tokenizer of another model"
            )
        return found


@dataclass(frozen=True)
class ImportedDINOv2:
    """A DINOv2 in memory: float32 parameters as `models.dinov2.DINOv2` has them."""

    config: cfg.DINOv2
    params: dict[str, Any]
    name: str
    notes: tuple[str, ...] = ()

    @property
    def weights_sha256(self) -> str:
        """`tree.fingerprint` of the parameters: the same from whatever files they came."""
        return tree.fingerprint(self.params)


def tokenizer_kind(path: Path) -> TokenizerKind:
    """Which tokenizer the files in a folder, or the one `tokenizer.json`, are of.

    Raises:
        FileFormatError: the file is damaged.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        return "clip"
    found = read_json(file)
    model = found.get("model")
    model = model if isinstance(model, dict) else {}
    if START_OF_TEXT in model.get("vocab", ()):
        return "clip"
    return "word" if model.get("type") == "WordLevel" else "bpe"


def is_clip(path: Path) -> bool:
    """Whether `path` is a folder of a whole CLIP, or the work directory of a run that trains
    one."""
    file = path / CONFIG
    if not file.is_file():
        return False
    found = read_json(file)
    return found.get("model_type") == "clip" or found.get("type") == _RUN


def read_clip(path: str | Path, variant: str | None = None) -> ImportedClip:
    """The CLIP of a folder as transformers saves it, or of a work directory's newest checkpoint,
    the averages where it keeps them.

    Args:
        path: the folder.
        variant: of a folder, reads `*.VARIANT.safetensors` in place of `*.safetensors`.

    Raises:
        ConvertError, FileFormatError: names the file, and what in it is missing, damaged,
            unexpected or not supported.
        ValueError, OSError: a work directory without a checkpoint, or a damaged one.
    """
    path = as_path(path)
    fields = Fields.read(path / CONFIG)
    if fields.get("type", None) == _RUN:
        return _of_workdir(path)
    with fields.naming():
        config = read_clip_settings(fields)
    params, notes = _weights(path, config, variant, clip_shapes(config), UNUSED[:1])
    tokenizer = _tokenizer(path)
    kind: TokenizerKind = "clip" if tokenizer is None else tokenizer_kind(tokenizer)
    return ImportedClip(config, params, tokenizer, str(path), notes, kind)


def _of_workdir(path: Path) -> ImportedClip:
    run = read_config(path)
    weights = "raw" if run.optim.ema_decay is None else "ema"
    _, params = Checkpoints.load_params(path, weights, None)
    params = jax.tree.map(np.asarray, params)
    return ImportedClip(run.clip, params, tokenizer_of(path), str(path), kind=run.tokenizer)


def read_dinov2(path: str | Path, variant: str | None = None) -> ImportedDINOv2:
    """The DINOv2 of a folder as transformers saves it, without what it has for pretraining alone.

    Arguments and errors as of `read_clip`.
    """
    path = as_path(path)
    fields = Fields.read(path / CONFIG)
    with fields.naming():
        config = read_dinov2_settings(fields)
    shapes = dinov2_shapes(config)
    params, notes = _weights(path, config, variant, shapes, _DINOV2_UNUSED, _of_dinov2)
    return ImportedDINOv2(config, params, str(path), notes)


def _weights(
    path: Path, config: Any, variant: str | None, shapes: Any, unused: Any, spelled: Any = str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """All parameters of a folder, and notes."""
    file, notes = weights_file(path, variant)
    tensors = read_sharded(file) if file.suffix == ".json" else read_tensors(file)
    claims.check(config, tensors, str(path / CONFIG))
    params, _ = state_dicts.from_torch(tensors, shapes, str(file), unused, spelled)
    return imported_model.materialize(params), notes


def _of_dinov2(name: str) -> str:
    """Our name of what a file calls `name`."""
    name = name.removeprefix("dinov2.")
    for theirs, ours in _DINOV2_NAMES.items():
        name = name.replace(theirs, ours)
    return name


def _tokenizer(path: Path) -> Path | None:
    """The folder, if it has the files of a tokenizer."""
    files = ("tokenizer.json", "vocab.json")
    return path if any((path / name).is_file() for name in files) else None


@lru_cache(maxsize=4)
def clip_shapes(config: cfg.CLIP) -> dict[str, Any]:
    """Shapes of a CLIP's parameters."""
    side, length = config.vision.image_size, config.text.max_length
    pixels = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    tokens = jax.ShapeDtypeStruct((1, length), jnp.int32)
    return jax.eval_shape(CLIP(config).init, jax.random.key(0), pixels, tokens)["params"]


@lru_cache(maxsize=4)
def dinov2_shapes(config: cfg.DINOv2) -> dict[str, Any]:
    """Shapes of a DINOv2's parameters."""
    pixels = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), jnp.float32)
    return jax.eval_shape(DINOv2(config).init, jax.random.key(0), pixels)["params"]


def write_clip(
    clip: ImportedClip, path: str | Path, *, dtype: Dtype = None, overwrite: bool = False
) -> None:
    """Writes a folder that transformers' `CLIPModel` loads, whole or not at all.

    Raises:
        ConvertError: `path` exists, a weight is too large for `dtype`, or the model adds a bias to
            its similarities, which transformers' has not.
    """
    if clip.config.logit_bias:
        raise ConvertError(
            f"{clip.name} was trained with the sigmoid loss and adds a bias to its similarities, "
            "which transformers' CLIPModel has not; it is used from where it is"
        )
    settings = write_clip_settings(clip.config, clip.open_tokenizer())
    tensors: Mapping[str, np.ndarray] = state_dicts.to_torch(clip.params)
    with new_folder(as_path(path), overwrite) as folder:
        (folder / CONFIG).write_bytes(as_text(settings))
        write_safetensors(
            folder / "model.safetensors", imported_model.cast(tensors, dtype), {"format": "pt"}
        )
        _copy_tokenizer(clip.tokenizer, folder)


def _copy_tokenizer(source: Path, folder: Path) -> None:
    """A tokenizer's files beside the weights."""
    files = [source / name for name in KNOWN_FILES] if source.is_dir() else [source]
    for file in files:
        if file.is_file():
            shutil.copyfile(local_copy(file), folder / file.name)
