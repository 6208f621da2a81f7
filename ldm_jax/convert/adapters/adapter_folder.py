"""A folder of adapters, which prompts name."""

import difflib
from pathlib import Path

from ldm_jax.config.checks import ConfigError
from ldm_jax.convert.adapters.adapter_files import PEFT_CONFIG, name_of, read_metadata
from ldm_jax.core.reading import FileFormatError

ENDS = (".safetensors", ".pt", ".bin", ".ckpt")


class AdapterFolder:
    """The adapters below a folder, by the names of their files, and else by what their trainers
    called them (`ss_output_name`)."""

    def __init__(self, folder: Path) -> None:
        """Of `folder`. Raises ConfigError if it is none."""
        if not folder.is_dir():
            raise ConfigError(f"lora_dir is {folder}, which is no folder; name one with adapters")
        self.folder = folder

    def find(self, name: str) -> Path:
        """The file, or PEFT's folder, of that name.

        Raises:
            ConfigError: there is none, or there are several.
        """
        listed = self._listed()
        found = [path for path in listed if _stem(path) == name]
        if not found:
            found = [path for path in listed if _alias(path) == name]
        if len(found) == 1:
            return found[0]
        if found:
            places = " and ".join(str(path.relative_to(self.folder)) for path in found[:3])
            raise ConfigError(
                f"<lora:{name}> is the name of {len(found)} adapters in {self.folder}: {places}; "
                "rename one, or name it with --lora=FILE"
            )
        names = self.names()
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"perhaps you meant {close[0]!r}" if close else f"it has {_some(names)}"
        raise ConfigError(f"<lora:{name}>: there is no such adapter in {self.folder}; {hint}")

    def names(self) -> list[str]:
        """What prompts can name, in order."""
        return sorted({_stem(path) for path in self._listed()})

    def _listed(self) -> list[Path]:
        folders = {path.parent for path in self.folder.rglob(PEFT_CONFIG)}
        files = (p for p in self.folder.rglob("*") if p.suffix in ENDS and p.is_file())
        return sorted(folders | {path for path in files if path.parent not in folders})


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _alias(path: Path) -> str | None:
    if path.suffix != ".safetensors" or path.is_dir():
        return None
    try:
        return name_of(path, read_metadata(path))
    except (FileFormatError, OSError):
        return None  # a damaged file is told of when it is named


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) + more) if names else "none"
