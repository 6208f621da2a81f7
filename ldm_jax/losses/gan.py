"""Adversarial losses on the logits of a discriminator, and the two penalties that steady it.

Logits have any shape: a patch discriminator gives one for each place of each image. Real images
should have positive ones. Losses are means over all of them, as in the code of VQGAN (Esser 2021).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def hinge_discriminator(
    real: Float[Array, "*logits"], fake: Float[Array, "*others"]
) -> Float[Array, ""]:
    """(mean max(0, 1 - real) + mean max(0, 1 + fake)) / 2 (Lim & Ye 2017, arXiv:1705.02894)."""
    return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake)))


def vanilla_discriminator(
    real: Float[Array, "*logits"], fake: Float[Array, "*others"]
) -> Float[Array, ""]:
    """Half the cross-entropy of telling real from fake (Goodfellow 2014, eq. 1)."""
    return 0.5 * (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake)))


def hinge_generator(fake: Float[Array, "*logits"]) -> Float[Array, ""]:
    """-mean(fake). VQGAN's generator has this loss whichever its discriminator has."""
    return -jnp.mean(fake)


def vanilla_generator(fake: Float[Array, "*logits"]) -> Float[Array, ""]:
    """The non-saturating loss, mean softplus(-fake) (Goodfellow 2014, section 3)."""
    return jnp.mean(jax.nn.softplus(-fake))


def r1_penalty(
    discriminator: Callable[[Float[Array, "b h w c"]], Float[Array, "b ..."]],
    images: Float[Array, "b h w c"],
    gamma: float | Float[Array, ""],
) -> Float[Array, ""]:
    """gamma/2 times the mean over images of |d discriminator(image) / d image|^2, summed over its
    values (Mescheder 2018, arXiv:1801.04406, eq. 9).

    The discriminator's value for an image is the mean of its logits. The discriminator must judge
    each image by itself: with batch statistics the gradient would mix images. The penalty holds the
    gradient of the discriminator, so its gradient with respect to the parameters differentiates
    twice.
    """

    def total(images: Float[Array, "b h w c"]) -> Float[Array, ""]:
        logits = discriminator(images)
        return jnp.sum(jnp.mean(logits.reshape(logits.shape[0], -1), axis=1))

    slope = jax.grad(total)(images).astype(jnp.float32)
    return 0.5 * gamma * jnp.mean(jnp.sum(slope**2, axis=(1, 2, 3)))


class LeCam(NamedTuple):
    """Running averages of the mean logits, as sums whose weights add up to `weight`."""

    real: Float[Array, ""]
    fake: Float[Array, ""]
    weight: Float[Array, ""]


def lecam_init() -> LeCam:
    """No averages yet."""
    return LeCam(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))


def lecam_update(
    state: LeCam, real: Float[Array, "*logits"], fake: Float[Array, "*others"], decay: float
) -> LeCam:
    """The averages with this step's logits, whose share is 1 - `decay`, or all in the first step.

    (Tseng 2021, arXiv:2104.03310, eq. 3.)
    """
    news = LeCam(jnp.mean(real), jnp.mean(fake), jnp.ones(()))
    news = jax.tree.map(lambda x: jax.lax.stop_gradient(x.astype(jnp.float32)), news)
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state, news)


def lecam_penalty(
    state: LeCam, real: Float[Array, "*logits"], fake: Float[Array, "*others"]
) -> Float[Array, ""]:
    """mean max(0, real - average fake)^2 + mean max(0, average real - fake)^2.

    It keeps each side's logits from running far from the other side's average (Tseng 2021, eq. 4,
    with the one-sided distances of the authors' code). `state` has had one update at least.
    """
    average_real, average_fake = state.real / state.weight, state.fake / state.weight
    above = jax.nn.relu(real.astype(jnp.float32) - average_fake)
    below = jax.nn.relu(average_real - fake.astype(jnp.float32))
    return jnp.mean(above**2) + jnp.mean(below**2)


def discriminator_metrics(
    real: Float[Array, "*logits"], fake: Float[Array, "*others"]
) -> dict[str, Float[Array, ""]]:
    """Mean logits, and the share of right answers: 1/2 for a discriminator that only guesses."""
    real_accuracy = jnp.mean((real > 0).astype(jnp.float32))
    fake_accuracy = jnp.mean((fake < 0).astype(jnp.float32))
    return {
        "logits_real": jnp.mean(real),
        "logits_fake": jnp.mean(fake),
        "accuracy_real": real_accuracy,
        "accuracy_fake": fake_accuracy,
        "accuracy": 0.5 * (real_accuracy + fake_accuracy),
    }
