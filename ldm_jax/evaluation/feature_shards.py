"""Features of a set of images on disk, part by part: what was computed once stays, whichever
process computed it, and however often the command was interrupted.

    FOLDER/index.json               of what, and with which networks
    FOLDER/00003-of-00049.npz       one array [rows, width] in float32 for each layer
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ldm_jax.core.files import write_atomically
from ldm_jax.core.reading import FileFormatError, open_file, read_json
from ldm_jax.evaluation.provenance import differences
from ldm_jax.evaluation.scores.moments import Moments, moments_of

SHARD = 512
"""Rows of one file. It divides what `Pipeline` draws of one prompt at most."""
INDEX = "index.json"

Features = dict[str, Float32[np.ndarray, "n d"]]


class FeatureShards:
    """The features of `count` images, of which some may be missing still.

    Args:
        identity: what decides them, as JSON; a folder of another is refused.

    Raises:
        FileFormatError: the folder holds features of something else, and what differs.
    """

    def __init__(self, folder: Path, count: int, identity: Mapping[str, Any]) -> None:
        self.folder, self.count = folder, count
        index = json.loads(json.dumps({"count": count, "shard_size": SHARD, **identity}))
        if (folder / INDEX).is_file():
            changed = list(differences(read_json(folder / INDEX), index))
            if changed:
                raise FileFormatError(
                    folder,
                    f"holds features of something else ({'; '.join(changed[:3])}); name another "
                    "--out, or delete the folder",
                )
        else:
            folder.mkdir(parents=True, exist_ok=True)
            # What another process is writing has a hidden name.
            if any(path.name != INDEX and path.name[0] != "." for path in folder.iterdir()):
                raise FileFormatError(
                    folder, "holds files of something else; name another --out, or an empty folder"
                )
            write_atomically(folder / INDEX, (json.dumps(index, indent=2) + "\n").encode())

    @property
    def shards(self) -> int:
        """How many files there are to be."""
        return -(-self.count // SHARD)

    def path(self, shard: int) -> Path:
        """Of one file."""
        return self.folder / f"{shard:05}-of-{self.shards:05}.npz"

    def rows(self, shard: int) -> range:
        """The images of one file."""
        return range(shard * SHARD, min((shard + 1) * SHARD, self.count))

    def missing(self) -> list[int]:
        """The files that are not there yet."""
        return [shard for shard in range(self.shards) if not self.path(shard).is_file()]

    def write(self, shard: int, features: Features) -> None:
        """Writes one file, which appears complete or not at all."""
        content = io.BytesIO()
        np.savez(content, **features)
        write_atomically(self.path(shard), content.getvalue())

    def parts(self, layer: str, rows: range | None = None) -> Iterator[Float32[np.ndarray, "n d"]]:
        """The features of a layer, or of those `rows` alone, file by file.

        Raises FileFormatError: a file is missing, damaged, or without that layer.
        """
        rows = range(self.count) if rows is None else rows
        for shard in range(rows.start // SHARD, -(-rows.stop // SHARD)):
            own = self.rows(shard)
            part = self._read(shard, layer)
            yield part[max(rows.start - own.start, 0) : rows.stop - own.start]

    def _read(self, shard: int, layer: str) -> Float32[np.ndarray, "n d"]:
        path = self.path(shard)
        try:
            with open_file(path) as file, np.load(file, allow_pickle=False) as arrays:
                found = arrays[layer]
        except FileFormatError:
            raise
        except Exception as error:  # of a damaged archive nearly anything
            raise FileFormatError(path, f"cannot be read ({error}); delete it") from error
        if found.dtype != np.float32 or found.ndim != 2 or len(found) != len(self.rows(shard)):
            raise FileFormatError(path, f"has {found.dtype} {found.shape}; delete it")
        return found


class FeatureSet:
    """What scores are computed from: the features of a set's images, or of some of them."""

    def __init__(self, shards: FeatureShards, rows: range | None = None) -> None:
        self._shards = shards
        self.rows = range(shards.count) if rows is None else rows
        self._moments: dict[str, Moments] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def layer(self, name: str) -> Float32[np.ndarray, "n d"]:
        """All features of a layer."""
        return np.concatenate(list(self._shards.parts(name, self.rows)))

    def moments(self, name: str) -> Moments:
        """Their mean and covariance, summed file by file."""
        if name not in self._moments:
            self._moments[name] = moments_of(self._shards.parts(name, self.rows))
        return self._moments[name]

    def runs(self, count: int) -> "list[FeatureSet]":
        """As many successive blocks of equally many images."""
        each = len(self) // count
        starts = range(self.rows.start, self.rows.start + each * count, each)
        return [FeatureSet(self._shards, range(start, start + each)) for start in starts]


class Resampled:
    """As many images as a set has, drawn from it with replacement (Efron 1979)."""

    def __init__(self, whole: FeatureSet, generator: np.random.Generator) -> None:
        self._whole = whole
        self._rows = generator.integers(len(whole), size=len(whole))

    def __len__(self) -> int:
        return len(self._rows)

    def layer(self, name: str) -> Float32[np.ndarray, "n d"]:
        """All features of a layer."""
        return self._whole.layer(name)[self._rows]

    def moments(self, name: str) -> Moments:
        """Their mean and covariance."""
        return moments_of(self.layer(name))


def fill(
    shards: FeatureShards,
    features_of: Callable[[range], Features],
    *,
    process_index: int = 0,
    process_count: int = 1,
    done: Callable[[int], None] = lambda images: None,
) -> int:
    """Computes and writes this process's missing files; returns how many others have to write."""
    mine = [shard for shard in shards.missing() if shard % process_count == process_index]
    for shard in mine:
        rows = shards.rows(shard)
        shards.write(shard, features_of(rows))
        done(len(rows))
    return len(shards.missing())
