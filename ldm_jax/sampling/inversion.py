"""From an example to the noise that leads to it: the probability flow, backwards."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from ldm_jax.sampling.ancestral import DDIM
from ldm_jax.sampling.loop import sample
from ldm_jax.typing import Denoise, Level


def reverse(levels: Level) -> Level:
    """`levels` from the last to the first, which becomes the final one."""
    turned = jax.tree.map(lambda values: values[::-1], levels)
    return turned._replace(final=jnp.arange(turned.final.size) == turned.final.size - 1)


def invert(denoise: Denoise, x: Float32[Array, "b *d"], levels: Level) -> Float32[Array, "b *d"]:
    """The noisy example at the first of `levels` that DDIM brings to x, an example at the last.

    DDIM's steps with eta 0 from level to level upwards (Song 2020, arXiv:2010.02502, section 4.3),
    as many evaluations as downwards, and back again exact up to the error of the steps. Where the
    last level has no noise, a network is asked about its timestep with a clean example. Divide by
    the first level's standard deviation of x (see `loop.start`) for noise of unit variance.
    """
    return sample(DDIM(), denoise, x, reverse(levels)).x
