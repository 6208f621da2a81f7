"""Files of a work directory that grow while a run goes on."""

import shutil
import tempfile
import time
from pathlib import Path

from ldm_jax.core.files import write_atomically
from ldm_jax.core.stores import is_stored

SECONDS_BETWEEN_COPIES = 20.0


class GrowingFiles:
    """Where files that grow are written: in the work directory itself; or, where that lies in a
    store, whose objects are put there whole, in a folder of this machine, from which they are
    copied there every now and then."""

    def __init__(self, workdir: Path) -> None:
        self._workdir, self._stored = workdir, is_stored(workdir)
        self.folder = Path(tempfile.mkdtemp(prefix="ldm_jax_")) if self._stored else workdir
        self._copied = time.monotonic()
        self._sizes: dict[str, int] = {}

    def fetch(self, name: str) -> None:
        """Takes what the work directory has of the file `name`, if it has it."""
        if self._stored and (self._workdir / name).exists():
            (self.folder / name).write_bytes((self._workdir / name).read_bytes())

    def copy(self, now: bool = False) -> None:
        """Copies what has grown into the store, if the last time was long ago, or `now`.

        Raises:
            OSError: the store cannot be reached.
        """
        if not self._stored or not (
            now or time.monotonic() - self._copied > SECONDS_BETWEEN_COPIES
        ):
            return
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and path.stat().st_size != self._sizes.get(name):
                content = path.read_bytes()
                write_atomically(self._workdir / name, content)
                self._sizes[name] = len(content)
        self._copied = time.monotonic()

    def remove(self) -> None:
        """Removes the folder of this machine."""
        if self._stored:
            shutil.rmtree(self.folder, ignore_errors=True)
