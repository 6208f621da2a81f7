"""What every bottleneck gives: to the decoder, and to the objective that it is trained with."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Int

from ldm_jax.models.bottlenecks.gaussian import Gaussian, Point


class Quantized(NamedTuple):
    """Latents replaced by their codes, and what training needs of that."""

    latents: Float[Array, "b h w z"]
    """What the decoder takes; gradients pass to the latents before, as if nothing was replaced."""
    indices: Int[Array, "b h w"]
    """Which code each latent became."""
    compared: Float[Array, "b h w d"]
    """What was compared with the codes: the latents, or what projection and norm made of them;
    without gradients. An averaged codebook is updated with these."""
    loss: Float[Array, ""]
    """The bottleneck's own loss, its terms weighted as its config says."""
    terms: dict[str, Float[Array, ""]]
    """The terms of `loss` by name, unweighted; means over the batch."""


class Bottlenecked(NamedTuple):
    """What passed the bottleneck of an autoencoder, and all that a training loss needs of it."""

    posterior: Gaussian | Point
    """What the encoder gave."""
    latents: Float[Array, "b h w z"]
    """What the decoder took: a sample of the Gaussian, or codes with straight-through gradients."""
    loss: Float[Array, ""]
    """KL: the divergence from N(0, 1), summed over an example's latents, the mean of the batch.
    Others: as in `Quantized`. The objective gives it its weight."""
    terms: dict[str, Float[Array, ""]]
    """The terms of `loss` by name, unweighted."""
    indices: Int[Array, "b h w"] | None = None
    """Which code each latent became; None where there are none (KL)."""
    compared: Float[Array, "b h w d"] | None = None
    """As in `Quantized`; None where there are no codes."""


def straight_through(
    latents: Float[Array, "*n z"], codes: Float[Array, "*n z"]
) -> Float[Array, "*n z"]:
    """`codes`, with gradients that pass to `latents` unchanged (van den Oord 2017, section 3.2).

    So do values that are not finite, for which no code is the nearest.
    """
    return latents + jax.lax.stop_gradient(codes - latents)
