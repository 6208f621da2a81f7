"""Losses of the diffusion model, one number per example, so that callers may weight and mask."""

from typing import get_args

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from ldm_jax.typing import PredictionKind


def simple_loss(output: Float[Array, "b *d"], target: Float[Array, "b *d"]) -> Float32[Array, "b"]:
    """Mean squared error of each example, in float32 (Ho 2020, arXiv:2006.11239, eq. 14)."""
    error = output.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(error**2, axis=tuple(range(1, error.ndim)))


def min_snr_weight(
    alpha_bar: Float[Array, "b"], gamma: float | Float[Array, ""], kind: PredictionKind
) -> Float32[Array, "b"]:
    """The weight of each example's loss that caps easy levels (Hang 2023, arXiv:2303.09556).

    With snr = alpha_bar / (1 - alpha_bar): min(snr, gamma) for a network that predicts x0 (eq. 8),
    divided by snr for eps and by snr + 1 for v, which makes all three the same loss on x0.
    Raises ValueError for an unknown kind.
    """
    alpha_bar = alpha_bar.astype(jnp.float32)
    noise = 1 - alpha_bar
    capped = jnp.minimum(alpha_bar / noise, gamma)
    match kind:
        case "x0":
            return capped
        case "eps":
            return capped * noise / alpha_bar
        case "v":
            return capped * noise  # snr + 1 = 1 / (1 - alpha_bar)
    raise ValueError(f"prediction is {kind!r}; it must be one of {get_args(PredictionKind)}")
