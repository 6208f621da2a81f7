"""A transformer over codes with its first stages, from whatever held them."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model


@dataclass(frozen=True)
class ImportedCodes:
    """One model of codes; the leaves are as those of `Imported`."""

    config: cfg.CodeModel
    params: dict[str, Any]
    """`{"transformer"}`."""
    frozen: dict[str, Any]
    """`{"autoencoder"}`, and `"condition_stage"` where the config has one."""
    origin: dict[str, Any] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    """Tensors of the source that are not used, and why."""
    notes: tuple[str, ...] = ()
    """What a user should know about this conversion."""
    tokenizer: Path | None = None
    """None: it reads no text."""

    @property
    def autoencoder(self) -> cfg.Autoencoder:
        """The config of the images' first stage."""
        return self.config.autoencoder

    def components(self) -> dict[str, dict[str, Any]]:
        """Parameters by component."""
        return self.params | self.frozen

    def materialized(self) -> "ImportedCodes":
        """With float32 copies of all leaves."""
        params, frozen = map(imported_model.materialize, (self.params, self.frozen))
        return replace(self, params=params, frozen=frozen)
