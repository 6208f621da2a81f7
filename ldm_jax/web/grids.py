"""X/Y grids: one job for each cell, and one labelled picture of them all once they are drawn."""

import itertools
import json
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ldm_jax.images.grid import axis_grid
from ldm_jax.images.picture_files import read_picture
from ldm_jax.images.picture_text import CHUNK
from ldm_jax.web.form import all_options
from ldm_jax.web.gallery import Gallery
from ldm_jax.web.jobs import ENDED, Job
from ldm_jax.web.refused import Refused

SIDE = 512
"""Pixels of a cell's longer side, at most: a grid stays a file that programs open."""
SMALL_SIDE = 96
"""Pixels to which small pictures are enlarged, so that labels have room."""


@dataclass(frozen=True)
class Axis:
    """The values that one setting takes along a side of the grid."""

    name: str
    values: tuple[Any, ...]


@dataclass(eq=False)
class _Group:
    x: Axis
    y: Axis | None
    jobs: list[Job]


class Grids:
    """The grids whose cells are being drawn."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._groups: dict[str, _Group] = {}
        self._lock = threading.Lock()

    def add(self, cells: Sequence[Job], x: Axis, y: Axis | None) -> str:
        """Notes the jobs of a grid, row by row; returns its id, which they get."""
        number = secrets.token_hex(8)
        for job in cells:
            job.group = number
        with self._lock:
            self._groups[number] = _Group(x, y, [*cells])
        return number

    def forget(self, number: str) -> None:
        """Drops a grid that could not be put into the queue."""
        with self._lock:
            self._groups.pop(number, None)

    def ended(self, job: Job) -> None:
        """Saves the grid that `job` was the last cell of, if any cell was drawn."""
        with self._lock:
            group = self._groups.get(job.group or "")
            if group is None or any(cell.stage not in ENDED for cell in group.jobs):
                return
            del self._groups[job.group or ""]
        pictures = [self._read(cell) for cell in group.jobs]
        shapes = [picture.shape for picture in pictures if picture is not None]
        if shapes:
            self._gallery.write(_sheet(pictures, shapes[0], group), _text(group), grid=True)

    def _read(self, job: Job) -> UInt8[np.ndarray, "h w 3"] | None:
        if not job.files:
            return None
        try:
            return read_picture(self._gallery.path(job.files[0]))
        except (Refused, ValueError):  # deleted in the meantime
            return None


def axis_of(given: object, field: str) -> Axis | None:
    """The axis that JSON names, or None; raises Refused (422), naming `field`."""
    if given is None and field == "y":
        return None
    if not isinstance(given, dict) or given.keys() != {"name", "values"}:
        raise Refused(422, (field, f"{field} must be an object with a name and values"))
    name, values = given["name"], given["values"]
    option = all_options().get(name) if isinstance(name, str) else None
    if option is None or name in ("num",):
        raise Refused(422, (field, f"{field}: {name!r:.80} is no setting that a grid can go over"))
    if not isinstance(values, list) or not values:
        raise Refused(422, (field, f"{field} has no values of {name}"))
    if option.many:
        values = [value if isinstance(value, list) else [value] for value in values]
    return Axis(name, tuple(values))


def cells_of(x: Axis, y: Axis | None) -> list[dict[str, Any]]:
    """The settings of each cell, row by row."""
    rows: tuple[Any, ...] = (None,) if y is None else y.values
    below = {} if y is None else {y.name: None}
    return [
        {x.name: across} | ({name: down for name in below})
        for down, across in itertools.product(rows, x.values)
    ]


def _sheet(
    pictures: Sequence[UInt8[np.ndarray, "h w 3"] | None], shape: tuple[int, ...], group: _Group
) -> UInt8[np.ndarray, "gh gw 3"]:
    height, width = _fitting(*shape[:2])
    cells = [
        np.full((height, width, 3), 224, np.uint8) if picture is None else
        np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))
        for picture in pictures
    ]  # fmt: skip
    scale = max(1, SMALL_SIDE // max(height, width))
    down = [] if group.y is None else [_label(group.y.name, value) for value in group.y.values]
    across = [_label(group.x.name, value) for value in group.x.values]
    return axis_grid(np.stack(cells), across, down, scale)


def _text(group: _Group) -> dict[str, str]:
    """What the grid's PNG says of it: the settings that all cells have, and the axes."""
    axes = {"x": vars(group.x), "y": None if group.y is None else vars(group.y)}
    names = {axis["name"] for axis in axes.values() if axis is not None}
    shared = {name: value for name, value in group.jobs[0].requests[0].to_dict().items()
              if name not in names}  # fmt: skip
    return {CHUNK: json.dumps({"request": shared, "grid": axes})}


def _fitting(height: int, width: int) -> tuple[int, int]:
    share = min(1.0, SIDE / max(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def _label(name: str, value: Any) -> str:
    """The words above a column or beside a row."""
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    if name == "prompt":
        return str(one)[:200]
    words = {"None": "usual", "True": "yes", "False": "no"}
    told = words.get(str(one), str(one))
    return f"{name.replace('_', ' ').capitalize()} {told}"[:200]
