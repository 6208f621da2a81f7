"""A model with adapters merged into it, to be written as any other."""

from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np

from ldm_jax import config as cfg
from ldm_jax.adapters.adapter import AdapterUse
from ldm_jax.adapters.merging import merge
from ldm_jax.config.lora_choice import LoraChoice
from ldm_jax.convert.adapters.adapter_files import read_adapter
from ldm_jax.convert.adapters.module_names import ModuleNames
from ldm_jax.convert.imported_model import ConvertError, Imported


def with_adapters(imported: Imported, chosen: Sequence[str]) -> Imported:
    """The model with adapters in it, each spelled as in `LoraChoice`.

    Sums are of float32 and stored in each weight's own type.

    Raises:
        ConvertError, FileFormatError, ConfigError: adapters that cannot be read or do not fit.
    """
    if not isinstance(imported.config, cfg.Model):
        raise ConvertError("adapters change U-Net and text encoder; this is a first stage alone")
    names = ModuleNames.of(imported.config, imported.params)
    choices = [LoraChoice.parse(one) for one in chosen]
    uses = [AdapterUse(read_adapter(c.file, names), c.unet, c.text_encoder) for c in choices]
    merged = merge(imported.params, uses)
    params = jax.tree.map(_in_type_of, merged, imported.params)
    notes = [f"{use.adapter.name}: {note}" for use in uses for note in use.adapter.notes]
    origin = imported.origin | {"lora": [str(choice) for choice in choices]}
    return replace(imported, params=params, origin=origin, notes=(*imported.notes, *notes))


def _in_type_of(changed: np.ndarray, before: np.ndarray) -> np.ndarray:
    if changed.dtype == before.dtype:
        return changed
    rounded = changed.astype(before.dtype)
    if not np.isfinite(rounded).all():
        raise ConvertError(
            f"with its adapters a weight is larger than {before.dtype} can hold; convert the model "
            "to float32 first"
        )
    return rounded
