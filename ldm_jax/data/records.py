"""array_record files, read and written with errors that name them."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path

from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from ldm_jax.data.sources import DataError

_RAISED = (RuntimeError, ValueError, OSError)
"""What the library raises; its text says what is wrong, and seldom where."""


class Records:
    """The records of several files, one file's after the other's."""

    def __init__(self, paths: Sequence[str | Path], remedy: str) -> None:
        """Opens `paths`; `remedy` says what to do about a damaged one.

        Raises:
            DataError: one cannot be opened.
        """
        self._paths, self._remedy, self._files = paths, remedy, []
        for path in paths:
            with self._naming(path):
                self._files.append(ArrayRecordDataSource([str(path)]))
        self._ends = list(accumulate(len(file) for file in self._files))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, row: int) -> bytes:
        """Raises DataError where its file is damaged."""
        row, file = int(row), bisect_right(self._ends, row)
        with self._naming(self._paths[file]):
            return self._files[file][row - self._ends[file] + len(self._files[file])]

    def __iter__(self) -> Iterator[bytes]:
        """All records, a thousand read at a time.

        Raises:
            DataError: a file is damaged.
        """
        for path, file in zip(self._paths, self._files, strict=True):
            for start in range(0, len(file), 1024):
                rows = list(range(start, min(start + 1024, len(file))))
                with self._naming(path):
                    found = file.__getitems__(rows)
                yield from found

    @contextmanager
    def _naming(self, path: str | Path) -> Iterator[None]:
        try:
            yield
        except _RAISED as error:
            raise DataError(
                f"{path} is missing or damaged ({_first_line(error)}); {self._remedy}"
            ) from error


def count(path: Path) -> int | None:
    """How many records a file has; None where it is none of them."""
    if not path.is_file():
        return None
    try:
        return len(ArrayRecordDataSource([str(path)]))
    except _RAISED:
        return None


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Writes a new file. Raises RuntimeError, which `core.files.writing` explains."""
    # Groups of one record, so that reading one example reads no others.
    writer = ArrayRecordWriter(str(path), "group_size:1")
    try:
        for record in records:
            writer.write(record)
    except BaseException:
        # What went wrong first is what is told.
        with suppress(RuntimeError):
            writer.close()
        raise
    writer.close()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
