"""The models that can be asked for: names, and the paths that they stand for."""

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ldm_jax.config import ConfigError, DiffusionRun, Model, ModelChoice, from_json
from ldm_jax.core.reading import FileFormatError, read_json, read_text
from ldm_jax.core.stores import local_path
from ldm_jax.web.refused import Refused
from ldm_jax.web.tunings import Tunings

FILES = (".safetensors", ".ckpt", ".pt", ".pth")
"""What names of single files with a model end in."""
INDICES = ("model.json", "model_index.json")
"""Files by which a folder is a model of this project's own form, or diffusers'."""
DEPTH = 3
"""Folders below those named in which models are looked for."""
MOST = 1000
"""Models that are listed, at most."""


@dataclass(frozen=True)
class Entry:
    """A model that can be asked for by its name."""

    name: str
    path: Path
    draws: bool = True
    """Whether it draws pictures; a classifier only guides those of others."""

    @property
    def short_names(self) -> tuple[str, ...]:
        """What it may be called where no other has that name."""
        return self.path.name, self.path.stem, self.name.removesuffix(self.path.suffix)

    @property
    def inputs(self) -> list[str] | None:
        """What it is conditioned on, where its config says so in this project's words; None is not
        known before it is loaded."""
        for name in ("config.json", "model.json"):
            try:
                config = from_json(read_text(self.path / name))
            except (FileFormatError, ConfigError):
                continue
            if isinstance(config, Model | DiffusionRun):
                return [*dict.fromkeys(name for c in config.conditioners for name in c.inputs)]
        return None


class ModelList:
    """What the folders named on the command line hold, looked up whenever somebody asks."""

    def __init__(self, folders: Sequence[Path], tunings: Tunings | None = None) -> None:
        """Raises ConfigError for what does not exist, and NoStore for what lies in a store."""
        self.tunings = tunings or Tunings()
        for folder in folders:
            local_path(folder, "models of the page")
            if not folder.exists():
                raise ConfigError(f"--models={folder}: there is no such file or folder")
        self.folders = tuple(folders)
        self._lock = threading.Lock()
        self._problems: dict[str, str] = {}
        self._entries: dict[str, Entry] = {}
        self.scan()

    def usual_choice(self, path: Path) -> ModelChoice:
        """The model, or another thing that draws, in `path`, with nothing chosen but what prompts
        can name."""
        return self.tunings.choice(path)

    def scan(self) -> list[Entry]:
        """All models that are there now, in the order of the folders, by name in each."""
        found: dict[str, Entry] = {}
        seen: set[Path] = set()
        for folder in self.folders:
            for path, draws in _each_once(folder, _models(folder, DEPTH)):
                if path.resolve() in seen or len(found) >= MOST:
                    continue
                name = next((n for n in _names(folder, path) if n not in found), None)
                if name is not None and name.isprintable():
                    found[name] = Entry(name, path, draws)
                    seen.add(path.resolve())
        with self._lock:
            self._entries = found
        return [*self._entries.values()]

    @property
    def drawing(self) -> list[Entry]:
        """Those that draw, as they were found last."""
        with self._lock:
            return [entry for entry in self._entries.values() if entry.draws]

    @property
    def classifiers(self) -> list[Entry]:
        """Those that guide others, as they were found last."""
        with self._lock:
            return [entry for entry in self._entries.values() if not entry.draws]

    def find(self, name: object, field: str = "model") -> Entry:
        """The model of that name; raises Refused (422) naming `field` if there is none."""
        if not isinstance(name, str):
            raise Refused(422, (field, f"{field} is missing: it must be the name of a model"))
        for entry in (*self._listed(), *self.scan()):
            if entry.name == name and entry.draws == (field != "classifier"):
                return entry
        names = ", ".join(e.name for e in self._listed() if e.draws == (field != "classifier"))
        raise Refused(422, (field, f"{field} is {name[:80]!r}; there is no such model here, only "
                            f"{names or 'none at all'}"))  # fmt: skip

    def name_of(self, path: Path | None) -> str | None:
        """The name under which a path is listed, however it is written. `path` may be a client's
        and is not looked up."""
        if path is None:
            return None
        named = Path(os.path.abspath(path))
        return next(
            (entry.name for entry in self._listed()
             if named in (entry.path.absolute(), entry.path.resolve())), None,
        )  # fmt: skip

    def all_called(self, name: str) -> list[str]:
        """The names of those that draw and are called so: by the whole name if one is, or else by
        the last part of it, with or without a suffix."""
        listed = {entry.name: entry for entry in self.drawing}
        if name in listed:
            return [name]
        return [full for full, entry in listed.items() if name in entry.short_names]

    def called(self, name: str) -> str | None:
        """The name of the only one that is called so."""
        found = self.all_called(name)
        return found[0] if len(found) == 1 else None

    def problem(self, name: str) -> str | None:
        """Why it could not be loaded when it was tried last."""
        with self._lock:
            return self._problems.get(name)

    def set_problem(self, name: str, problem: str | None) -> None:
        """Notes how loading it went."""
        with self._lock:
            self._problems.pop(name, None)
            if problem is not None:
                self._problems[name] = problem

    def _listed(self) -> list[Entry]:
        with self._lock:
            return [*self._entries.values()]


def _names(folder: Path, path: Path) -> Iterator[str]:
    """Names for a model found in `folder`: below it, or its own where it is the folder itself, and
    then with more and more of the folders above."""
    parts = Path(os.path.abspath(path)).parts[1:]
    below = len(path.relative_to(folder).parts) or 1
    return ("/".join(parts[-count:]) for count in range(below, len(parts) + 1))


def _each_once(folder: Path, found: list[tuple[Path, bool]]) -> list[tuple[Path, bool]]:
    """The models found in `folder`, those that are reached over links behind all others, so that
    one with two names is listed by its own."""
    real = folder.resolve()
    return sorted(found, key=lambda one: one[0].resolve() != real / one[0].relative_to(folder))


def _models(path: Path, depth: int) -> list[tuple[Path, bool]]:
    """The models in `path`, itself or below, and whether each draws."""
    if path.is_file():
        return [(path, True)] if _is_file(path.name) else []
    kind = _kind(path)
    if kind is not None:
        return [] if kind == "other" else [(path, kind == "draws")]
    if not depth:
        return []
    try:
        with os.scandir(path) as listed:  # which may hold a hundred thousand pictures
            below = sorted(
                one.name for one in listed
                if not one.name.startswith(".") and (one.is_dir() or _is_file(one.name))
            )  # fmt: skip
    except OSError:
        return []
    return [found for name in below for found in _models(path / name, depth - 1)]


def _is_file(name: str) -> bool:
    return name.lower().endswith(FILES)


def _kind(folder: Path) -> str | None:
    """What a folder is: a model that "draws", one that "guides", an "other" part of a model, or
    None for a folder in which there may be models."""
    for index in INDICES:
        if (folder / index).is_file():
            return "draws"
    if not (folder / "config.json").is_file():
        return None
    try:
        found = read_json(folder / "config.json")
    except (FileFormatError, ConfigError):
        return "draws"  # it is named, and whoever asks for it is told why it cannot be read
    return {"DiffusionRun": "draws", "ClassifierRun": "guides"}.get(str(found.get("type")), "other")
