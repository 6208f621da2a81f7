"""Shards of pictures as a source; opening it reads a list, whose length is that of the shards."""

from ldm_jax import config as cfg
from ldm_jax.core.reading import printable
from ldm_jax.core.stores import as_path, check_copies, there
from ldm_jax.data import shard_lists
from ldm_jax.data.picture_shards import PLAN, Common, read_record
from ldm_jax.data.records import Records
from ldm_jax.data.shard_lists import Shard
from ldm_jax.data.shard_plans import SUFFIX
from ldm_jax.data.sources import DataError, Split
from ldm_jax.data.stored_pictures import Stored, StoredSource


class ShardsSource(StoredSource):
    """The examples of one split, in the order in which they were written."""

    def __init__(self, source: cfg.Shards, sides: tuple[int, int], split: Split) -> None:
        super().__init__(source, sides, split)
        if not source.path:
            raise DataError("data.source.path is missing: name the folder of shards")
        folder = as_path(source.path) / split
        command = f"python -m ldm_jax.cli.shards --out={source.path}"
        if not has_split(source, split):
            begun = there(folder / PLAN)
            raise DataError(
                f"{folder} is not finished: the {command} that began it goes on with it"
                if begun
                else f"{source.path} has no {split} split ({folder / shard_lists.INDEX} does not "
                f"exist); write it with {command} --data.source.path=FOLDER"
            )
        remedy = f"copy it again, or repeat the {command} that wrote it, which writes what is amiss"
        shards, common = shard_lists.read_list(folder, Shard, Common, remedy)
        shard_lists.check_present(folder, shards, SUFFIX, remedy)
        check_copies(folder, "or read tar files, whose members are asked for one by one")
        paths = [folder / one.file for one in shards]
        self._records = Records(paths, remedy, [one.examples for one in shards])
        self.class_names, self.has_captions = common.class_names, common.has_captions
        if not len(self):
            raise DataError(f"{folder} has no examples; {remedy}")
        self.fingerprint = shard_lists.fingerprint(shards, self.class_names, self.has_captions)
        self.found = (
            f"{len(self)} images of {split} in {len(shards)} shard{'s' * (len(shards) > 1)} in "
            f"{printable(source.path)}, {'captions' if self.has_captions else 'no captions'}, "
            f"{len(self.class_names) or 'no'} classes"
        )

    def __len__(self) -> int:
        return len(self._records)

    def stored(self, index: int) -> Stored:
        """As `Storing.stored`."""
        index = range(len(self))[index]
        return read_record(self._records.named(index), self._records[index])


def has_split(source: cfg.Shards, split: Split) -> bool:
    """Whether a split is there and finished."""
    return there(as_path(source.path) / split / shard_lists.INDEX)
