"""LoHa: the product, element by element, of two changes of low rank (Hyeon-Woo 2021; LyCORIS)."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float

from ldm_jax.adapters import weights
from ldm_jax.adapters.kind import Factors, kind


@kind
class LoHa:
    """ΔW = (α/r) (w1_a·w1_b) ∘ (w2_a·w2_b); with `t1` and `t2` each factor is in Tucker's form,
    Σ a[m, i] t[m, n, ··] b[n, j]."""

    name: ClassVar[str] = "loha"
    w1_a: Factors
    """[out, r]; with `t1` [r, out]."""
    w1_b: Factors
    """[r, in · height · width]; with `t1` [r, in]."""
    w2_a: Factors
    w2_b: Factors
    t1: Factors | None = None
    """[r, r, height, width]."""
    t2: Factors | None = None
    alpha: Factors | None = None
    """A number."""

    @property
    def rank(self) -> int:
        """r."""
        return self.w1_b.shape[0]

    def delta(self, weight: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        """What is added to `weight`, in float32."""
        a1, b1, a2, b2 = map(weights.flat, (self.w1_a, self.w1_b, self.w2_a, self.w2_b))
        if self.t1 is None:
            first, second = weights.product(a1, b1), weights.product(a2, b2)
        else:
            first, second = weights.tucker(self.t1, a1, b1), weights.tucker(self.t2, a2, b2)
        change = weights.scaled(self.alpha, self.rank, first * second)
        return weights.placed(change, weight.shape)

    def misfit(self, shape: Sequence[int]) -> str | None:
        """Why it cannot change a weight of `shape`; None if it can."""
        out, width, *sides = shape
        r = self.rank
        if (self.t1 is None) != (self.t2 is None):
            return "one of t1 and t2 is missing"
        if self.t1 is None:
            a, b = (out, r), (r, width * int(np.prod(sides, dtype=int)))
            wanted = {"w1_a": a, "w1_b": b, "w2_a": a, "w2_b": b}
        else:
            a, b, t = (r, out), (r, width), (r, r, *sides)
            wanted = {"w1_a": a, "w1_b": b, "w2_a": a, "w2_b": b, "t1": t, "t2": t}
        found = [weights.misfit(n, getattr(self, n).shape, w) for n, w in wanted.items()]
        return next((problem for problem in found if problem), None)
