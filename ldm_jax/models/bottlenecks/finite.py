"""Bottlenecks without a codebook: each channel of a latent is rounded, or keeps its sign.

They have no parameters. A code's number has one digit for each channel, the first the least.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.lax import stop_gradient
from jaxtyping import Array, Float, Int

from ldm_jax import config as cfg
from ldm_jax.models.bottlenecks.interface import Quantized, straight_through

# How far inside the outermost values a bounded latent stays.
EDGE = 1e-3


class FiniteScalar(nn.Module):
    """Finite scalar quantisation (Mentzer 2024, arXiv:2309.15505): bound, round, rescale.

    A channel of L levels is bounded to a width of L - 1 by tanh, shifted by a half where L is
    even, and rounded; values are multiples of 1 / (L // 2) in [-1, 1]. Its loss is 0.
    """

    config: cfg.FSQ

    def __call__(self, latents: Float[Array, "b h w z"]) -> Quantized:
        latents = latents.astype(jnp.float32)
        levels = np.asarray(self.config.levels)
        half = levels // 2
        bounded = bound(latents, self.config.levels)
        passed = straight_through(bounded, jnp.round(bounded))
        digits = jnp.round(stop_gradient(bounded)).astype(jnp.int32) + _row(half, jnp.int32, 4)
        indices = _number(digits, self.config.levels)
        zero = jnp.zeros((), jnp.float32)
        scaled = passed / _row(half, jnp.float32, 4)
        return Quantized(scaled, indices, stop_gradient(latents), zero, {})

    def lookup(self, indices: Int[Array, "b h w"]) -> Float[Array, "b h w z"]:
        """What the decoder takes for these codes."""
        half = _row(np.asarray(self.config.levels) // 2, jnp.float32, 4)
        return (_digits(indices, self.config.levels).astype(jnp.float32) - half) / half


class LookupFree(nn.Module):
    """Lookup-free quantisation (Yu 2024, arXiv:2310.05737, section 3.2): the sign of each channel.

    The entropy penalty, eq. 5 there, wants each latent to be sure of its code and all codes to be
    used. Codes have the probabilities softmax(-|z - c|² / temperature), under which bits are
    independent: an example's entropy is the sum over its bits. That of the batch is taken as the
    sum over bits as well, which is its upper bound and equal where bits are independent in the
    batch too (Zhao 2024, arXiv:2406.07548, section 3.2); it does not grow with the codes' number.
    """

    config: cfg.LFQ
    features: int
    """Channels of a latent: bits of a code."""

    def __call__(self, latents: Float[Array, "b h w z"]) -> Quantized:
        z = latents.astype(jnp.float32)
        codes = jnp.where(z > 0, 1.0, -1.0)
        commitment = jnp.mean((z - codes) ** 2)
        # |z + 1|² - |z - 1|² = 4 z, in each bit.
        sure = binary_entropy(4 * z / self.config.temperature).sum(-1).mean()
        probability = jax.nn.sigmoid(4 * z / self.config.temperature).mean((0, 1, 2))
        used = _entropy(probability).sum()
        terms = {"commitment": commitment, "code_entropy": sure, "batch_entropy": used}
        loss = self.config.beta * commitment + self.config.entropy_weight * (sure - used)
        indices = _number((z > 0).astype(jnp.int32), (2,) * z.shape[-1])
        return Quantized(straight_through(z, codes), indices, stop_gradient(z), loss, terms)

    def lookup(self, indices: Int[Array, "b h w"]) -> Float[Array, "b h w z"]:
        """What the decoder takes for these codes."""
        return _digits(indices, (2,) * self.features).astype(jnp.float32) * 2 - 1


def bound(z: Float[Array, "b h w z"], levels: tuple[int, ...]) -> Float[Array, "b h w z"]:
    """Latents squeezed to where rounding gives `levels` integers (Mentzer 2024, appendix A.1).

    L values lie from -(L // 2) to (L - 1) // 2; latents of 0 are near 0.
    """
    count = np.asarray(levels, np.float64)
    half = (count - 1) * (1 - EDGE) / 2
    offset = np.where(count % 2 == 1, 0.0, 0.5)
    shift, half, offset = (_row(x, jnp.float32, 4) for x in (np.tan(offset / half), half, offset))
    return jnp.tanh(z + shift) * half - offset


def binary_entropy(logits: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Entropy in nats of bits with the probabilities sigmoid(logits)."""
    one = jax.nn.sigmoid(logits)
    return -(one * jax.nn.log_sigmoid(logits) + (1 - one) * jax.nn.log_sigmoid(-logits))


def _entropy(probability: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Entropy in nats of bits; 0 log 0 is 0."""
    tiny = 1e-30
    p, q = jnp.maximum(probability, tiny), jnp.maximum(1 - probability, tiny)
    return -(p * jnp.log(p) + q * jnp.log(q))


def _number(digits: Int[Array, "*n z"], levels: tuple[int, ...]) -> Int[Array, "*n"]:
    """The number with these digits, the least first."""
    return jnp.sum(digits * _row(_places(levels), jnp.int32, digits.ndim), -1)


def _digits(indices: Int[Array, "*n"], levels: tuple[int, ...]) -> Int[Array, "*n z"]:
    """The digits of numbers, the least first."""
    ndim = indices.ndim + 1
    places, values = _row(_places(levels), jnp.int32, ndim), _row(levels, jnp.int32, ndim)
    return indices[..., None].astype(jnp.int32) // places % values


def _places(levels: tuple[int, ...]) -> np.ndarray:
    return np.cumprod((1, *levels[:-1]))


def _row(values: object, dtype: object, ndim: int) -> Array:
    """`values` along the last of `ndim` axes."""
    row = jnp.asarray(np.asarray(values), dtype)
    return row.reshape((1,) * (ndim - 1) + row.shape)
