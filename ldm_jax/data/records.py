"""array_record files, read and written with errors that name them."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from ldm_jax.core.stores import as_path, is_unreachable, local_copy
from ldm_jax.data.sources import DataError

OPEN_FILES = 256
"""Files of sources that a process keeps open; systems allow a thousand or so in all."""
_RAISED = (RuntimeError, ValueError, OSError)
"""What the library raises; its text says what is wrong, and seldom where."""


@lru_cache(OPEN_FILES)
def opened(owner: Any, file: int) -> Any:
    """What `owner.open_file(file)` gives. It is kept for the `OPEN_FILES` that were used last, of
    whichever owners; others close when nobody reads them any more."""
    return owner.open_file(file)


class Records:
    """The records of several files, one file's after the other's.

    A file is opened when it is first read: see `opened`.
    """

    def __init__(
        self, paths: Sequence[str | Path], remedy: str, counts: Sequence[int] | None = None
    ) -> None:
        """Of the files `paths`; `remedy` says what to do about a damaged one. `counts`: how many
        records each has, where that is known; otherwise all are opened to count them.

        Raises:
            DataError: one cannot be opened.
        """
        self._paths, self._remedy = [*map(as_path, paths)], remedy
        if counts is None:
            counts = []
            for path in self._paths:
                with self._naming(path):
                    counts.append(_length(path))
        self._counts = [*counts]
        self._ends = [*accumulate(self._counts)]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, row: int) -> bytes:
        """Raises DataError where its file is damaged."""
        file, at = self.place(row)
        with self._naming(self._paths[file]):
            return opened(self, file).read([at])[0]

    def __iter__(self) -> Iterator[bytes]:
        """All records, a thousand read at a time.

        Raises:
            DataError: a file is damaged.
        """
        for file, (path, count) in enumerate(zip(self._paths, self._counts, strict=True)):
            for start in range(0, count, 1024):
                rows = [*range(start, min(start + 1024, count))]
                with self._naming(path):
                    found = opened(self, file).read(rows)
                yield from found

    def place(self, row: int) -> tuple[int, int]:
        """The number of the file that has a record, and which of its records it is."""
        file = bisect_right(self._ends, int(row))
        return file, int(row) - self._ends[file] + self._counts[file]

    def named(self, row: int) -> str:
        """Where a record lies, in words."""
        file, at = self.place(row)
        return f"{self._paths[file]}, record {at} (from 0)"

    def open_file(self, file: int) -> ArrayRecordReader:
        """A reader of one file. Raises ValueError where it has another number of records."""
        reader = ArrayRecordReader(
            str(local_copy(self._paths[file])),
            options="readahead_buffer_size:0",
            file_reader_buffer_size=2**15,
        )
        # One that was cut short has none, and reads as if it were empty.
        if reader.num_records() != self._counts[file]:
            raise ValueError(f"{reader.num_records()} records instead of {self._counts[file]}")
        return reader

    @contextmanager
    def _naming(self, path: Path) -> Iterator[None]:
        try:
            yield
        except _RAISED as error:
            if is_unreachable(error):
                raise
            raise DataError(
                f"{path} is missing or damaged ({_first_line(error)}); {self._remedy}"
            ) from error


def count(path: Path) -> int | None:
    """How many records a file has; None where it is none of them."""
    if not path.is_file():
        return None
    try:
        return _length(path)
    except _RAISED as error:
        if is_unreachable(error):
            raise
        return None


def _length(path: Path) -> int:
    return len(ArrayRecordDataSource([str(local_copy(path))]))


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
