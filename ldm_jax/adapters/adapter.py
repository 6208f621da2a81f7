"""One adapter: which modules of a model it changes, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ldm_jax.adapters.kind import Kind

UNET = "unet"
"""The component that denoises; all others are conditioners, such as the text encoder."""

Modules = Mapping[str, tuple[Kind, ...]]
"""By the module's path in its component, its levels joined by `/`, as in the parameters."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """A change of a model, read from a file or trained."""

    components: Mapping[str, Modules]
    """By component: `unet`, or the name of a conditioner, such as `text_encoder`."""
    name: str = ""
    """What prompts call it."""
    family: str | None = None
    """What it was made for, such as Stable Diffusion 1, where its file says that."""
    words: tuple[str, ...] = ()
    """What to write in a prompt to call it forth, where its file says that."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """All text of its file."""
    embeddings: Mapping[str, Any] = field(default_factory=dict)
    """Tensors of embeddings that its file brings along, by their keys, as they are."""
    notes: tuple[str, ...] = ()
    """What a user should know about its file."""

    def count(self) -> dict[str, int]:
        """Number of modules of each component."""
        return {name: len(modules) for name, modules in self.components.items()}


@dataclass(frozen=True, eq=False)
class AdapterUse:
    """An adapter, and how strongly it is applied: ΔW times the strength, 1 as it was trained."""

    adapter: Adapter
    unet: float = 1.0
    text: float = 1.0
    """In all components but the U-Net."""

    def strength(self, component: str) -> float:
        """How strongly it changes the component."""
        return self.unet if component == UNET else self.text
