"""Models that a user names by their id on the Hugging Face hub; the only place that downloads."""

import re
from pathlib import Path

from ldm_jax.convert.imported_model import ConvertError

PREFIX = "hf:"
_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
PATTERNS = ["model_index.json", "*/*.json", "*/*.txt", "*/*.safetensors"]
"""What is fetched: configs, tokenizers and weights that are no pickles."""
NOT = ["*.fp16.*", "*non_ema*", "safety_checker/*", "image_encoder/*"]


def fetch(name: str) -> Path:
    """The folder with the files of `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`.

    What an earlier call brought is not fetched again.

    Raises:
        ConvertError: no such name, or the hub cannot be reached and the files are not here.
    """
    found = _ID.fullmatch(name.removeprefix(PREFIX))
    if found is None:
        raise ConvertError(f"{name} is not a model name of the hub; write {PREFIX}OWNER/NAME")
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            found["repo"], revision=found["revision"], allow_patterns=PATTERNS, ignore_patterns=NOT
        )
    except Exception as error:  # of many kinds: network, authorisation, names
        raise ConvertError(f"cannot fetch {name}: {error}") from error
    return Path(folder)
