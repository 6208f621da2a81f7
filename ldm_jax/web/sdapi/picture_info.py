"""What a picture says of itself, as png-info tells it."""

from pathlib import Path
from typing import Any

from ldm_jax.core.reading import FileFormatError
from ldm_jax.images import infotext
from ldm_jax.web.pictures import decode_base64, sent_file
from ldm_jax.web.refusals import Refused


def info_of(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The text of a PNG in base64, the rest of what it says, and its settings one by one; `folder`
    is where it may be laid for a moment. Raises Refused (422)."""
    data = decode_base64(given.get("image"), "image")
    try:
        with sent_file(data, folder) as path:
            items = infotext.read_png(path)
    except FileFormatError as error:
        raise Refused(422, ("image", f"image {error.args[1]}")) from error
    text = items.pop(infotext.CHUNK, "")
    return {"info": text, "items": items, "parameters": _parameters(text)}


def _parameters(text: str) -> dict[str, Any]:
    if not text:
        return {}
    info = infotext.parse_parameters(text)
    found: dict[str, Any] = {"Prompt": info.prompt, "Negative prompt": info.negative_prompt}
    found |= info.settings
    if "Size" in info.settings:
        width, _, height = info.settings["Size"].partition("x")
        found |= {"Size-1": width, "Size-2": height}
    return found
