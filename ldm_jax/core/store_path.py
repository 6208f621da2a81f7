"""Paths in object stores, as fsspec reaches them.

Objects appear whole or not at all, and there are no folders, only names with `/`. Lost connections
and errors of the store's own are tried again by the library, for about a minute; what then remains
is an `Unreachable`.
"""

import errno
import fnmatch
import io
import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path, PosixPath
from typing import Any

import fsspec
from etils.epath.gpath import PosixGPath

from ldm_jax.core import store_copies
from ldm_jax.core.stores import Unreachable

# Objects are also written by TensorStore, of which lists that fsspec keeps would not know.
for _protocol in ("gcs", "s3"):
    fsspec.config.conf.setdefault(_protocol, {}).setdefault("use_listings_cache", False)
# What gcsfs logs with a traceback it raises as well, and is said in a sentence.
logging.getLogger("gcsfs").addFilter(lambda record: not record.exc_info)
if "STORAGE_EMULATOR_HOST" in os.environ:
    # gcsfs asks by gRPC for the kind of a bucket, which costs a minute where nobody answers.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
_WRITES = ("pipe_file", "put_file")
_AT_ONCE = 8
"""Files that are put there at once; s3fs holds half a gigabyte of each in memory."""
_BLOCK = 2**23
"""Bytes that are asked for at once where a file is read from its beginning."""


@cache
def _filesystem(scheme: str) -> fsspec.AbstractFileSystem:
    return fsspec.filesystem(scheme)


class StorePath(PosixGPath, PosixPath):
    """A path such as `gs://bucket/run`; `str` and `os.fspath` give it so.

    Every method may raise `Unreachable`.
    """

    def ask(self, operation: str, *arguments: Any, **options: Any) -> Any:
        """What an operation of fsspec gives for this path.

        Raises:
            FileNotFoundError, FileExistsError: it says so; names the path.
            Unreachable: it cannot be done, tried again as often as the library does.
        """
        return self._asked(
            operation, lambda store: getattr(store, operation)(str(self), *arguments, **options)
        )

    def _asked(self, operation: str, ask: Callable[[fsspec.AbstractFileSystem], Any]) -> Any:
        try:
            # Not kept by the path, which is sent to other processes.
            return ask(_filesystem(str(self).partition("://")[0]))
        except FileNotFoundError as error:
            missing = "does not exist"
            if operation in _WRITES:
                missing = "there is no such bucket; make it"
            raise FileNotFoundError(errno.ENOENT, missing, str(self)) from error
        except FileExistsError as error:
            raise FileExistsError(errno.EEXIST, "exists", str(self)) from error
        except Exception as error:  # of the library, of HTTP, of whoever knows credentials
            first = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise Unreachable(
                f"{self}: the store does not do {operation}: {first[:300]}; look at the name, the "
                "credentials and the network, and give the command again"
            ) from error

    # --------------------------------------------------------------------------------- asking

    def absolute(self) -> "StorePath":
        """Itself."""
        return self

    def resolve(self, strict: bool = False) -> "StorePath":
        """Itself."""
        return self

    def is_symlink(self) -> bool:
        """There are no links."""
        return False

    def exists(self) -> bool:
        """Whether there is an object of that name, or one below it."""
        return self.ask("exists")

    def is_file(self) -> bool:
        """Whether there is an object of that name."""
        return self.ask("isfile")

    def is_dir(self) -> bool:
        """Whether there is an object below that name."""
        return self.ask("isdir")

    def stat(self) -> os.stat_result:
        """Size, time of the last change in whole seconds, and whether it is a file."""
        info = self.ask("info")
        kind = stat.S_IFDIR if info["type"] == "directory" else stat.S_IFREG
        changed = info.get("mtime") or info.get("LastModified")
        seconds = int(changed.timestamp()) if hasattr(changed, "timestamp") else 0
        return os.stat_result((kind, 0, 0, 1, 0, 0, info["size"] or 0, *[seconds] * 3))

    def iterdir(self) -> Iterator["StorePath"]:
        """What lies in it."""
        found = (self._new(f"{self.parts[1]}://{name}") for name in self.ask("ls", detail=False))
        yield from (path for path in found if path != self)

    def files(self) -> list[str]:
        """The names of all objects below it, relative, rising."""
        found = self.ask("find", detail=False)
        before = f"{str(self).partition('://')[2].rstrip('/')}/"
        return sorted(name.removeprefix(before) for name in found if name.startswith(before))

    def size_of_all(self) -> int:
        """Bytes of all objects below it."""
        return sum(info["size"] for info in self.ask("find", detail=True).values())

    def glob(self, pattern: str) -> Iterator["StorePath"]:
        """Objects and folders below it by a pattern of their relative names, without `**`."""
        depth = pattern.count("/") + 1
        names = ("/".join(name.split("/")[:depth]) for name in self.files())
        fitting = (n for n in dict.fromkeys(names) if n.count("/") == depth - 1)
        for name in fitting:
            pairs = zip(name.split("/"), pattern.split("/"), strict=True)
            if all(fnmatch.fnmatchcase(part, wanted) for part, wanted in pairs):
                yield self / name

    def rglob(self, pattern: str) -> Iterator["StorePath"]:
        """All objects below it by a pattern of their own names."""
        yield from (self / name for name in self.files()
                    if fnmatch.fnmatchcase(name.rpartition("/")[2], pattern))  # fmt: skip

    # -------------------------------------------------------------------------------- reading

    def open(self, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        """A file to read from, binary or text in UTF-8.

        Raises:
            FileNotFoundError, IsADirectoryError: there is no object of that name.
            io.UnsupportedOperation: `mode` is one of writing; objects are put there whole.
        """
        if mode not in ("r", "rt", "rb"):
            raise io.UnsupportedOperation(f"{self} cannot be opened with mode {mode!r}")
        found = self.stat()
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(self))
        raw = _Ranges(self, found.st_size)
        binary = io.BufferedReader(raw, _BLOCK)
        return binary if mode == "rb" else io.TextIOWrapper(binary, "utf-8")

    def read_bytes(self) -> bytes:
        """The whole of an object."""
        return self.ask("cat_file")

    def read_part(self, start: int, size: int) -> bytes:
        """So many bytes of an object, or fewer where it ends before."""
        return self.ask("cat_file", start=start, end=start + size)

    def read_text(self, *arguments: Any, **options: Any) -> str:
        """The whole of an object in UTF-8."""
        return self.read_bytes().decode()

    def local_copy(self) -> Path:
        """A copy of the object on this machine, which `store_copies` keeps."""
        told = f"{self} {self.ask('ukey')}"

        def fetch(draft: Path) -> None:
            self.ask("get_file", str(draft))

        return store_copies.copied(told, self.name, lambda: self.stat().st_size, fetch)

    def local_folder(self) -> Path:
        """A folder of this machine with what lies below the path, kept as a `local_copy` is."""
        files = [self / name for name in self.files()]
        told = "\n".join(f"{file} {file.ask('ukey')}" for file in files)

        def size() -> int:
            return sum(file.stat().st_size for file in files)

        def fetch(draft: Path) -> None:
            for file in files:
                copy = draft / file.relative_to(self)
                copy.parent.mkdir(parents=True, exist_ok=True)
                file.ask("get_file", str(copy))

        return store_copies.copied(f"{self} {told}", self.name, size, fetch)

    # -------------------------------------------------------------------------------- writing

    def write_bytes(self, content: bytes) -> int:
        """Puts an object there, whole or not at all."""
        self.ask("pipe_file", content)
        return len(content)

    def write_text(self, text: str, *arguments: Any, **options: Any) -> int:
        """Puts an object in UTF-8 there."""
        return self.write_bytes(text.encode())

    def create(self, content: bytes) -> None:
        """Puts an object there if there is none; raises FileExistsError where there is."""
        self.ask("pipe_file", content, mode="create")

    def put(self, source: Path) -> None:
        """Puts the content of a file of this machine there."""
        self._asked("put_file", lambda store: store.put_file(str(source), str(self)))

    def put_files(self, folder: Path, names: Sequence[str]) -> None:
        """Puts files of a folder of this machine below the path, several at once."""
        sources, targets = ([str(one / name) for name in names] for one in (folder, self))
        self._asked("put_file", lambda store: store.put(sources, targets, batch_size=_AT_ONCE))

    def mkdir(self, *arguments: Any, **options: Any) -> None:
        """Nothing: there are no folders."""

    def rmdir(self) -> None:
        """Nothing: there are no folders."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes an object."""
        try:
            self.ask("rm_file")
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmtree(self, missing_ok: bool = True) -> None:
        """Removes all objects below the path, and one of its name."""
        try:
            self.ask("rm", recursive=True)
        except FileNotFoundError:
            if not missing_ok:
                raise


class _Ranges(io.RawIOBase):
    """An object of `size` bytes, of which parts are asked for."""

    mode = "rb"

    def __init__(self, path: StorePath, size: int) -> None:
        self.name = str(path)
        self._path, self._size, self._at = path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, target: Any) -> int:
        wanted = min(len(target), self._size - self._at)
        if wanted <= 0:
            return 0
        data = self._path.read_part(self._at, wanted)
        target[: len(data)] = data
        self._at += len(data)
        return len(data)
