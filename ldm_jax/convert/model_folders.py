"""Folders and files that appear whole or not at all, and that replace nothing unasked."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core.files import remove, temporary, write_atomically, writing
from ldm_jax.core.reading import FileFormatError, read_json
from ldm_jax.core.signals import at_end, undisturbed
from ldm_jax.core.stores import is_stored

MARKS = (
    "model.json", "model_index.json", "config.json", "adapter_config.json",
    "unet/adapter_config.json",
)  # fmt: skip
"""What tells that a folder is a model or an adapter, which alone may be replaced."""


def check_target(path: Path, overwrite: bool) -> None:
    """Raises ConvertError where `path` must not be written."""
    check_place(path)
    if not path.exists() and not path.is_symlink():
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    if not overwrite:
        raise ConvertError(f"{path} exists; choose another, or --overwrite")
    if not path.is_dir() or path.is_symlink():
        raise ConvertError(f"{path} is no folder; a folder is to be written there")
    if not any((path / mark).is_file() for mark in MARKS):
        raise ConvertError(f"{path} is a folder without a model; it is not overwritten")
    if _is_work_directory(path):
        raise ConvertError(
            f"{path} is a work directory, whose checkpoints would be lost; choose another"
        )


def check_file(path: Path, overwrite: bool) -> None:
    """Raises ConvertError where the single file `path` must not be written."""
    if path.suffix != ".safetensors":
        raise ConvertError(f"{path}: a single file is written as safetensors; name it so")
    check_place(path)
    if path.exists() and not overwrite:
        raise ConvertError(f"{path} exists; choose another, or --overwrite")


def check_place(path: Path) -> None:
    """Raises ConvertError where `path` lies in a model, or in the work directory of one."""
    parent = path.parent if is_stored(path) else Path(os.path.realpath(path.parent))
    for folder in (parent, *parent.parents):
        if _is_model(folder):
            raise ConvertError(
                f"{path} lies in {folder}, which is a model; name a place outside of it"
            )


def _is_model(folder: Path) -> bool:
    """Whether it is surely one: a `config.json` alone may be anybody's."""
    native = (folder / "model.json").is_file() and (folder / "weights.safetensors").is_file()
    return native or (folder / "model_index.json").is_file() or _is_work_directory(folder)


def _is_work_directory(folder: Path) -> bool:
    """Whether it has the config of a run."""
    path = folder / "config.json"
    try:
        kind = read_json(path).get("type") if path.is_file() else None
    except (FileFormatError, OSError):
        return False
    return isinstance(kind, str) and kind.endswith("Run")


@contextmanager
def new_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into, which becomes `path` when all went well and else disappears.

    Raises:
        ConvertError: `path` exists and is not empty, and is no model or not to be overwritten.
        NotWritten: it cannot be written.
    """
    check_target(path, overwrite)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary(path) as draft:
            draft.mkdir()
            yield draft
            _replace(path, draft)


def _replace(path: Path, draft: Path) -> None:
    """Makes the folder `draft` be `path`; what had that name goes once that is done."""
    former = path.with_name(f".{path.name}.{os.getpid()}.former")
    with undisturbed():
        if path.exists():
            path.rename(former)
        try:
            draft.rename(path)
        except OSError:
            if former.exists():
                former.rename(path)
            raise
    with at_end(lambda: remove(former)):
        remove(former)


def copy_tokenizer(source: Path, target: Path) -> None:
    """The files of a tokenizer, a folder or one file, into the new folder `target`.

    Raises:
        ConvertError: there are none.
    """
    files = sorted(p for p in source.iterdir() if p.is_file()) if source.is_dir() else [source]
    if not files or not all(file.is_file() for file in files):
        raise ConvertError(f"{source} has no files of a tokenizer")
    target.mkdir()
    for file in files:
        if is_stored(file) or is_stored(target):
            write_atomically(target / file.name, file.read_bytes())
        else:
            shutil.copyfile(file, target / file.name)
