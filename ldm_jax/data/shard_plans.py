"""How the examples of a split are divided into files, which several processes write: each appears
complete or not at all."""

import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ldm_jax.core.files import temporary, write_atomically, writing
from ldm_jax.core.stores import is_stored
from ldm_jax.data.records import write_records
from ldm_jax.data.sources import DataError

SUFFIX = ".array_record"


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """The examples of a split in files of `shard_size`, in order."""

    examples: int
    shard_size: int

    @property
    def shards(self) -> int:
        """How many files there are."""
        return -(-self.examples // self.shard_size)

    def rows(self, shard: int) -> range:
        """The examples of one shard."""
        first = shard * self.shard_size
        return range(first, min(first + self.shard_size, self.examples))

    def path(self, folder: Path, shard: int) -> Path:
        """Where a shard of the split in `folder` lies."""
        return folder / f"{shard:05d}-of-{self.shards:05d}{SUFFIX}"


def begin(path: Path, found: Any, plan: Any, what: str) -> None:
    """Writes a plan to `path` and makes its folder; or checks that it is the one `found` there.

    Raises:
        DataError: names the fields in which it is another one; `what` are the folder's contents.
    """
    if found is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(asdict(plan), indent=2) + "\n").encode())
        return
    changed = [
        f"{f.name} was {getattr(found, f.name)!r}, is {getattr(plan, f.name)!r}"
        for f in fields(plan)
        if f.compare and getattr(found, f.name) != getattr(plan, f.name)
    ]
    if changed:
        raise DataError(
            f"{path.parent} already has {what} with other settings: {'; '.join(changed)}. Use "
            "the same settings to continue, or choose another --out"
        )


def write_shard(path: Path, records: Iterable[bytes]) -> None:
    """Writes one shard; nothing is left where that fails.

    What killed processes have left of it is removed. One for a store is written on this machine
    first, into the folder of temporary files.

    Raises:
        OSError: names the file and the reason, such as a full disk.
    """
    if is_stored(path):
        with temporary(Path(tempfile.gettempdir()) / path.name) as draft:
            with writing(draft):
                write_records(draft, records)
            path.put(draft)
        return
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink()
    with writing(path), temporary(path) as draft:
        write_records(draft, records)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
