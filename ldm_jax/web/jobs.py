"""A job: what is to be drawn for one client, and how far it has come."""

import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from ldm_jax.config.request import Request, paths
from ldm_jax.web.refused import Refused

Stage = Literal[
    "queued", "loading", "compiling", "drawing", "decoding", "done", "stopped", "failed"
]
ENDED = ("done", "stopped", "failed")


@dataclass(eq=False)
class Job:
    """Only the worker changes a job that has begun; all else reads it under the worker's lock."""

    model: str
    """The name of the model."""
    requests: tuple[Request, ...]
    """Drawn one after the other; without any the model is only loaded."""
    save: bool = True
    """Whether the pictures are written into the gallery."""
    keep: bool = False
    """Whether the pictures' files are kept in memory, for whoever waits for them."""
    optional: tuple[str, ...] = ()
    """Settings that a model which does not have them is drawn without."""
    group: str | None = None
    """Of jobs that belong together."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    stage: Stage = "queued"
    steps_done: int = 0
    steps: int | None = None
    pictures_done: int = 0
    seconds_left: float | None = None
    preview: int = 0
    """How many previews there were."""
    preview_png: bytes | None = None
    files: list[str] = field(default_factory=list)
    drawn: list[tuple[bytes, Request, str | None]] = field(default_factory=list)
    """With `keep`: each picture's file, its request with usual values filled in, and, of one with
    a caption, the web UI's text."""
    refused: Refused | None = None
    """Why it failed."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what was done in another way than it was asked for."""
    begun: float | None = None
    """When drawing began, on the monotonic clock."""
    stop: bool = False
    skip: bool = False
    ended: threading.Event = field(default_factory=threading.Event)
    created: float = field(default_factory=time.time)

    @property
    def pictures(self) -> int:
        """How many pictures were asked for."""
        return sum(len(request.conditions) * request.num for request in self.requests)

    @property
    def draws(self) -> bool:
        """Whether anybody asked for pictures."""
        return bool(self.requests)

    @property
    def fraction(self) -> float:
        """How much of it is done, from 0 to 1."""
        if self.stage in ENDED:
            return 1.0
        of_steps = self.steps_done / self.steps if self.steps else 0.0
        return min(1.0, max(of_steps, self.pictures_done / max(1, self.pictures)))

    def to_json(self, waits_for: str | None = None) -> dict[str, Any]:
        """As JSON has it, with what a job that has not begun waits for. Paths, which are this
        machine's, are left out."""
        request = self.requests[0].to_dict() if self.requests else {}
        return {
            "id": self.id, "model": self.model, "stage": self.stage, "ended": self.stage in ENDED,
            "group": self.group, "created": self.created,
            "steps_done": self.steps_done, "steps": self.steps,
            "pictures_done": self.pictures_done, "pictures": self.pictures,
            "seconds_left": self.seconds_left, "preview": self.preview or None,
            "stopping": self.stop and self.stage not in ENDED,
            "waits_for": waits_for if self.stage == "queued" else None, "notes": [*self.notes],
            "files": [*self.files], "error": self.refused and self.refused.first,
            "request": {name: v for name, v in request.items() if name not in paths()},
        }  # fmt: skip
