"""Files that a model is conditioned on, as data: told apart by what is in them, looked at, and kept
byte for byte, so that they are read as the command line reads them."""

import io
from dataclasses import dataclass

from PIL import Image

from ldm_jax.core.reading import FileFormatError, parse_json
from ldm_jax.web.pictures import FORMATS, decode_base64, open_sent
from ldm_jax.web.refused import Refused

MEDIA_TYPES = {
    ".png": "image/png", ".jpeg": "image/jpeg", ".webp": "image/webp", ".json": "application/json",
    ".npy": "application/octet-stream",
}  # fmt: skip
"""Of files that are kept, by what their names end in."""
_NPY = b"\x93NUMPY"


@dataclass(frozen=True)
class SentFile:
    """One file."""

    data: bytes
    suffix: str
    """A key of `MEDIA_TYPES`."""


def sent_file_of(data: object, field: str, most: int) -> SentFile:
    """The file that a data URL, or plain base64, stands for: a picture of at most `most` pixels,
    an array of NumPy's, or JSON. Whether it fits a model, its reader says.

    Raises Refused (422).
    """
    content = decode_base64(data, field)
    if content.startswith(_NPY):
        return SentFile(content, ".npy")
    kind = _picture_format(content)
    if kind is not None:
        open_sent(content, field, most)
        return SentFile(content, f".{kind.lower()}")
    try:
        parse_json(field, "it", content)
    except FileFormatError as error:
        known = ", ".join(FORMATS)
        raise Refused(422, (field, f"{field} is no picture ({known}) and no .npy file; as JSON "
                            f"{error.args[1]}")) from error  # fmt: skip
    return SentFile(content, ".json")


def _picture_format(content: bytes) -> str | None:
    """Of those that may be sent; None for what is no such picture."""
    try:
        with Image.open(io.BytesIO(content), formats=[*FORMATS]) as image:
            return image.format
    except Exception:  # decoders of damaged files raise nearly anything
        return None
