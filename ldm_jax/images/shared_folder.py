"""One folder of pictures that several processes draw, each a part of them.

    OUT/.parts_of_4/00001/    what process 1 of 4 draws, as `SampleWriter` writes it
    OUT/.parts_of_4/lock      whose holder puts the parts together

Processes do not speak with each other. Whichever ends last finds all parts, and puts them together:
the folder is then what one process would have written.
"""

import contextlib
import fcntl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ldm_jax.config.request import Request
from ldm_jax.core.files import remove, remove_folder
from ldm_jax.core.reading import read_json
from ldm_jax.core.stores import is_stored
from ldm_jax.images.sample_writer import MANIFEST, PARTS, FolderError, SampleWriter, check_alone

LOCK = "lock"


class SharedFolder:
    """The parts of a drawing of the resolved `request`, of which each process draws so many
    pictures."""

    def __init__(self, out: Path, request: Request, pictures: Sequence[int]) -> None:
        self._out, self._request, self._pictures = out, request, pictures
        self._parts = out / f"{PARTS}{len(pictures)}"

    def part(self, index: int) -> Path:
        """Where a process draws."""
        return self._parts / f"{index:05}"

    def has(self, index: int) -> bool:
        """Whether a process has drawn all of its part.

        Raises FolderError where the part is of another drawing.
        """
        wanted, manifest = self._pictures[index], self._manifest(index)
        return wanted == 0 if manifest is None else len(manifest["images"]) == wanted

    def clear(self, index: int) -> None:
        """Removes what a process that was interrupted has left of its part.

        Raises FolderError where a process is drawing it now.
        """
        if self.part(index).is_dir():
            if not is_stored(self._out):
                check_alone(self.part(index))
            remove(self.part(index))

    def left(self) -> int:
        """How many processes have not drawn their parts yet."""
        return sum(not self.has(index) for index in range(len(self._pictures)))

    def put_together(self, writer: SampleWriter) -> None:
        """Brings all parts into the folder that `writer` writes."""
        for entry, folder in self._entries():
            writer.take(entry, folder)

    def remove_parts(self) -> None:
        """Removes them, once they are put together."""
        for index in range(len(self._pictures)):
            remove_folder(self.part(index))
        remove_folder(self._parts)

    @contextlib.contextmanager
    def alone(self, index: int) -> Iterator[bool]:
        """Keeps other processes than `index` from putting the parts together; whether none of them
        has done it yet."""
        if is_stored(self._out):
            # Once they are put together nobody has a part.
            yield self.has(index) and (self.left() > 0 or self._lock_stored(index))
            return
        try:
            lock = (self._parts / LOCK).open("ab")
        except FileNotFoundError:
            yield False
            return
        with lock:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield (self._parts / LOCK).exists()

    def _lock_stored(self, index: int) -> bool:
        """Takes the lock, which in a store is an object that says whose it is: that of a process
        that was killed is taken by the same one once it is started again."""
        lock = self._parts / LOCK
        try:
            lock.create(str(index).encode())
        except FileExistsError:
            return lock.read_text() == str(index)
        if self.part(index).is_dir():
            return True
        lock.unlink(missing_ok=True)  # another has just put them together
        return False

    def _manifest(self, index: int) -> dict[str, Any] | None:
        path = self.part(index) / MANIFEST
        if not path.is_file():
            return None
        manifest = read_json(path)
        if manifest.get("request") != self._request.to_dict() or "images" not in manifest:
            raise FolderError(
                f"{self.part(index)} holds a part of another drawing; delete {self._parts}, or "
                "name another --out"
            )
        return manifest

    def _entries(self) -> list[tuple[dict[str, Any], Path]]:
        """What all manifests list, in the order of pictures, each with its folder."""
        found = [
            (entry, self.part(index)) for index in range(len(self._pictures))
            if (manifest := self._manifest(index)) is not None for entry in manifest["images"]
        ]  # fmt: skip
        return sorted(found, key=lambda one: (one[0]["prompt"], one[0]["image"]))
