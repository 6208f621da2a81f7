"""Bodies of requests: read within limits of size and time, and taken for strict JSON."""

import asyncio
import math
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from ldm_jax.core.reading import FileFormatError, parse_json
from ldm_jax.web.limits import Limits
from ldm_jax.web.refused import Refused

Json = dict[str, Any]


async def read_bytes(request: HttpRequest) -> bytes:
    """The whole body.

    Raises Refused: 413 for more than is allowed, 408 for one that does not come in time, 400 where
    the client has gone.
    """
    limits: Limits = request.app.state.limits
    try:
        length = int(request.headers.get("content-length", 0))
    except ValueError:
        length = 0
    _check_size(length, limits)
    content = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                content += part
                _check_size(len(content), limits)
    except TimeoutError as error:
        raise Refused(408, (None, f"the request did not come whole in {limits.body_seconds:g} "
                            "seconds"))  from error  # fmt: skip
    except ClientDisconnect as error:
        raise Refused(400, (None, "the client went away")) from error
    return bytes(content)


async def read_json(request: HttpRequest) -> Json:
    """The JSON object in the body; an empty body is an empty one. Raises Refused: as `read_bytes`,
    or 400 for what is no JSON object, or has numbers that JSON does not have."""
    data = await read_bytes(request)
    return await asyncio.to_thread(parse, data) if data.strip() else {}


def parse(data: bytes) -> Json:
    """The JSON object in `data`; raises Refused (400)."""
    try:
        found = parse_json("body", "it", data)
    except FileFormatError as error:
        raise Refused(400, (None, f"the body is refused: {error.args[1]}")) from error
    if not _finite(found):
        raise Refused(400, (None, "the body has NaN or Infinity, which JSON does not have"))
    return found


def allow_only(body: Json, *fields: str) -> None:
    """Raises Refused (422) naming every field that is none of `fields`."""
    wrong = [name for name in body if name not in fields]
    if wrong:
        raise Refused(422, *((name[:80], f"{name[:80]!r} is no field here; these are "
                              f"{', '.join(fields)}") for name in wrong))  # fmt: skip


def text_of(body: Json, field: str, default: str | None = None) -> str:
    """The text in a field; raises Refused (422)."""
    value = body.get(field, default)
    if not isinstance(value, str):
        raise Refused(422, (field, f"{field} must be text"))
    return value


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.max_body:
        raise Refused(413, (None, f"the request has more than the {limits.max_body} bytes that are "
                            "allowed here (max_body)"))  # fmt: skip


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
