"""Other people's files: models read, written and converted, without torch."""

from ldm_jax.convert.bundle import ConvertError, Imported, materialize
from ldm_jax.convert.load import load

__all__ = ["ConvertError", "Imported", "load", "materialize"]
