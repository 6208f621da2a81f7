"""An embedding (textual inversion, Gal 2022): vectors that stand for a new word."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped


@dataclass(frozen=True, eq=False)
class Embedding:
    """Rows for the table of a text encoder's tokens."""

    name: str
    """The word in prompts."""
    vectors: Shaped[np.ndarray, "n d"]
    """In the number type that they are stored in; one or more."""
    alias: str | None = None
    """Another word for it: what its file is called, where that is not its name."""
    step: int | None = None
    """Steps that it was trained for, where its file says so."""

    @property
    def words(self) -> tuple[str, ...]:
        """What prompts may call it."""
        return (self.name,) if self.alias is None else (self.name, self.alias)

    @property
    def width(self) -> int:
        """Of a vector, which is the text encoder's."""
        return self.vectors.shape[1]
