"""Checkpoints as folders: which there are, whether they are intact, and what they say of themselves
besides their state."""

from pathlib import Path
from typing import Any

from ldm_jax.core import distributed
from ldm_jax.core.files import DIGESTS, changes, damage
from ldm_jax.core.reading import read_json
from ldm_jax.core.stores import is_stored
from ldm_jax.workdir.layout import CHECKPOINTS

ITEMS = ("state", "run")
"""The parts of a checkpoint, each a folder of it."""
COMMIT = "commit_success.txt"
"""The last file of a checkpoint in a store, which has no folders that could be renamed."""
RECORD = "run/metadata"
WRITTEN_AT_COMMIT = ("_CHECKPOINT_METADATA", COMMIT)
"""Files that orbax writes after the digests."""


class CheckpointError(ValueError):
    """A checkpoint or frozen part that is damaged, or does not fit what it is loaded into."""


def steps_of(workdir: Path) -> list[int]:
    """Steps of the complete checkpoints, rising; other folders have names that are no steps."""
    root = checkpoints_of(workdir)
    if is_stored(root):
        names = [path.parent.name for path in root.glob(f"*/{COMMIT}")]
    else:
        names = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def has_checkpoints(workdir: Path) -> bool:
    """Whether there is anything in `workdir` to go on from."""
    return bool(steps_of(workdir))


def checkpoints_of(workdir: Path) -> Path:
    """The folder of the checkpoints."""
    return workdir.absolute() / CHECKPOINTS


def checkpoint(workdir: Path, step: int | None = None) -> Path:
    """Folder of the checkpoint `step`, by default the newest.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    steps = steps_of(workdir)
    root = checkpoints_of(workdir)
    if not steps:
        raise FileNotFoundError(f"{root} has no checkpoint")
    if step is not None and step not in steps:
        raise FileNotFoundError(f"{root} has no step {step}; it has {steps}")
    return root / str(steps[-1] if step is None else step)


def check_files(directory: Path) -> None:
    """Raises CheckpointError unless every file is as it was written; each process of a run reads
    its share."""

    def look(index: int, count: int) -> list[str]:
        return damage(directory, ITEMS, WRITTEN_AT_COMMIT, (index, count))

    found = distributed.found_together(look)
    if found:
        raise damaged(directory, found)


def damaged(directory: Path, problem: str) -> CheckpointError:
    """The error for a checkpoint that cannot be used, with what to do about it."""
    older = [step for step in steps_of(directory.parent.parent) if step < int(directory.name)]
    go_on = f"go on from step {older[-1]}" if older else "begin anew"
    return CheckpointError(
        f"checkpoint {directory} is damaged: {problem}. Restore the files, or move the folder away "
        f"to {go_on}"
    )


def read_record(directory: Path) -> dict[str, Any]:
    """What a checkpoint says besides the state: `data`, `config`, `metrics` and, but for those of
    earlier versions, `frozen`.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = directory / RECORD
    try:
        noted = read_json(directory / DIGESTS).get(RECORD)
        problems = changes(directory, {RECORD: noted}, str(directory / DIGESTS))
        record = {} if problems else read_json(path)
    except ValueError as error:
        raise damaged(directory, str(error)) from error
    if problems:
        raise damaged(directory, problems[0])
    for name in ("data", "config", "metrics"):
        if not isinstance(record.get(name), dict):
            raise damaged(directory, f"{path} has no {name}")
    step = record["data"].get("step", int(directory.name))
    if step != int(directory.name):
        raise damaged(directory, f"it is that of step {step} under another name")
    return record
