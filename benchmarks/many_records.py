"""What it costs to open a data set of 100 million examples, and to go to a place in its order.

    python -m benchmarks.many_records

Shards are simulated by their list: empty files of the right names, none of which opening reads.
"""

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from ldm_jax import config as cfg
from ldm_jax.data.loader import make_loader
from ldm_jax.data.picture_shards import Common
from ldm_jax.data.shard_lists import Shard, write_list
from ldm_jax.data.sources import open_source


@dataclass(frozen=True)
class Arguments:
    """How many there are."""

    examples: int = 100_000_000
    shard_size: int = 4096


def simulate(folder: Path, examples: int, shard_size: int) -> int:
    """Writes the list of so many shards, and empty files; returns how many there are."""
    count = -(-examples // shard_size)
    shards = []
    for number in range(count):
        name = f"{number:05d}-of-{count:05d}.array_record"
        size = min(shard_size, examples - number * shard_size)
        shards.append(Shard(name, size, 2**27, f"{number:064x}"))
        (folder / name).touch()
    write_list(folder, shards, Common((), True))
    return count


def megabytes() -> float:
    """Memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def measure(folder: Path, examples: int) -> dict[str, Any]:
    """Opens the shards in `folder` and goes to the last quarter of the third epoch."""
    data = cfg.Data(cfg.Shards(path=str(folder)), 256, batch_size=2048)
    before, began = megabytes(), time.perf_counter()
    source = open_source(data, "train")
    opened, grown = time.perf_counter() - began, megabytes() - before
    loader = make_loader(source, data, seed=0, train=True)
    began = time.perf_counter()
    step = 11 * examples // 4 // data.batch_size
    loader.set_state(loader.get_state() | {"step": step})
    pairs = loader.numbers()
    return {
        "examples": len(source), "open_seconds": round(opened, 3),
        "open_megabytes": round(grown, 1), "process_megabytes": round(megabytes(), 1),
        "seek_seconds": round(time.perf_counter() - began, 4), "step": step,
        "first_numbers": pairs[:4, 1].tolist(),
    }  # fmt: skip


def main() -> None:
    """Prints a JSON object."""
    arguments = tyro.cli(Arguments, description=__doc__)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "train"
        folder.mkdir()
        shards = simulate(folder, arguments.examples, arguments.shard_size)
        found = {"shards": shards, **measure(Path(root), arguments.examples)}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    sys.exit(main())
