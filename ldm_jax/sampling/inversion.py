"""From an example to the noise that leads to it: the probability flow, backwards."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from ldm_jax.core.typing import Denoise, Level, Prediction
from ldm_jax.sampling.ancestral import DDIM
from ldm_jax.sampling.loop import sample


def reverse(levels: Level) -> Level:
    """`levels` from the last to the first, which becomes the final one."""
    turned = jax.tree.map(lambda values: values[::-1], levels)
    return turned._replace(final=jnp.arange(turned.final.size) == turned.final.size - 1)


def invert(denoise: Denoise, x: Float32[Array, "b *d"], levels: Level) -> Float32[Array, "b *d"]:
    """The noisy example at the first of `levels` that DDIM brings to x, an example at the last.

    DDIM's steps with eta 0 from level to level upwards (Song 2020, arXiv:2010.02502, section 4.3),
    as many evaluations as downwards, and back again exact up to the error of the steps. Where the
    last level has no noise, of which networks know nothing, eps is that at the level before.
    Divide by the first level's standard deviation of x (see `loop.start`) for noise of unit
    variance.
    """
    noisy: Level = jax.tree.map(lambda values: values[-2:][0], levels)

    def from_clean(x: Float32[Array, "b *d"], level: Level) -> Prediction:
        clean = level.sigma == 0
        asked = jax.tree.map(lambda there, here: jnp.where(clean, there, here), noisy, level)
        x0, eps, _ = denoise(asked.alpha / level.alpha * x, asked)
        return Prediction(jnp.where(clean, x / level.alpha, x0), eps)

    return sample(DDIM(), from_clean, x, reverse(levels)).x
