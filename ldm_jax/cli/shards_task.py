"""What `python -m ldm_jax.cli.shards` does."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

import tyro

import ldm_jax
from ldm_jax import config as cfg
from ldm_jax.config.checks import Count, Side, require, settings
from ldm_jax.config.choices import choose
from ldm_jax.config.command_line import check_given, overridden
from ldm_jax.core.cluster import Place, find_share
from ldm_jax.core.command import Failed
from ldm_jax.core.files import check_apart, check_writable
from ldm_jax.data.sources import Source, Split

HELP = """Writes the pictures of a source, with captions, labels and names, into shards of records.
What is there already stays: the same command goes on where it was interrupted."""


@settings
class Arguments:
    out: Path | None = None
    """The folder of shards."""
    split: Literal["train", "validation", "test", "both"] = "both"
    """`both` is train, and validation where the source keeps images for it."""
    size: Side | None = None
    """Make larger pictures smaller, so that their shorter side has so many pixels; None: as they
    are."""
    shard_size: Count = 4096
    """Images in one file. An interrupted file is begun again."""
    verify: bool = False
    """Write nothing; compare all shards in `out` with their checksums."""
    share: Annotated[cfg.WorkShare, tyro.conf.arg(name="")] = field(default_factory=cfg.WorkShare)
    data: cfg.Data = field(default_factory=lambda: cfg.Data(cfg.ImageFolder()))


def run(arguments: Arguments) -> list[str]:
    """Writes the splits and returns a line about each.

    Raises:
        ValueError, OSError: it cannot be.
        Failed: shards that are to be verified are damaged.
    """
    require(arguments.out is not None, "--out", None, "the folder of shards")
    place = find_share(**vars(arguments.share))
    if arguments.verify:
        return [_verified(split, arguments.out / split, place) for split in _written(arguments)]
    source = arguments.data.source
    require(not isinstance(source, cfg.DreamBooth | cfg.EncodedLatents | cfg.Mixture),
            "data.source", type(source).__name__,
            "a source of images; of a mixture, each of its sources by itself")  # fmt: skip
    for name in ("boxes", "class_maps", "edit_images", "depth_maps"):
        beside = getattr(source, name, "")
        require(not beside, f"data.source.{name}", beside, '"": shards do not hold these')
    check_writable(arguments.out, f"--out={arguments.out}", stored=True)
    for folder in cfg.folders_of(source):
        check_apart(arguments.out, "--out", folder, "the images")
    from ldm_jax.data.sources import open_source

    sources = {split: open_source(arguments.data, split) for split in _splits(arguments)}
    # Splits of one folder say the same of it.
    for found in dict.fromkeys(source.found for source in sources.values()):
        print(f"data: {found}", flush=True)
    return [_write(split, source, arguments, place) for split, source in sources.items()]


def _splits(arguments: Arguments) -> Sequence[Split]:
    from ldm_jax.data.sources import has_validation

    if arguments.split != "both":
        return (arguments.split,)
    return ("train", "validation") if has_validation(arguments.data.source) else ("train",)


def _write(split: Split, source: Source, arguments: Arguments, place: Place) -> str:
    from ldm_jax.core.progress import Progress
    from ldm_jax.data.picture_shards import (
        begin_pictures,
        finish_pictures,
        plan_of,
        write_pictures,
    )

    settings, folder = arguments.data.source, arguments.out / split
    versions = {"ldm_jax": ldm_jax.__version__, "pillow": importlib.metadata.version("pillow")}
    plan = plan_of(source, settings, arguments.size, arguments.shard_size, **versions)
    skip = getattr(settings, "on_broken", "stop") == "skip"
    missing = begin_pictures(folder, plan)
    own = [shard for shard in missing if shard % place.count == place.index]
    images = sum(len(plan.rows(shard)) for shard in own)
    with Progress(f"writing {split}", images, images=1) as bar:
        written = sum(
            write_pictures(source, folder, plan, shard, skip=skip, tell=bar.update) for shard in own
        )
    missing = finish_pictures(folder, plan)
    if missing:
        return f"{split}: other processes have {missing} of {plan.shards} shards to write"
    done = f"{written} images written" if own else "nothing was left to write"
    if written < images:
        done += f", {images - written} left out that cannot be read"
    return f"{split}: {done}; {plan.shards} shards in {folder}"


def _written(arguments: Arguments) -> list[Split]:
    from ldm_jax.data.shard_lists import INDEX

    every: tuple[Split, ...] = ("train", "validation", "test")
    splits = [one for one in every if arguments.split in ("both", one)]
    found = [one for one in splits if (arguments.out / one / INDEX).exists()]
    require(len(found) > 0, "--out", str(arguments.out), "a folder of shards that are finished")
    return found


def _verified(split: Split, folder: Path, place: Place) -> str:
    from ldm_jax.data import shard_lists
    from ldm_jax.data.picture_shards import Common

    remedy = "the command that wrote it, without --verify, writes again what is amiss"
    shards, _ = shard_lists.read_list(folder, shard_lists.Shard, Common, remedy)
    return verified(split, folder, shards[place.index :: place.count])


def verified(what: str, folder: Path, shards: Sequence) -> str:
    """A line about `shards`, once all have been compared with their checksums.

    Raises:
        Failed: names those that differ.
    """
    from ldm_jax.core.progress import Progress
    from ldm_jax.data import shard_lists

    total = sum(one.bytes for one in shards)
    with Progress(f"comparing {what} (bytes)", total) as bar:
        problems = shard_lists.damaged_shards(folder, shards, bar.update)
    if problems:
        raise Failed(
            f"{len(problems)} of {len(shards)} shards are not what was written: "
            f"{'; '.join(problems[:5])}{'; ...' * (len(problems) > 5)}"
        )
    return f"{what}: all {len(shards)} shards are as they were written, {total:,} bytes"


def main(program: str, words: list[str]) -> None:
    """Writes, or verifies, what a command line says.

    Raises:
        ValueError, OSError: it cannot be.
    """
    check_given(words, ("out", "data.source.path"))
    arguments, words = choose(Arguments(), words)
    print("\n".join(run(overridden(arguments, words, program, HELP))))
