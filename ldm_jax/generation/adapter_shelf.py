"""The adapters that a loaded model draws with: read once, merged into its parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.adapters.adapter import Adapter, AdapterUse
from ldm_jax.adapters.embedding import Embedding
from ldm_jax.adapters.merging import merge
from ldm_jax.config.lora_choice import TAG, LoraChoice
from ldm_jax.convert.adapters.adapter_files import read_adapter
from ldm_jax.convert.adapters.adapter_folder import AdapterFolder
from ldm_jax.convert.adapters.module_names import ModuleNames
from ldm_jax.convert.embeddings.embedding_files import bundled_embeddings
from ldm_jax.convert.hypernetworks.hypernetwork_files import HypernetworkFile, read_hypernetwork
from ldm_jax.convert.hypernetworks.hypernetwork_folder import HypernetworkFolder
from ldm_jax.core import tree
from ldm_jax.data.adapter_tags import Tag, cut_tags

Chosen = tuple[str, ...]
"""Adapters with their strengths, spelled as in `ModelChoice.lora`."""


@dataclass(frozen=True)
class Worn:
    """All that one picture is drawn with beside the model."""

    lora: Chosen = ()
    hypernetwork: Chosen = ()


class HypernetworkShelf:
    """The hypernetworks of one model, each read once."""

    def __init__(self, config: cfg.Model, choice: cfg.ModelChoice) -> None:
        """Raises ConfigError, ConvertError, FileFormatError: hypernetworks of `choice` that cannot
        be used."""
        self._config = config
        folder = choice.hypernetwork_dir
        self.folder = None if folder is None else HypernetworkFolder(folder)
        self._read: dict[Path, HypernetworkFile] = {}
        chain = self.chain(choice.hypernetwork)
        self.notes = tuple(note for one, _ in chain for note in one.notes)

    def chain(self, chosen: Chosen) -> list[tuple[HypernetworkFile, float]]:
        """Those that are chosen, in order, each with its strength; those of none are left out.
        Raises ConvertError, FileFormatError for what cannot be used."""
        choices = [LoraChoice.parse(one) for one in chosen]
        return [(self._get(one.file), one.unet) for one in choices if one.unet]

    def _get(self, path: Path) -> HypernetworkFile:
        if path not in self._read:
            self._read[path] = read_hypernetwork(path, self._config)
        return self._read[path]


class AdapterShelf:
    """Of one model, which stays as it was read."""

    def __init__(
        self, config: cfg.Model, params: Mapping[str, Any], choice: cfg.ModelChoice
    ) -> None:
        """Of the model's own parameters, which are kept where an adapter may be asked for.

        Raises:
            ConfigError, ConvertError, FileFormatError: adapters of `choice` that cannot be used.
        """
        self.choice = choice
        self._params = params if choice.lora or choice.lora_dir else None
        self._names = None if self._params is None else ModuleNames.of(config, params)
        self._folder = None if choice.lora_dir is None else AdapterFolder(choice.lora_dir)
        self.hypernetworks = HypernetworkShelf(config, choice)
        self._read: dict[Path, Adapter] = {}
        self.notes = tuple(
            f"{use.adapter.name}: {note}" for use in self.uses(choice.lora)
            for note in use.adapter.notes
        )  # fmt: skip

    def uses(self, chosen: Chosen) -> list[AdapterUse]:
        """The adapters, read. Raises ConvertError, FileFormatError for what cannot be used."""
        choices = [LoraChoice.parse(one) for one in chosen]
        return [AdapterUse(self._get(one.file), one.unet, one.text_encoder) for one in choices]

    def _get(self, path: Path) -> Adapter:
        if path not in self._read:
            self._read[path] = read_adapter(path, self._names)
        return self._read[path]

    def bundled(self) -> list[tuple[str, Embedding]]:
        """The embeddings that the adapters of the model's choice bring along, with their files."""
        return [
            (use.adapter.name, one) for use in self.uses(self.choice.lora)
            for one in bundled_embeddings(use.adapter.name, use.adapter.embeddings)
        ]  # fmt: skip

    def merged(self, chosen: Chosen) -> dict[str, Any]:
        """All parameters with these adapters in them; those that none changes are the arrays of
        the model as it was read."""
        return merge(self._params, self.uses(chosen))

    def changed(self, chosen: Chosen) -> set[str]:
        """The modules that these adapters may change: the paths of their parameters begin so."""
        return {
            f"{component if component == 'unet' else f'conditioners/{component}'}/{path}/"
            for use in self.uses(chosen)
            for component, modules in use.adapter.components.items()
            for path in modules
        }

    def cut(
        self, conditions: Sequence[str | int | None], negative: str | int | None
    ) -> tuple[list[str | int | None], list[Worn]]:
        """The conditions without the adapters that they name, and all that each is drawn with:
        those of the model's choice, then its own.

        Raises:
            ConfigError: a tag that cannot be read, that is in the negative prompt, or for which
                there is no folder or no file.
            ConvertError, FileFormatError: a file that cannot be used.
        """
        choice = self.choice
        if choice.literal_prompts:
            return [*conditions], [Worn(choice.lora, choice.hypernetwork)] * len(conditions)
        if isinstance(negative, str) and (found := TAG.search(negative)):
            raise cfg.ConfigError(
                f"negative_prompt has {found[0]} in it; adapters are named in the positive prompt"
            )
        texts: list[str | int | None] = []
        worn: list[Worn] = []
        for condition in conditions:
            text, tags = cut_tags(condition) if isinstance(condition, str) else (condition, ())
            lora = tuple(self._found(tag) for tag in tags if tag.kind == "lora")
            nets = tuple(self._found(tag) for tag in tags if tag.kind == "hypernet")
            self.uses(lora)
            self.hypernetworks.chain(nets)
            texts.append(text)
            worn.append(Worn((*choice.lora, *lora), (*choice.hypernetwork, *nets)))
        return texts, worn

    def _found(self, tag: Tag) -> str:
        """The file that a tag names, with its strengths."""
        is_lora = tag.kind == "lora"
        folder = self._folder if is_lora else self.hypernetworks.folder
        if folder is None:
            setting, what = (
                ("lora_dir", "adapters") if is_lora else ("hypernetwork_dir", "hypernetworks")
            )
            raise cfg.ConfigError(
                f"<{tag.kind}:{tag.name}> in a prompt needs {setting}, the folder of {what}"
            )
        return str(LoraChoice(folder.find(tag.name), tag.text_encoder, tag.unet))

    def leaves(self, chosen: Chosen, before: Chosen) -> dict[str, Any]:
        """What of the parameters, by path, differs or may differ between two choices."""
        starts = tuple(self.changed(chosen) | self.changed(before))
        flat = tree.flatten(self.merged(chosen))
        return {path: leaf for path, leaf in flat.items() if path.startswith(starts)}
