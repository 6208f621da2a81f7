"""What `python -m ldm_jax.cli.webdataset` does."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from pathlib import Path
from typing import Annotated

import tyro

from ldm_jax import config as cfg
from ldm_jax.config.checks import settings
from ldm_jax.config.command_line import check_given, overridden
from ldm_jax.core.cluster import Place, find_share
from ldm_jax.core.files import check_writable

HELP = """Reads tar files once and notes where each picture, caption and class lies in them.
What is indexed already stays, unless the file is newer: the same command goes on where it was
interrupted."""


@settings
class Arguments:
    path: str = ""
    """The tar files: one, a folder of them, or a name such as train-{000000..000099}.tar."""
    validation_path: str = ""
    """Those for validation, if there are any."""
    index: str = ""
    """The folder of the index; "": the folder `index` beside the tar files."""
    verify: bool = False
    """Index nothing; compare all tar files with the checksums of the index."""
    share: Annotated[cfg.WorkShare, tyro.conf.arg(name="")] = field(default_factory=cfg.WorkShare)


def run(arguments: Arguments) -> list[str]:
    """Indexes the tar files of each split and returns a line about it.

    Raises:
        ValueError, OSError: it cannot be.
        Failed: files that are to be verified have changed.
    """
    from ldm_jax.data.tar_source import tars_of

    source = cfg.WebDataset(
        path=arguments.path, validation_path=arguments.validation_path, index=arguments.index
    )
    splits = ("train", "validation") if arguments.validation_path else ("train",)
    work, place = _verify if arguments.verify else _index, find_share(**vars(arguments.share))
    return [work(split, *tars_of(source, split), place) for split in splits]


def _index(split: str, paths: Sequence[Path], folder: Path, place: Place) -> str:
    from ldm_jax.core.progress import Progress
    from ldm_jax.data import shard_lists
    from ldm_jax.data.tar_shards import TarShard, index_tar

    check_writable(folder, f"--index={folder}")
    at = paths[0].parent
    own = paths[place.index :: place.count]
    names = [path.name for path in own]
    done = shard_lists.noted(folder, names, TarShard, at)
    todo = [path for path in own if path.name not in done or _is_newer(path, folder)]

    def index(path: Path) -> None:
        shard_lists.note_shard(folder, index_tar(path, folder))
        bar.update()

    bar = Progress(f"indexing {split} (files)", len(own), len(own) - len(todo))
    with bar, ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in threads.map(index, todo):
            pass
    # Of all files that were ever indexed here: splits may share a folder.
    every = sorted(path.name.removesuffix(".json") for path in folder.glob("notes/*.json"))
    found = shard_lists.noted(folder, every, TarShard, at)
    missing = [path.name for path in paths if path.name not in found]
    if missing:
        return f"{split}: other processes have {len(missing)} of {len(paths)} files to index"
    shard_lists.write_list(
        folder, [found[name] for name in every if name in found], shard_lists.NothingInCommon()
    )
    examples = sum(found[path.name].examples for path in paths)
    return f"{split}: {examples} examples in {len(paths)} tar files; the index is {folder}"


def _is_newer(path: Path, folder: Path) -> bool:
    """Whether a tar file was changed after it was indexed."""
    index = folder / f"{path.name}.npy"
    return not index.exists() or path.stat().st_mtime_ns > index.stat().st_mtime_ns


def _verify(split: str, paths: Sequence[Path], folder: Path, place: Place) -> str:
    from ldm_jax.cli.shards_task import verified
    from ldm_jax.data import shard_lists
    from ldm_jax.data.tar_shards import TarShard

    remedy = "the same command without --verify indexes the files"
    shards, _ = shard_lists.read_list(folder, TarShard, shard_lists.NothingInCommon, remedy)
    names = {path.name for path in paths}
    own = [one for one in shards if one.file in names]
    return verified(split, paths[0].parent, own[place.index :: place.count])


def main(program: str, words: list[str]) -> None:
    """Indexes, or verifies, what a command line says.

    Raises:
        ValueError, OSError: it cannot be.
    """
    check_given(words, ("path", "validation_path", "index"))
    print("\n".join(run(overridden(Arguments(), words, program, HELP))))
