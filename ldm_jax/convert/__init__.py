"""Other people's files: models read, written and converted, without torch."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ldm_jax.convert.imported_model import ConvertError, Imported, materialize
    from ldm_jax.convert.loading import load

__all__ = ["ConvertError", "Imported", "load", "materialize"]

_MODULES = {
    "ConvertError": "imported_model",
    "Imported": "imported_model",
    "materialize": "imported_model",
    "load": "loading",
}


def __getattr__(name: str) -> Any:
    """What this package offers, imported when it is asked for: JAX takes seconds, and
    `python -m ldm_jax.convert` shall answer at once."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
