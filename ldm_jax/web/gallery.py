"""The pictures in the output folder: numbered files, listed, read and deleted by their names."""

import contextlib
import fcntl
import io
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ldm_jax.config import ConfigError
from ldm_jax.config.control_choice import HintChoice
from ldm_jax.config.request import FILES, Request, paths
from ldm_jax.core.files import check_writable, writing
from ldm_jax.core.reading import FileFormatError, parse_json
from ldm_jax.core.signals import undisturbed
from ldm_jax.images import picture_text
from ldm_jax.images.grid import save_png
from ldm_jax.images.infotext import CHUNK as PARAMETERS
from ldm_jax.images.infotext import parse_parameters, read_png
from ldm_jax.images.picture_files import open_picture
from ldm_jax.web.refused import Refused

AS_DATA = ("init_image", "mask", *FILES)
"""Settings that name files, which come as data instead."""
OF_CONTROLS = ("control", "hint", "control_start", "control_end", "guess_mode")
"""Settings of ControlNets, which are said together."""
INPUTS = "inputs"
"""The folder in the output folder with the pictures and files that drawings started from."""
LOCK = ".lock"
SENT = ".sent."
"""What names of files begin with that are there for a moment."""
_OURS = re.compile(r"(\d{6}|[1-9]\d{6})(_grid)?\.png")
"""Names of the server's pictures, which are numbered on from those that are there."""
_OF_SAMPLE = re.compile(r"\d{4,}_\d{4,}(_\d+)?\.png")
"""Names of `sample.py`'s pictures."""
_INPUT = re.compile(r"[0-9a-f]{64}\.(png|jpeg|webp|json|npy)")
_LEFT = re.compile(
    rf"{re.escape(SENT)}[a-z0-9_]{{8}}|\.(\d+(_grid)?\.png|{_INPUT.pattern})\.\d+\.tmp"
)
"""Hidden files that a server which was killed leaves behind."""
GRACE_SECONDS = 600.0
"""An input that was sent so lately may be for a drawing that is not in the queue yet."""
NEWS = 1000
"""Changes that are remembered for pages that follow them."""


@dataclass(frozen=True)
class Picture:
    """One picture of the gallery."""

    name: str
    width: int
    height: int
    time: float
    """When it was written, in seconds since 1970."""
    prompt: str | None


class Gallery:
    """The output folder of one server. Any thread may use it; one at a time writes."""

    def __init__(self, out: Path) -> None:
        """Raises NotWritable, ConfigError: it cannot be written to, or another server does."""
        check_writable(out, f"--out={out}")
        self.out = out.absolute()
        with writing(out):
            (self.out / INPUTS).mkdir(parents=True, exist_ok=True)
            self._lock_file = (self.out / LOCK).open("wb")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise ConfigError(
                f"--out={out} is the folder of another server that is running; name another"
            ) from error
        except OSError:
            pass  # a file system without locks
        for left in (*self.out.glob(".*"), *(self.out / INPUTS).glob(".*")):
            if _LEFT.fullmatch(left.name) and left.is_file():
                left.unlink(missing_ok=True)
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int], tuple[Picture, frozenset[str]]] = {}
        self.news: deque[tuple[int, dict[str, str]]] = deque(maxlen=NEWS)
        self._count = 0
        self._next = max((_age(name)[1] for name in self.names()), default=0) + 1
        self.prune((), grace=0.0)

    def close(self) -> None:
        """Leaves the folder to others."""
        self._lock_file.close()

    def names(self) -> list[str]:
        """Of all pictures: the server's, the newest first, and then those of `sample.py`."""
        found = (path.name for path in self.out.iterdir() if _is_shown(path.name))
        return sorted(found, key=_age, reverse=True)

    def write(
        self, image: UInt8[np.ndarray, "h w 3"], text: dict[str, str], grid: bool = False
    ) -> str:
        """Writes a picture with its text, whole or not at all; returns its name."""
        with self._lock, undisturbed():
            name = f"{self._next:06d}{'_grid' if grid else ''}.png"
            save_png(self.out / name, image, text)
            self._next += 1
        self._record(added=name)
        return name

    def page(self, before: str | None, count: int) -> list[Picture]:
        """The next `count` pictures, newest first, that are older than `before`."""
        names = self.names()
        if before is not None:
            self._check(before)
            names = [name for name in names if _age(name) < _age(before)]
        return [found for name in names[:count] if (found := self._picture(name)) is not None]

    def path(self, name: str) -> Path:
        """The file of a picture; raises Refused (404) where there is none of that name."""
        self._check(name)
        path = self.out / name
        if not path.is_file():
            raise Refused(404, ("name", f"there is no picture {name}"))
        return path

    def input_path(self, name: str) -> Path:
        """The picture, or another file, that drawings started from, as `path`."""
        path = self.out / INPUTS / name
        if not _INPUT.fullmatch(name) or not path.is_file():
            raise Refused(404, ("name", f"there is no such file: {name[:80]!r}"))
        return path

    def delete(self, name: str, in_use: Callable[[], Collection[str]] = frozenset) -> None:
        """Deletes a picture, and with the last that was drawn from an input, the input, unless it
        is among those that are `in_use`.

        Raises Refused: 404 where there is none, 403 for one that does not say how it was drawn,
        which somebody else may have put there.
        """
        path = self.path(name)
        try:
            text = read_png(path)
        except FileFormatError:
            text = {}
        if picture_text.CHUNK not in text:
            raise Refused(403, ("name", f"{name} was not drawn here; delete the file itself"))
        path.unlink(missing_ok=True)
        self._record(deleted=name)
        if _inputs(text):
            self.prune(in_use())

    def prune(self, in_use: Collection[str], grace: float = GRACE_SECONDS) -> None:
        """Deletes the inputs that no picture in the folder names, but for those that are `in_use`
        or were sent in the last `grace` seconds."""
        before = time.time() - grace
        found = [path for path in (self.out / INPUTS).iterdir() if _INPUT.fullmatch(path.name)]
        if not found:
            return
        named: set[str] = {*in_use}
        for path in self.out.glob("*.png"):
            looked_at = self._look(path.name)
            named |= frozenset() if looked_at is None else looked_at[1]
        for path in found:
            with contextlib.suppress(OSError):  # another's, or gone
                if path.name not in named and (not grace or path.stat().st_mtime < before):
                    path.unlink()

    def _record(self, **change: str) -> None:
        with self._lock:
            self._count += 1
            self.news.append((self._count, change))

    def since(self, seen: int) -> tuple[int, list[dict[str, str]]]:
        """The number of the last change, and the changes after number `seen`."""
        with self._lock:
            return self._count, [change for number, change in self.news if number > seen]

    def _check(self, name: str) -> None:
        if not _is_shown(name):
            raise Refused(404, ("name", f"{name[:80]!r} is no name of a picture"))

    def _picture(self, name: str) -> Picture | None:
        """What a list shows of it; None for one that has gone or is damaged."""
        found = self._look(name)
        return None if found is None else found[0]

    def _look(self, name: str) -> tuple[Picture, frozenset[str]] | None:
        """A picture, and the names of the inputs that it was drawn from; None as `_picture`."""
        path = self.out / name
        try:
            changed = path.stat()
            key = name, changed.st_mtime_ns
            with self._lock:
                if key in self._seen:
                    return self._seen[key]
            with open_picture(path, ("PNG",)) as image:
                # The text that we write stands before the pixels, which are not read for it.
                prompt, inputs = _prompt(image.info), _inputs(image.info)
                found = Picture(name, image.width, image.height, changed.st_mtime, prompt), inputs
        except (OSError, FileFormatError):
            return None
        with self._lock:
            if len(self._seen) > 10 * NEWS:
                self._seen.clear()
            self._seen[key] = found
        return found


def _is_shown(name: str) -> bool:
    return bool(_OURS.fullmatch(name) or _OF_SAMPLE.fullmatch(name))


def _age(name: str) -> tuple[bool, int, str]:
    """By which the newest picture is the largest: the server's by their numbers, after those of
    `sample.py` by their names."""
    is_ours = _OURS.fullmatch(name) is not None
    return is_ours, int(name[:-4].removesuffix("_grid")) if is_ours else 0, name


def _prompt(chunks: Mapping[Any, Any]) -> str | None:
    """The prompt, or the class, in the text of one of our pictures."""
    request = _request(chunks)
    try:
        told = request.get("prompt") or request.get("classes") or [None]
        return None if told[0] is None else str(told[0])
    except (TypeError, KeyError, IndexError):
        return None


def _inputs(chunks: Mapping[Any, Any]) -> frozenset[str]:
    """The names of the files that one of our pictures was drawn from, as its text says."""
    request = _request(chunks)
    named = {Path(path).name for name in AS_DATA if isinstance(path := request.get(name), str)}
    hints = request.get("hint")
    for one in hints if isinstance(hints, list) else []:
        with contextlib.suppress(ConfigError):  # of a text that somebody else wrote
            named.add(HintChoice.parse(str(one)).file.name)
    return frozenset(named)


def _request(chunks: Mapping[Any, Any]) -> dict[str, Any]:
    """The request in the text of one of our pictures, as it stands there; empty without one."""
    try:
        found = parse_json("picture", "text", str(chunks.get(picture_text.CHUNK, "{}")))
    except FileFormatError:
        return {}
    request = found.get("request")
    return request if isinstance(request, dict) else {}


def given_files(request: Request) -> dict[str, Path]:
    """The files that a request starts from, by their settings."""
    found = {name: request.setting(name) for name in AS_DATA}
    hints = [HintChoice.parse(one).file for one in request.hints.hint]
    found |= {f"control[{place}].image": path for place, path in enumerate(hints)}
    return {name: path for name, path in found.items() if path is not None}


def settings_of(path: Path, where: str) -> dict[str, Any]:
    """What a picture says of how it was drawn: the settings, those that cannot be used, its text,
    and the paths of its model and of the pictures that it was drawn from.

    Raises Refused (422), naming the picture as `where`, for one that says nothing.
    """
    try:
        written = picture_text.read_written(path)
        text = read_png(path)
    except FileFormatError as error:
        raise Refused(422, (None, f"{where} {error.args[1]}")) from error
    request = written.request.to_dict()
    hinted = {name: request.pop(name) for name in OF_CONTROLS if name in request}
    named = {name: request.pop(name) for name in paths() if name in request}
    if picture_text.CHUNK not in text:  # the web UI's, which knows models by their names
        named["model"] = parse_parameters(text.get(PARAMETERS) or "").settings.get("Model")
    return {
        "request": request, "controls": hinted, "problems": [*written.problems], "paths": named,
        "filled": [name for name in written.filled if name in request],
        "text": text.get(PARAMETERS) or "", "grid": _axes(text.get(picture_text.CHUNK)),
    }  # fmt: skip


def _axes(text: str | None) -> Any:
    """The axes of a grid that a picture's text has, as POST /api/grid takes them."""
    return None if text is None else parse_json("picture", "text", text).get("grid")


def png_of(image: UInt8[np.ndarray, "h w c"]) -> bytes:
    """A picture as the bytes of a PNG, compressed little: for previews."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG", compress_level=1)
    return content.getvalue()
