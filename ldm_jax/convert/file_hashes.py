"""Short hashes by which files of adapters are known, as AUTOMATIC1111's web UI writes them."""

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

from ldm_jax.convert.adapters.adapter_files import DIFFUSERS_FILES, PEFT_FILES, read_metadata
from ldm_jax.core.reading import FileFormatError, open_file
from ldm_jax.formats.safetensors_file import looks_like_safetensors

Kind = Literal["lora", "hypernetwork", "embeddings", "control"]
LENGTHS = {"lora": 12, "hypernetwork": 10, "embeddings": 12, "control": 12}
"""Hexadecimal digits of each kind's."""
WEIGHTS = (
    *PEFT_FILES, *DIFFUSERS_FILES,
    *(f"diffusion_pytorch_model.{end}" for end in ("safetensors", "bin")),
)  # fmt: skip
"""What a folder is known by: the first of these that is in it."""
_DIGEST = re.compile(r"(0x)?[0-9a-f]{12,64}")


def short_hash(path: Path, kind: Kind) -> str | None:
    """The beginning of a file's SHA-256; of an adapter's safetensors file what its metadata say
    (`sshs_model_hash`), or else that of all behind the header, which stays where metadata change;
    of a folder, that of its weights. None is for folders without, and for files that cannot be
    read."""
    if path.is_dir():
        path = next((path / name for name in WEIGHTS if (path / name).is_file()), path)
    try:
        changed = path.stat()
        return _hash(path, kind, changed.st_mtime_ns, changed.st_size) if path.is_file() else None
    except (OSError, FileFormatError):
        return None


@lru_cache(maxsize=1000)
def _hash(path: Path, kind: Kind, mtime: int, size: int) -> str:
    skipped = 0
    with open_file(path) as file:
        start = file.read(9)
        if kind == "lora" and looks_like_safetensors(start):
            said = read_metadata(path).get("sshs_model_hash", "")
            if _DIGEST.fullmatch(said):
                return said.removeprefix("0x")[: LENGTHS[kind]]
            skipped = 8 + int.from_bytes(start[:8], "little")
        file.seek(skipped)
        return hashlib.file_digest(file, "sha256").hexdigest()[: LENGTHS[kind]]
