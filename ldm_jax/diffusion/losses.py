"""Losses of the diffusion model, one number per example, so that callers may weight and mask.

Which noise level counts for how much is `weightings.py`; the variational bound is `posterior.py`.
"""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from ldm_jax.core.names import Distance, FixedVariance
from ldm_jax.core.typing import Prediction
from ldm_jax.diffusion.posterior import Posterior, vlb_terms


def distance_loss(
    output: Float[Array, "b *d"],
    target: Float[Array, "b *d"],
    distance: Distance = "l2",
    huber_c: float = 0.1,
) -> Float32[Array, "b"]:
    """Mean distance of each example's elements, in float32.

    l2: the square (Ho 2020, arXiv:2006.11239, eq. 14). l1: the absolute value. huber: smooth
    between them, 2 c (sqrt(e^2 + c^2) - c), which is e^2 for errors far below c and 2 c |e| far
    above (Charbonnier 1997; Song & Dhariwal 2023, arXiv:2310.14189, section 3.3). Raises
    ValueError for an unknown name.
    """
    error = output.astype(jnp.float32) - target.astype(jnp.float32)
    match distance:
        case "l2":
            each = error**2
        case "l1":
            each = jnp.abs(error)
        case "huber":  # as a quotient, since the difference cancels for small errors
            each = 2 * huber_c * error**2 / (jnp.sqrt(error**2 + huber_c**2) + huber_c)
        case _:
            raise ValueError(f"distance is {distance!r}; it must be one of {get_args(Distance)}")
    return jnp.mean(each, axis=tuple(range(1, error.ndim)))


def vlb_loss(
    posterior: Posterior,
    prediction: Prediction,
    x0: Float[Array, "b *d"],
    t: Int[Array, "b"],
    *,
    fixed: FixedVariance = "beta_tilde",
    bins: int | None = 256,
) -> Float32[Array, "b"]:
    """T L_t: its mean over uniform t is the variational bound without L_T, in bits per dimension.

    Nichol & Dhariwal 2021 (arXiv:2102.09672), eq. 4; see `vlb_terms`.
    """
    terms = vlb_terms(posterior, prediction, x0, t, fixed=fixed, bins=bins)
    return np.float32(len(posterior.log_beta)) * terms


def variance_loss(
    posterior: Posterior,
    prediction: Prediction,
    x0: Float[Array, "b *d"],
    t: Int[Array, "b"],
    *,
    bins: int | None = 256,
) -> Float32[Array, "b"]:
    """`vlb_loss` that teaches the variance and leaves the mean alone.

    Lambda times it joins the simple loss in the hybrid loss of Nichol & Dhariwal 2021, eq. 16.
    """
    fixed_mean = prediction._replace(x0=jax.lax.stop_gradient(prediction.x0))
    return vlb_loss(posterior, fixed_mean, x0, t, bins=bins)
