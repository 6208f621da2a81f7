"""Checkpoints, configs and frozen parts of a work directory: written atomically, read strictly.

    WORKDIR/config.json                 the run's config
    WORKDIR/checkpoints/STEP/state      training state (orbax, OCDBT)
    WORKDIR/checkpoints/STEP/run        JSON: position of the data, config, validation metrics
    WORKDIR/checkpoints/STEP/digests.json   size and SHA-256 of every file

A checkpoint appears under its step's name once it is complete. What an interrupted save leaves
has another name, is never read, and is cleared away by the next run.
"""

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
import safetensors
import safetensors.numpy
from flax.serialization import to_state_dict
from jax.experimental import multihost_utils

from ldm_jax import config as cfg
from ldm_jax.core import tree
from ldm_jax.core.files import damage, write_atomically, write_digests

VALIDATION_LOSS = "validation_loss"
CONFIG = "config.json"
_TRASH = "trash"
_WRITTEN_AT_COMMIT = ("_CHECKPOINT_METADATA", "commit_success.txt")
_FREE_FIELDS = {
    "loop.steps", "loop.log_every", "loop.checkpoint_every", "loop.keep", "loop.validate_every",
    "loop.validation_batches", "loop.sample_every", "loop.remat", "mesh.data", "mesh.fsdp",
    "mesh.tensor", "data.workers", "data.source.data_dir", "data.source.path",
    "data.source.on_broken", "loss.perceptual.vgg", "loss.perceptual.heads",
}  # fmt: skip
"""What may change when a run goes on: how long, how often, on what devices, from which folder.
Before the first checkpoint there is nothing to go on with, and everything may change."""


class CheckpointError(ValueError):
    """A checkpoint or frozen part that is damaged, or does not fit what it is loaded into."""


def write_config(workdir: Path, config: Any) -> None:
    """Writes `config` as WORKDIR/config.json, atomically."""
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(workdir / CONFIG, cfg.to_json(config).encode())


def read_config(workdir: Path) -> Any:
    """The config in WORKDIR/config.json.

    Raises:
        FileNotFoundError: there is none.
        cfg.ConfigError: it is damaged, or has settings that do not exist.
    """
    path = workdir / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; {workdir} is not a work directory")
    try:
        return cfg.from_json(path.read_text())
    except (cfg.ConfigError, UnicodeDecodeError) as error:
        raise cfg.ConfigError(f"{path}: {error}") from error


def check_workdir(workdir: Path, config: cfg.Run) -> None:
    """Checks that `workdir` is free for a new run, or that `config` goes on with the run in it.

    Raises:
        cfg.ConfigError: names the fields in which `config` differs from that run's and which
            would make it another run.
    """
    if (workdir / CONFIG).exists():
        saved = read_config(workdir)
        changed = [c for c in cfg.differences(saved, config) if c[0] not in _FREE_FIELDS]
        if changed and has_checkpoints(workdir):
            listed = "; ".join(f"{where} was {old!r}, is {new!r}" for where, old, new in changed)
            raise cfg.ConfigError(
                f"{workdir} holds another run: {listed}. Use its settings to go on with it, or "
                "another --workdir for a new run"
            )
    elif has_checkpoints(workdir):
        raise cfg.ConfigError(
            f"{workdir} has checkpoints but no {CONFIG}; restore that file (each checkpoint "
            "has a copy in its folder run), or use another --workdir"
        )


def has_checkpoints(workdir: Path) -> bool:
    """Whether there is anything in `workdir` to go on from."""
    return bool(_steps(workdir))


class Checkpoints:
    """The checkpoints of one work directory; use it as a context manager.

    Keeps the `keep` newest ones and the one with the lowest validation loss. All processes of a
    run make the same calls.
    """

    def __init__(self, workdir: Path, keep: int) -> None:
        self._root = _root(workdir)
        self._empty_trash()
        self._saving: int | None = None
        self._losses = {
            step: _loss(_read_run(self._root / str(step))["metrics"]) for step in _steps(workdir)
        }
        self._manager = ocp.CheckpointManager(
            self._root,
            item_handlers=_handlers(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_NewestAndBest(keep, self._losses),
                cleanup_tmp_directories=True,
                # Renamed first, so that an interrupted deletion leaves no half checkpoint.
                todelete_subdir=_TRASH,
                async_options=ocp.options.AsyncOptions(
                    post_finalization_callback=self._write_digests
                ),
                atomicity_options=ocp.options.AtomicityOptions(
                    mode=ocp.options.AtomicityMode.ATOMIC_RENAME
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

        `metrics["validation_loss"]`, if given, decides which checkpoint is the best one. An
        error of the previous save is raised here or by `wait`.

        Raises:
            CheckpointError: there is a checkpoint of this or of a later step.
        """
        self.wait()
        latest = self.latest_step()
        if latest is not None and latest >= step:
            raise CheckpointError(
                f"step {step} cannot be saved: {self._root} already has step {latest}"
            )
        self._saving = step
        self._losses[step] = _loss(metrics)
        arguments = ocp.args.Composite(
            state=ocp.args.PyTreeSave(to_state_dict(state)),
            run=ocp.args.JsonSave(
                {
                    "data": data_state,
                    "config": json.loads(cfg.to_json(config)),
                    "metrics": metrics or {},
                }
            ),
        )
        if not self._manager.save(step, args=arguments, force=True):
            raise CheckpointError(f"step {step} was not saved to {self._root}")

    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, one that is still being saved included, or None."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Step of the checkpoint with the lowest validation loss, or None where none has one."""
        return _best({step: self._losses[step] for step in self._manager.all_steps()})

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
        directory = _checkpoint(self._root.parent, step)
        _check_files(directory)
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
        return tree.merge(abstract_state, restored), _read_run(directory)["data"]

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
            CheckpointError: a file is damaged or missing, or the run keeps no average.
        """
        directory = _checkpoint(workdir, step)
        _check_files(directory)
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
        """Returns when what was started is saved; raises the error if that failed."""
        self._manager.wait_until_finished()
        self._empty_trash()

    def close(self) -> None:
        """Waits, and releases threads."""
        self._manager.close()
        self._empty_trash()

    def _empty_trash(self) -> None:
        if jax.process_index() == 0:
            shutil.rmtree(self._root / _TRASH, ignore_errors=True)

    def _write_digests(self) -> None:
        """Notes size and digest of every file, after the last is written and before the commit."""
        if jax.process_index():
            return
        for directory in self._root.glob(f"{self._saving}.orbax-checkpoint-tmp*"):
            write_digests(directory, besides=_WRITTEN_AT_COMMIT)


@dataclasses.dataclass
class _NewestAndBest:
    """Orbax's preservation policy: which checkpoints stay when a new one is complete."""

    keep: int
    losses: dict[int, float]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = sorted(info.step for info in checkpoints)
        stay = {*steps[-self.keep :], _best({step: self.losses[step] for step in steps})}
        return [info.step in stay for info in checkpoints]


def _best(losses: dict[int, float]) -> int | None:
    finite = {step: loss for step, loss in losses.items() if math.isfinite(loss)}
    return min(finite, key=lambda step: (finite[step], -step)) if finite else None


def _loss(metrics: dict[str, float] | None) -> float:
    """The validation loss, or NaN where there is none."""
    return float((metrics or {}).get(VALIDATION_LOSS, math.nan))


def _root(workdir: Path) -> Path:
    return workdir.absolute() / "checkpoints"


def _steps(workdir: Path) -> list[int]:
    """Steps of the complete checkpoints, rising; others have names that are not numbers."""
    root = _root(workdir)
    names = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def _checkpoint(workdir: Path, step: int | None) -> Path:
    """Folder of the checkpoint `step`, by default the newest."""
    steps = _steps(workdir)
    if not steps:
        raise FileNotFoundError(f"{_root(workdir)} has no checkpoint")
    if step is not None and step not in steps:
        raise FileNotFoundError(f"{_root(workdir)} has no step {step}; it has {steps}")
    return _root(workdir) / str(steps[-1] if step is None else step)


def _check_files(directory: Path) -> None:
    """Raises CheckpointError unless every file is as it was written; process 0 looks."""
    problems = damage(directory) if jax.process_index() == 0 else []
    damaged = bool(problems)
    if jax.process_count() > 1:
        damaged = bool(multihost_utils.broadcast_one_to_all(np.int32(damaged)))
    if damaged:
        found = "; ".join(problems[: tree.LISTED]) or "process 0 names the files"
        raise CheckpointError(
            f"checkpoint {directory} is damaged: {found}. Restore the files, or move the folder "
            "away to go on from the checkpoint before"
        )


def _handlers() -> dict[str, Any]:
    """Who reads and writes the items of a checkpoint."""
    return {"state": ocp.PyTreeCheckpointHandler(), "run": ocp.JsonCheckpointHandler()}


@contextmanager
def _reader(directory: Path) -> Iterator[ocp.Checkpointer]:
    """Orbax's reader of a checkpoint; its errors come under the folder's name."""
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler(**_handlers())) as checkpointer:
            yield checkpointer
    except Exception as error:
        found = "; ".join(damage(directory)) or str(error)
        raise CheckpointError(f"checkpoint {directory} cannot be read: {found}") from error


def _read(directory: Path, **items: Any) -> Any:
    """Items of a checkpoint by name, each with its arguments for restoring."""
    with _reader(directory) as checkpointer:
        return checkpointer.restore(directory, args=ocp.args.Composite(**items))


def _read_run(directory: Path) -> dict[str, Any]:
    """What a checkpoint says besides the state: `data`, `config` and `metrics`."""
    return _read(directory, run=ocp.args.JsonRestore()).run


def _saved_structure(directory: Path) -> dict[str, Any]:
    """The state's nested dicts with shapes and dtypes for leaves."""
    with _reader(directory) as checkpointer:
        return checkpointer.metadata(directory).item_metadata.state.tree


def save_frozen(folder: Path, name: str, frozen: Any) -> None:
    """Writes FOLDER/NAME.safetensors, keys joined by `/`, atomically and once.

    Writing the same again does nothing, so that an interrupted start can be repeated.

    Raises:
        FileExistsError: it exists with other contents; frozen parts of a model never change.
    """
    path = folder / f"{name}.safetensors"
    flat = {key: np.asarray(leaf, order="C") for key, leaf in tree.flatten(frozen).items()}
    content = safetensors.numpy.save(flat)
    if path.exists():
        if path.read_bytes() != content:
            raise FileExistsError(f"{path} exists with other contents; use another work directory")
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)


def load_frozen(folder: Path, name: str) -> dict[str, Any]:
    """The nested dicts of numpy arrays in FOLDER/NAME.safetensors.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: the file is damaged.
    """
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        return tree.unflatten(safetensors.numpy.load_file(path))
    except (safetensors.SafetensorError, tree.TreeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
