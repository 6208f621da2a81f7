"""What prompts can name besides a model: the folders of adapters, hypernetworks and embeddings that
the server was started with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm_jax.config import ConfigError, ModelChoice

FOLDERS = ("lora_dir", "hypernetwork_dir", "embeddings_dir")


@dataclass(frozen=True)
class Tunings:
    """The folders; None is one that was not named."""

    lora_dir: Path | None = None
    hypernetwork_dir: Path | None = None
    embeddings_dir: Path | None = None
    control: tuple[Path, ...] = ()
    """ControlNets."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a folder that is none, and for ControlNets that are not there or
        have the same name."""
        for path in self.control:
            if not path.exists():
                raise ConfigError(f"--control={path}: there is no such file or folder")
        if len(self.controls) < len(self.control):
            raise ConfigError("--control: two ControlNets have the same name; rename one")
        self.adapters()
        self.hypernetworks()
        self.embeddings()

    def choice(self, path: Path) -> ModelChoice:
        """The model in `path`, with nothing chosen but what prompts can name."""
        return ModelChoice(path, **{name: getattr(self, name) for name in FOLDERS})

    @property
    def controls(self) -> dict[str, Path]:
        """The ControlNets by their names, which are those of their files or folders."""
        return {path.name if path.is_dir() else path.stem: path for path in self.control}

    # What brings JAX along is imported only where it is asked for.

    def adapters(self) -> list[str]:
        """The names of adapters, `<lora:NAME:1>`."""
        if self.lora_dir is None:
            return []
        from ldm_jax.convert.adapters.adapter_folder import AdapterFolder

        return AdapterFolder(self.lora_dir).names()

    def hypernetworks(self) -> list[str]:
        """The names of hypernetworks, `<hypernet:NAME:1>`."""
        if self.hypernetwork_dir is None:
            return []
        from ldm_jax.convert.hypernetworks.hypernetwork_folder import HypernetworkFolder

        return HypernetworkFolder(self.hypernetwork_dir).names()

    def embeddings(self) -> list[Any]:
        """The embeddings whose names are words of prompts, for text encoders of any width."""
        if self.embeddings_dir is None:
            return []
        from ldm_jax.convert.embeddings.embedding_folder import read_embedding_folder

        return [one for _, one in read_embedding_folder(self.embeddings_dir).found]
