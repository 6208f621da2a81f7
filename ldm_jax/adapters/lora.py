"""LoRA: a change of low rank (Hu 2021, equation 3), for convolutions also in Tucker's form."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float

from ldm_jax.adapters import weights
from ldm_jax.adapters.kind import Factors, kind


@kind
class LoRA:
    """ΔW = (α/r) up·down; with `mid`, (α/r) Σ up[i, m] mid[m, n, ··] down[n, j]."""

    name: ClassVar[str] = "lora"
    down: Factors
    """[r, in] or [r, in, height, width]; with `mid` [r, in, 1, 1]."""
    up: Factors
    """[out, r] or [out, r, 1, 1]."""
    mid: Factors | None = None
    """[r, r, height, width]."""
    alpha: Factors | None = None
    """A number."""

    @property
    def rank(self) -> int:
        """r."""
        return self.down.shape[0]

    def delta(self, weight: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        """What is added to `weight`, in float32."""
        down, up = weights.flat(self.down), weights.flat(self.up)
        if self.mid is None:
            change = weights.product(up, down)
        else:
            change = weights.tucker(self.mid, up.T, down)
        return weights.placed(weights.scaled(self.alpha, self.rank, change), weight.shape)

    def misfit(self, shape: Sequence[int]) -> str | None:
        """Why it cannot change a weight of `shape`; None if it can."""
        out, width, *sides = shape
        r = self.rank
        if self.mid is None:
            wanted = {"down": (r, width, *sides), "up": (out, r)}
        else:
            wanted = {"down": (r, width), "up": (out, r), "mid": (r, r, *sides)}
            if math.prod(sides) == 1:
                return "mid is there, which only convolutions of more than one pixel have"
        found = [weights.misfit(n, getattr(self, n).shape, w) for n, w in wanted.items()]
        return next((problem for problem in found if problem), None)
