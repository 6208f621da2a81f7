"""Checkpoints of a work directory: written atomically, read strictly.

A checkpoint appears under its step's name once it is complete. What an interrupted save leaves
has another name, is never read, and is cleared away by the next run.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.serialization import to_state_dict
from orbax.checkpoint.future import ChainedFuture

from ldm_jax import config as cfg
from ldm_jax.core import distributed, store_copies, tree
from ldm_jax.core.command import Failed, say
from ldm_jax.core.files import damage, digests, files_below, reason_of, remove_folder, write_digests
from ldm_jax.core.stores import is_stored, is_unreachable, known_to_orbax, local_folder
from ldm_jax.workdir.consistency import check_parts, frozen_digests
from ldm_jax.workdir.record import (
    COMMIT,
    WRITTEN_AT_COMMIT,
    CheckpointError,
    check_files,
    checkpoint,
    checkpoints_of,
    damaged,
    read_record,
    steps_of,
)

_TRASH = "trash"


class SaveFailed(Failed):
    """A checkpoint could not be written; those before it are as they were."""


@dataclasses.dataclass(frozen=True)
class Criterion:
    """The metric by which the best checkpoint is kept."""

    name: str = "validation_loss"
    higher_is_better: bool = False

    def value(self, metrics: Mapping[str, float] | None) -> float:
        """It, or NaN where there is none."""
        return float((metrics or {}).get(self.name, math.nan))

    def best(self, values: Mapping[int, float]) -> int | None:
        """The step of the best of finite values, of equal ones the latest; None without any."""
        sign = -1 if self.higher_is_better else 1
        finite = {step: sign * value for step, value in values.items() if math.isfinite(value)}
        return min(finite, key=lambda step: (finite[step], -step)) if finite else None


class Checkpoints:
    """The checkpoints of one work directory; use it as a context manager.

    Keeps the `keep` newest ones, the best one by `criterion`, and those whose metrics cannot be
    read. All processes of a run make the same calls. In a store, whose folders cannot be renamed, a
    checkpoint is written under its own name and has a last file that makes it one. To a store that
    orbax does not write to it is copied from a folder of this machine, by a run of one process.
    """

    def __init__(self, workdir: Path, keep: int, criterion: Criterion | None = None) -> None:
        _quiet()
        self.criterion = criterion or Criterion()
        self._workdir, self._root = workdir, checkpoints_of(workdir)
        self._empty_trash()
        if is_stored(self._root) and jax.process_index() == 0:
            self._remove_unfinished()
        self._saving: int | None = None
        self._frozen: dict[str, Any] | None = None
        self._unread: set[int] = set()
        self._values = {step: self._past_value(step) for step in steps_of(workdir)}
        self._stay = _NewestAndBest(keep, self.criterion, self._values, self._unread)
        stored, mode = is_stored(self._root), ocp.options.AtomicityMode
        self._staged = None if known_to_orbax(self._root) else _staging_folder(self._root)
        self._manager = ocp.CheckpointManager(
            os.fspath(self._staged or self._root),
            item_handlers=_handlers() | {"state": _writer(self._digest_own_files)},
            options=ocp.CheckpointManagerOptions(
                # In a store `_remove_old` does what is due.
                preservation_policy=_All() if stored else self._stay,
                cleanup_tmp_directories=True,
                # Renamed first, so that an interrupted deletion leaves no half checkpoint.
                todelete_subdir=None if stored else _TRASH,
                async_options=ocp.options.AsyncOptions(
                    post_finalization_callback=self._write_digests
                ),
                atomicity_options=ocp.options.AtomicityOptions(
                    mode=mode.COMMIT_FILE if stored and self._staged is None else mode.ATOMIC_RENAME
                ),
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def save(
        self,
        step: int,
        state: Any,
        data_state: dict[str, Any],
        config: Any,
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Starts saving; returns once `state` may be changed or donated.

        The one of `metrics` that the criterion names decides, if it is there, which checkpoint is
        the best one. An error of the previous save is raised here, by `check` or by `wait`.

        Raises:
            CheckpointError: there is a checkpoint of this or of a later step.
            SaveFailed: it cannot be written.
        """
        self.wait()
        latest = self.latest_step()
        if latest is not None and latest >= step:
            raise CheckpointError(
                f"step {step} cannot be saved: {self._root} already has step {latest}"
            )
        self._saving = step
        self._values[step] = self.criterion.value(metrics)
        if self._frozen is None:  # process 0 writes the record
            first = jax.process_index() == 0
            self._frozen = frozen_digests(self._workdir, config) if first else {}
        arguments = ocp.args.Composite(
            state=ocp.args.PyTreeSave(to_state_dict(state)),
            run=ocp.args.JsonSave(
                {
                    "data": data_state,
                    "config": json.loads(cfg.to_json(config)),
                    "metrics": metrics or {},
                    "frozen": self._frozen,
                }
            ),
        )
        with self._saving_errors():
            self._manager.save(step, args=arguments, force=True)

    def check(self) -> None:
        """Raises SaveFailed if the save that was started has failed; does not wait for it."""
        if self._saving is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, one that is still being saved included, or None."""
        return max(self._steps(), default=None)

    def best_step(self) -> int | None:
        """Step of the best checkpoint, or None where none has what decides it."""
        return self.criterion.best(self.values())

    def values(self) -> dict[int, float]:
        """The metric that decides, of each checkpoint by its step; NaN where there is none."""
        return {step: self._values[step] for step in self._steps() if step in self._values}

    def _steps(self) -> Sequence[int]:
        return self._manager.all_steps() if self._staged is None else [*self._values]

    def restore(self, abstract_state: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """State and data position of `step`, by default the newest.

        Args:
            abstract_state: tree of `jax.ShapeDtypeStruct` with shardings, or of arrays; the
                state comes in its structure, placed as it says.
            step: which checkpoint.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            CheckpointError: a file is damaged or missing, or names, shapes or dtypes differ;
                the text names the folder, the files and the keys.
        """
        directory = checkpoint(self._workdir, step)
        check_files(directory)
        wanted = to_state_dict(abstract_state)
        try:
            tree.merge(wanted, _saved_structure(directory))
        except tree.TreeError as error:
            raise CheckpointError(
                f"checkpoint {directory} does not fit this run: {error}"
            ) from error
        arguments = ocp.args.PyTreeRestore(
            item=wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted)
        )
        restored = _read(directory, state=arguments).state
        return tree.merge(abstract_state, restored), read_record(directory)["data"]

    def run_of(self, step: int) -> cfg.Run:
        """The config that checkpoint `step` was trained with.

        Raises:
            CheckpointError, cfg.ConfigError: it is damaged.
        """
        record = read_record(checkpoint(self._workdir, step))
        return cfg.from_json(json.dumps(record["config"]))

    @staticmethod
    def load_params(
        workdir: Path, which: Literal["ema", "raw"], step: int | None = None
    ) -> tuple[int, Any]:
        """Step and parameters (numpy) of a checkpoint of `workdir`, without its optimiser.

        Args:
            workdir: any work directory; it is only read.
            which: `ema`, the parameter average, or `raw`, the parameters themselves.
            step: which checkpoint, by default the newest.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            CheckpointError: a file is damaged or missing, the config or a frozen file of `workdir`
                is another than it was trained with, or the run keeps no average.
        """
        directory = checkpoint(workdir, step)
        check_files(directory)
        check_parts(workdir, step)
        name = {"ema": "ema_params", "raw": "params"}[which]
        saved = _saved_structure(directory).get(name)
        if not saved:
            raise CheckpointError(
                f"{directory} has no {name}"
                + ("; the run keeps no average, use the raw weights" if which == "ema" else "")
            )
        item = {name: jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), saved)}
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        arguments = ocp.args.PyTreeRestore(item=item, restore_args=as_numpy, partial_restore=True)
        return int(directory.name), _read(directory, state=arguments).state[name]

    def wait(self) -> None:
        """Returns when what was started is saved; raises SaveFailed if that failed."""
        with self._saving_errors():
            self._manager.wait_until_finished()
        if self._saving is not None and is_stored(self._root):
            self._remove_old()
            if self._staged is not None:
                remove_folder(self._staged / str(self._saving))
        self._saving = None
        self._empty_trash()

    def close(self) -> None:
        """Waits, and releases threads; raises SaveFailed if the last save failed."""
        try:
            if self._saving is not None:
                self.wait()
        finally:
            # It has been said already what went wrong.
            with contextlib.suppress(Exception):
                self._manager.close()
            self._clear_unfinished()
            self._empty_trash()
            if self._staged is not None:
                remove_folder(self._staged)

    @contextlib.contextmanager
    def _saving_errors(self) -> Iterator[None]:
        """Errors of orbax in one sentence; what a failed save wrote is cleared away."""
        step = self._saving
        try:
            yield
        except Exception as error:
            self._saving = None
            self._values.pop(step, None)
            # Orbax leaves what it had yet to do; that nobody did it is no news.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            self._clear_unfinished()
            good = [one for one in steps_of(self._workdir) if one != step]
            kept = "there is no checkpoint yet"
            if good:
                kept = f"the last good checkpoint is step {good[-1]}"
            raise SaveFailed(
                f"step {step} could not be saved in {self._root}: {reason_of(error)}; {kept}. "
                f"{_remedy(self._root)}, and the same command goes on from there"
            ) from error

    def _past_value(self, step: int) -> float:
        """What decides in a checkpoint's record; what cannot be read must not stop a run that goes
        on from another one."""
        try:
            return self.criterion.value(read_record(self._root / str(step))["metrics"])
        except CheckpointError as error:
            if step != steps_of(self._workdir)[-1] and jax.process_index() == 0:
                say(f"{error}. It is left where it is")
            self._unread.add(step)
            return math.nan

    def _clear_unfinished(self) -> None:
        """Removes what a failed save wrote, also what its threads write while it is removed."""
        if jax.process_index():
            return
        if is_stored(self._root):
            with contextlib.suppress(OSError):  # the next run does it
                self._remove_unfinished()
            return
        for _ in range(50):
            unfinished = list(self._root.glob("*.orbax-checkpoint-tmp*"))
            if not unfinished:
                return
            for folder in unfinished:
                shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.02)

    def _remove_unfinished(self) -> None:
        """Removes what in a store is no checkpoint for want of its last file."""
        whole = {*steps_of(self._workdir)}
        folders = {path.parts[len(self._root.parts)] for path in self._root.rglob("*")}
        for name in folders:
            if name.isdecimal() and int(name) not in whole:
                remove_folder(self._root / name)

    def _remove_old(self) -> None:
        """Removes those checkpoints in a store that need not stay; each ceases to be one at once,
        so that nobody sees half of it."""
        steps = sorted(self._values)
        infos = [_Step(step) for step in steps]
        kept = self._stay.should_preserve(infos, context=None)
        for step in (step for step, stays in zip(steps, kept, strict=True) if not stays):
            del self._values[step]
            if jax.process_index() == 0:
                folder = self._root / str(step)
                (folder / COMMIT).unlink(missing_ok=True)
                remove_folder(folder)

    def _empty_trash(self) -> None:
        if jax.process_index() == 0 and not is_stored(self._root):
            shutil.rmtree(self._root / _TRASH, ignore_errors=True)

    def _digest_own_files(self) -> None:
        """Tells process 0 size and digest of every file that this process wrote of the state.

        They lie in a folder of their own, and nobody changes them afterwards; the folder above gets
        its name later.
        """
        own, noted = f"ocdbt.process_{jax.process_index()}", {}
        for directory in self._unfinished():
            for folder in directory.glob(f"state*/{own}"):
                found = digests(folder, files_below(folder))
                noted |= {f"state/{own}/{name}": digest for name, digest in found.items()}
        distributed.tell_first(f"digests/{self._saving}", json.dumps(noted))

    def _write_digests(self) -> None:
        """Notes size and digest of every file, after the last is written and before the commit."""
        if jax.process_index():
            return
        told = distributed.told_to_first(f"digests/{self._saving}")
        noted = {name: digest for one in told for name, digest in json.loads(one).items()}
        for directory in self._unfinished():
            write_digests(directory, besides=WRITTEN_AT_COMMIT, noted=noted)
            if self._staged is not None:
                target = self._root / str(self._saving)
                target.put_files(directory, files_below(directory))
                (target / COMMIT).write_bytes(b"")

    def _unfinished(self) -> list[Path]:
        """The folder of the checkpoint that is being written; where a failed save left something,
        that too."""
        if is_stored(self._root) and self._staged is None:
            return [self._root / str(self._saving)]
        folder = self._staged or self._root
        return [*folder.glob(f"{self._saving}.orbax-checkpoint-tmp*")]


class _Step(NamedTuple):
    """A checkpoint as a preservation policy sees it."""

    step: int


@dataclasses.dataclass
class _NewestAndBest:
    """Orbax's preservation policy: which checkpoints stay when a new one is complete."""

    keep: int
    criterion: Criterion
    values: dict[int, float]
    unread: set[int]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = sorted(info.step for info in checkpoints)
        best = self.criterion.best({step: self.values[step] for step in steps})
        stay = {*steps[-self.keep :], best, *self.unread}
        return [info.step in stay for info in checkpoints]


class _All:
    """Orbax's preservation policy: all checkpoints stay."""

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        return [True] * len(checkpoints)


def _quiet() -> None:
    """Keeps orbax from printing tracebacks of what `Checkpoints` says in a sentence, and what is no
    news."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_news)
    usual = sys.unraisablehook

    def hook(raised: Any) -> None:
        # TensorStore's callbacks find the event loop of a failed save gone.
        if not (
            raised.exc_type is RuntimeError and str(raised.exc_value) == "Event loop is closed"
        ):
            usual(raised)

    sys.unraisablehook = hook


def _is_news(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    of_orbax = "orbax" in record.pathname or "orbax" in text
    # That a save waits for the one before it is how `Checkpoints` is meant to work.
    return not (of_orbax and (record.exc_info or text.startswith("Waiting for previous save")))


def _remedy(root: Path) -> str:
    """What to do where something cannot be written to `root`."""
    if is_stored(root):
        return "See that the store can be reached and written to"
    return "Make room or repair the disk"


def _readable(directory: Path) -> str:
    """Where orbax reads a checkpoint."""
    return str(directory if known_to_orbax(directory) else local_folder(directory))


def _staging_folder(root: Path) -> Path:
    """An empty folder of this machine for what goes to `root`, without what a killed run left."""
    folder = (
        store_copies.folder().parent / "staged" / hashlib.sha256(str(root).encode()).hexdigest()
    )
    remove_folder(folder)
    folder.mkdir(parents=True)
    return folder


def _handlers() -> dict[str, Any]:
    """Who reads and writes the items of a checkpoint."""
    return {"state": ocp.PyTreeCheckpointHandler(), "run": ocp.JsonCheckpointHandler()}


def _writer(written: Callable[[], None]) -> ocp.PyTreeCheckpointHandler:
    """Orbax's handler of the state, which calls `written` once this process has written its part
    and before any process goes on with what needs all parts."""
    handler = ocp.PyTreeCheckpointHandler()
    save = handler.async_save

    async def save_and_call(*arguments: Any, **options: Any) -> list[Any]:
        return [ChainedFuture(await save(*arguments, **options) or [], written)]

    # Orbax knows handlers by their class, so that one of our own would need its own arguments.
    handler.async_save = save_and_call
    return handler


@contextlib.contextmanager
def _reader(directory: Path) -> Iterator[ocp.Checkpointer]:
    """Orbax's reader of a checkpoint; its errors come under the folder's name."""
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler(**_handlers())) as checkpointer:
            yield checkpointer
    except Exception as error:
        if is_unreachable(error):
            raise
        found = "; ".join(damage(directory)) or reason_of(error)
        raise damaged(directory, found) from error


def _read(directory: Path, **items: Any) -> Any:
    """Items of a checkpoint by name, each with its arguments for restoring."""
    with _reader(directory) as checkpointer:
        return checkpointer.restore(_readable(directory), args=ocp.args.Composite(**items))


def _saved_structure(directory: Path) -> dict[str, Any]:
    """The state's nested dicts with shapes and dtypes for leaves."""
    with _reader(directory) as checkpointer:
        return checkpointer.metadata(_readable(directory)).item_metadata.state.tree
