"""What stands between encoder and decoder.

Encoders give a `Gaussian` (KL) or a `Point` (all others): latents before they are quantised. What
passes the bottleneck, and all that a training loss needs of it, is `Bottlenecked`.
"""

from ldm_jax.models.bottlenecks.codebook import (
    CodebookState,
    init_codebook_state,
    perplexity,
    revive,
    update_codebook,
    usage,
    uses,
)
from ldm_jax.models.bottlenecks.finite import FiniteScalar, LookupFree
from ldm_jax.models.bottlenecks.gaussian import Gaussian, Point, gaussian
from ldm_jax.models.bottlenecks.gumbel import GumbelCodebook
from ldm_jax.models.bottlenecks.interface import Bottlenecked, Quantized
from ldm_jax.models.bottlenecks.vector import Codebook, nearest

__all__ = [
    "Bottlenecked", "Codebook", "CodebookState", "FiniteScalar", "Gaussian", "GumbelCodebook",
    "LookupFree", "Point", "Quantized", "gaussian", "init_codebook_state", "nearest", "perplexity",
    "revive", "update_codebook", "usage", "uses",
]  # fmt: skip
