"""Tar files in WebDataset's layout as a source."""

from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

from ldm_jax import config as cfg
from ldm_jax.core.reading import parse_json, printable
from ldm_jax.core.stores import as_path, names_in
from ldm_jax.data import shard_lists
from ldm_jax.data.sources import DataError, Split
from ldm_jax.data.stored_pictures import Stored, StoredSource, decoded_text, has_picture
from ldm_jax.data.tar_shards import TarMembers, TarShard, class_number, tar_files


class TarSource(StoredSource):
    """The examples of tar files, in their order. No tar file is read when it is opened."""

    def __init__(self, source: cfg.WebDataset, sides: tuple[int, int], split: Split) -> None:
        super().__init__(source, sides, split)
        paths, folder = tars_of(source, split)
        remedy = f"index the files (again) with {_command(source)}"
        shards, _ = shard_lists.read_list(folder, TarShard, shard_lists.NothingInCommon, remedy)
        known = {one.file: one for one in shards}
        lacking = [path for path in paths if path.name not in known]
        if lacking:
            raise DataError(f"{folder} has no index of {lacking[0]}; {remedy}")
        there = {*names_in(paths[0].parent)} if paths[0].parent.is_dir() else set()
        missing = [path for path in paths if path.name not in there]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(paths)} tar files are missing, {missing[0]} first; copy "
                "them again, or change data.source.path"
            )
        chosen = [(path, known[path.name]) for path in paths]
        self._members = TarMembers(chosen, folder, remedy)
        self._ends = [*accumulate(one.examples for _, one in chosen)]
        self._settings = source
        if not len(self):
            raise DataError(f"{paths[0]} has no examples")
        every = [one for _, one in chosen]
        has = set.intersection(*({*one.has} for one in every))
        self.has_captions = source.caption == "txt" and "txt" in has
        self.class_names = _class_names(source, every, "cls" in has)
        for name in ("caption", "label"):
            value = getattr(source, name)
            if value.startswith("json.") and "json" not in has:
                raise DataError(
                    f"data.source.{name}={value}, but not all examples of {paths[0]} and the files "
                    "after it have a .json"
                )
        self.has_captions |= source.caption != "txt"
        self.fingerprint = shard_lists.fingerprint(
            every, self.class_names, source.caption, source.label
        )
        self.found = (
            f"{len(self)} images of {split} in {len(paths)} tar file{'s' * (len(paths) > 1)}, "
            f"{printable(str(paths[0]))} first, "
            f"{'captions' if self.has_captions else 'no captions'}, "
            f"{len(self.class_names) or 'no'} classes"
        )

    def __len__(self) -> int:
        return self._ends[-1]

    def stored(self, index: int) -> Stored:
        """As `Storing.stored`."""
        index = range(len(self))[index]
        shard = bisect_right(self._ends, index)
        row = index - (self._ends[shard - 1] if shard else 0)
        name, picture = self._members.read(shard, row, "picture")
        path = self._members.path(shard)
        where = f"{path}: {name}"
        return Stored(
            has_picture(where, picture), self._caption(shard, row, where),
            self._label(shard, row, where), f"{path.name}/{name}",
        )  # fmt: skip

    def _caption(self, shard: int, row: int, where: str) -> str:
        if not self.has_captions:
            return ""
        kind, _, member = self._settings.caption.partition(".")
        name, text = self._members.read(shard, row, kind)
        if kind == "txt":
            return decoded_text(f"{self._members.path(shard)}: {name}", "it", text).strip()
        found = parse_json(where, "its .json", text).get(member)
        if not isinstance(found, str):
            raise DataError(f"{where} has no text {member!r} in its .json")
        return found.strip()

    def _label(self, shard: int, row: int, where: str) -> int:
        if not self.class_names:
            return 0
        kind, _, member = self._settings.label.partition(".")
        name, text = self._members.read(shard, row, kind)
        if kind == "cls":
            found = class_number(f"{self._members.path(shard)}: {name}", text)
        else:
            found = parse_json(where, "its .json", text).get(member)
        if type(found) is not int or not 0 <= found < len(self.class_names):
            raise DataError(f"{where} has the class {found!r}; it must be below "
                            f"{len(self.class_names)}, the number of classes")  # fmt: skip
        return found


def tars_of(source: cfg.WebDataset, split: Split) -> tuple[tuple[Path, ...], Path]:
    """The tar files of a split, and the folder of their index.

    Raises:
        DataError: the source has no such split.
    """
    if split == "test" or (split == "validation" and not source.validation_path):
        raise DataError(
            f"tar files have no {split} split"
            + "; name some with data.source.validation_path" * (split == "validation")
        )
    training = tar_files(source.path)
    own = training
    if split == "validation":
        own = tar_files(source.validation_path, "data.source.validation_path")
    folder = own[0].parent / "index"
    if source.index:
        # Files of the same names in two folders are two.
        apart = own[0].parent != training[0].parent
        folder = as_path(source.index) / split if apart else as_path(source.index)
    return own, folder


def _class_names(
    source: cfg.WebDataset, shards: list[TarShard], has_numbers: bool
) -> tuple[str, ...]:
    """The names of classes that settings give, or their numbers."""
    if source.label != "cls":
        return source.class_names
    count = max(one.classes for one in shards) if has_numbers else 0
    if source.class_names and not count <= len(source.class_names):
        raise DataError(
            f"data.source.class_names has {len(source.class_names)} names, but there are the "
            f"classes 0 to {count - 1}"
        )
    if source.class_names and not has_numbers:
        raise DataError("data.source.class_names is given, but not all examples have a .cls")
    return source.class_names or tuple(map(str, range(count)))


def _command(source: cfg.WebDataset) -> str:
    words = [
        f"--{name}={value}" for name in ("path", "validation_path", "index")
        if (value := getattr(source, name))
    ]  # fmt: skip
    return " ".join(["python -m ldm_jax.cli.webdataset", *words])
