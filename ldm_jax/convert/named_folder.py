"""A folder of files that prompts name by tags, such as `<lora:NAME:0.8>`."""

import difflib
from pathlib import Path

from ldm_jax.config.checks import ConfigError


class NamedFolder:
    """The files below a folder, by their names without the endings."""

    setting = ""
    """What names the folder."""
    tag = ""
    """The word in the tag."""
    option = ""
    """What names such a file itself."""
    what = ""
    """What the files are."""
    ends: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        """Of `folder`. Raises ConfigError if it is none."""
        if not folder.is_dir():
            raise ConfigError(
                f"{self.setting} is {folder}, which is no folder; name one with {self.what}s"
            )
        self.folder = folder

    def find(self, name: str) -> Path:
        """The file, or what else counts as one, of that name. A name is compared with those that
        are listed; it is never a path.

        Raises:
            ConfigError: there is none, or there are several.
        """
        listed = self.listed()
        found = [path for path in listed if stem_of(path) == name]
        if not found:
            found = [path for path in listed if self.alias(path) == name]
        if len(found) == 1:
            return found[0]
        if found:
            places = " and ".join(str(path.relative_to(self.folder)) for path in found[:3])
            raise ConfigError(
                f"<{self.tag}:{name}> is the name of {len(found)} {self.what}s in {self.setting}: "
                f"{places}; rename one, or name it with --{self.option}=FILE"
            )
        names = self.names()
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"perhaps you meant {close[0]!r}" if close else f"it has {_some(names)}"
        raise ConfigError(
            f"<{self.tag}:{name}>: there is no such {self.what} in {self.setting}; {hint}"
        )

    def names(self) -> list[str]:
        """What prompts can name, in order."""
        return sorted({stem_of(path) for path in self.listed()})

    def listed(self) -> list[Path]:
        """All files that can be named, in order."""
        return sorted(p for p in self.folder.rglob("*") if p.suffix in self.ends and p.is_file())

    def alias(self, path: Path) -> str | None:
        """Another name of a file, from what is in it."""
        return None


def stem_of(path: Path) -> str:
    """What prompts call a file, or a folder."""
    return path.name if path.is_dir() else path.stem


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) + more) if names else "none"
