"""What is refused, as every answer of the server has it: a status, and which field and why."""

import re
from collections.abc import Mapping
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse

from ldm_jax.config.request import settings
from ldm_jax.core.command import REFUSED, told
from ldm_jax.data.prompts import PromptError
from ldm_jax.data.unknown_words import UnknownWordsError
from ldm_jax.images.masks import MaskError

_FIRST = re.compile(r"(?:--)?(\w+)(?:[:=]| (?:is|are|needs?|has|must)\b| '[^']*')")
"""How sentences about a setting begin."""
_OPTION = re.compile(r"--(?:no-)?(\w+)")


class Refused(Exception):
    """A request that is not done; `errors` are pairs of the field's name, or None, and why."""

    def __init__(self, status: int, *errors: tuple[str | None, str]) -> None:
        super().__init__(status, errors)
        self.status, self.errors = status, errors

    def __str__(self) -> str:
        return "; ".join(message for _, message in self.errors)

    @property
    def body(self) -> dict[str, object]:
        """As JSON has it."""
        return {"errors": [{"field": field, "message": why} for field, why in self.errors]}

    @property
    def first(self) -> dict[str, str | None]:
        """The first of the errors as JSON has it."""
        field, message = self.errors[0]
        return {"field": field, "message": message}


def json_words(text: str) -> str:
    """What is allowed, in the words of JSON instead of Python's."""
    for python, json in (("a tuple", "a list"), ("True", "true"), ("False", "false"),
                         ("None", "null")):  # fmt: skip
        text = re.sub(rf"\b{python}\b", json, text)
    return text


def of_error(error: Exception, files: Mapping[str, Path] | None = None) -> Refused:
    """An error of the drawing code, in words for someone who has a form, not a command line: 422
    for what is refused, 500 for what failed on the way. `files` are those of the request, by their
    settings, which are named in the place of their paths."""
    status, message = told(error)
    field = field_of(error, message) if status == REFUSED else None
    named = {name: path for name, path in (files or {}).items() if str(path) in message}
    for path in {*named.values()}:  # one may have come for several settings
        message = message.replace(str(path), " or ".join(n for n in named if named[n] == path))
    if named:
        field = next(iter(named)) if len(named) == 1 else None
    said, sign, must = _OPTION.sub(r"\1", message).partition("; it must be ")
    return Refused(422 if status == REFUSED else 500, (field, said + sign + json_words(must)))


def field_of(error: Exception, message: str) -> str | None:
    """The setting that an error is about, if it is about one."""
    if isinstance(error, UnknownWordsError):
        negative = error.args[0] and error.args[0][0].place < 0
        return "negative_prompt" if negative else "prompt"
    if isinstance(error, PromptError):
        return "prompt"
    if isinstance(error, MaskError):
        return "mask" if "mask" in message else "init_image"
    if message.startswith(("<lora:", "<hypernet:")):
        return "prompt"
    if message.startswith("class "):
        return "classes"
    first = _FIRST.match(message)
    return first[1] if first and first[1] in settings() else None


async def answer(request: HttpRequest, error: Exception) -> JSONResponse:
    """The answer to a request that was refused, that no route takes, or that failed."""
    headers = None
    if isinstance(error, HTTPException):
        headers = error.headers
        words = {404: "there is nothing here", 405: f"{request.method} is not answered here"}
        error = Refused(error.status_code, (None, words.get(error.status_code, error.detail)))
    if not isinstance(error, Refused):
        error = of_error(error)
    return JSONResponse(error.body, error.status, headers)
