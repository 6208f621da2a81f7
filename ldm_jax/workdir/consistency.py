"""Whether a work directory still holds what its checkpoints were trained with, and whose it is."""

import json
from pathlib import Path
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.core import distributed
from ldm_jax.core.files import changes, digests
from ldm_jax.core.stores import there
from ldm_jax.workdir.layout import CONFIG, frozen_files
from ldm_jax.workdir.record import (
    RECORD,
    CheckpointError,
    checkpoint,
    damaged,
    has_checkpoints,
    read_record,
)
from ldm_jax.workdir.run_config import is_free, read_config


def check_workdir(workdir: Path, config: cfg.Run) -> None:
    """Checks that `workdir` is free for a new run, or that `config` goes on with the run in it.

    Raises:
        CheckpointError: the newest checkpoint or what it was trained with is damaged.
        cfg.ConfigError: names the fields in which `config` differs from that run's and which
            would make it another run.
    """
    if not has_checkpoints(workdir):
        if there(workdir / CONFIG):
            read_config(workdir)
        return
    if not there(workdir / CONFIG):
        raise cfg.ConfigError(
            f"{workdir} has checkpoints but no {CONFIG}; restore that file (each checkpoint has a "
            "copy in its subfolder run), or use another --workdir"
        )
    check_parts(workdir)
    check_same_run(workdir, config)


def check_same_run(workdir: Path, config: cfg.Run) -> None:
    """Raises ConfigError, naming the fields, where `config` is another run than `workdir`'s."""
    changed = [c for c in cfg.differences(read_config(workdir), config) if not is_free(c[0])]
    if changed:
        listed = "; ".join(f"{where} was {old!r}, is {new!r}" for where, old, new in changed)
        raise cfg.ConfigError(
            f"{workdir} has a run with other settings: {listed}. Use the same settings to "
            "continue it, or another --workdir for a new run"
        )


def frozen_digests(workdir: Path, run: cfg.Run) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every frozen file of `run`, for the record of its checkpoints."""
    return digests(workdir, frozen_files(run, workdir))


def check_parts(workdir: Path, step: int | None = None) -> None:
    """Raises CheckpointError unless `workdir` holds what checkpoint `step`, by default the newest,
    was trained with: its config, and its frozen files bit for bit. Process 0 looks.

    Checkpoints of earlier versions, which note no frozen files, are compared by their config.
    """
    directory = checkpoint(workdir, step)
    found = distributed.found_by_first(lambda: _part_changes(workdir, directory))
    if found:
        raise CheckpointError(
            f"{workdir} has changed since checkpoint {directory.name} was saved: {found}. Restore "
            f"the files; the checkpoint's copy of the config is in {directory / RECORD}"
        )


def _part_changes(workdir: Path, directory: Path) -> list[str]:
    record = read_record(directory)
    try:
        run = cfg.from_json(json.dumps(record["config"]))
    except cfg.ConfigError as error:
        raise damaged(directory, str(error)) from error
    now = read_config(workdir)
    found = [
        f"in {workdir / CONFIG} {field} was {old!r}, is {new!r}"
        for field, old, new in cfg.differences(run, now)
        if not is_free(field)
    ]
    noted = record.get("frozen")
    if noted is None:
        return found
    missing = [name for name in frozen_files(run, workdir) if name not in noted]
    found += [f"{directory / RECORD} notes no {name}" for name in missing]
    return found + changes(workdir, noted, f"{directory / RECORD}")
