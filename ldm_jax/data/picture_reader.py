"""Pictures of a source, of which broken ones stop a run or are skipped."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ldm_jax import config as cfg
from ldm_jax.core.reading import FileFormatError
from ldm_jax.data.sources import DataError
from ldm_jax.images.picture_files import decode_picture, read_picture

_log = logging.getLogger(__name__)


class PictureReader:
    """Reads pictures as a folder's settings say; those that are broken once are not tried again."""

    def __init__(self, folder: cfg.FittedPictures, sides: tuple[int, int]) -> None:
        """Of pictures that are fitted to `sides`, where nothing else is said."""
        self._smallest = None if folder.resize == "none" else folder.smallest_crop
        self._sides = sides
        self._skip = folder.on_broken == "skip"
        self.broken: dict[str, str] = {}
        """Names of images skipped so far by this process, and why."""

    def read(
        self, name: str, path: Path, sides: tuple[int, int] | None = None
    ) -> UInt8[np.ndarray, "h w 3"] | None:
        """A picture of the example `name`; None where one of it is broken and skipped.

        Raises:
            DataError: it is broken, and such stop the run.
        """
        at_least = self._at_least(sides or self._sides)
        return self._checked(name, lambda: read_picture(path, at_least))

    def decode(self, name: str, content: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
        """As `read`, of a picture that is not a file of its own but has the content of one."""
        at_least = self._at_least(self._sides)
        return self._checked(name, lambda: decode_picture(name, content, at_least))

    def _at_least(self, sides: tuple[int, int]) -> int | None:
        """The shorter side from which a picture is fitted to `sides`."""
        return None if self._smallest is None else round(2 * max(sides) / self._smallest)

    def _checked(
        self, name: str, read: Callable[[], UInt8[np.ndarray, "h w 3"]]
    ) -> UInt8[np.ndarray, "h w 3"] | None:
        if name in self.broken:
            return None
        try:
            return read()
        except FileFormatError as error:
            if not self._skip:
                raise DataError(
                    f"{error}; repair or remove it, or skip such images with "
                    "--data.source.on_broken=skip"
                ) from error
            self.broken[name] = str(error)
            _log.warning("skipped broken image number %d: %s", len(self.broken), error)
            return None
