"""How much one request may ask for, and how many may wait."""

from dataclasses import dataclass
from typing import Annotated

from ldm_jax.config.checks import Within, check_fields
from ldm_jax.config.request import Request
from ldm_jax.web.refused import Refused

MAX_TEXT = 20_000
"""Characters of all prompts of a request, and of its negative prompt, at most."""


@dataclass(frozen=True)
class Limits:
    """Beyond these a request is refused, with the limit's name."""

    max_pictures: Annotated[int, Within(1, 2**16)] = 100
    """Pictures of one request."""
    max_steps: Annotated[int, Within(1, 100_000)] = 1000
    """Steps of one picture, those of resampling and correctors included."""
    max_pixels: Annotated[int, Within(2**8, 2**28)] = 2**24
    """Pixels of a picture that is sent, and of all pictures that are drawn at a time."""
    max_queue: Annotated[int, Within(1, 100_000)] = 100
    """Requests that wait to be drawn."""
    max_body: Annotated[int, Within(2**10, 2**31)] = 64 * 2**20
    """Bytes of a request's body."""
    body_seconds: Annotated[float, Within(0.1, 3600.0)] = 30.0
    """Seconds that a client has to send a request."""
    max_connections: Annotated[int, Within(8, 10_000)] = 256
    """Connections at a time, open pages included."""

    def __post_init__(self) -> None:
        check_fields(self, "")

    def check(self, request: Request) -> None:
        """Raises Refused (422), naming the field, for more than is allowed."""
        sampling = request.sampling
        for name, texts in (
            ("prompt", request.prompt), ("negative_prompt", (request.negative_prompt or "",))
        ):  # fmt: skip
            length = sum(map(len, texts))
            if length > MAX_TEXT:
                raise Refused(422, (name, f"{name} has {length} characters; it must have at most "
                                    f"{MAX_TEXT}"))  # fmt: skip
        count = len(request.conditions) * request.num
        self._most("num", count, "max_pictures", "pictures of one request")
        steps = (sampling.visited or 1) * sampling.resample * (1 + (sampling.corrector_steps or 0))
        self._most("steps", steps, "max_steps", "steps of a picture")
        # Sides that are not given are the model's own.
        if sampling.height and sampling.width:
            pixels = sampling.height * sampling.width * (sampling.batch_size or 1)
            self._most("height", pixels, "max_pixels", "pixels that are drawn at a time")

    def _most(self, field: str, value: int, name: str, what: str) -> None:
        most = getattr(self, name)
        if value > most:
            raise Refused(422, (field, f"{field}: these are {value} {what}; at most {most} are "
                                f"allowed here ({name})"))  # fmt: skip
