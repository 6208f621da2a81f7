"""The weight that keeps the adversarial loss in proportion to the reconstruction, and the gradient
of the two together (Esser 2021, arXiv:2012.09841, eq. 7)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Gradient = Float[Array, "..."]


def adaptive_weight(
    nll: Gradient, adversarial: Gradient, maximum: float = 1e4, epsilon: float = 1e-4
) -> Float[Array, ""]:
    """|nll| / (|adversarial| + epsilon), at most `maximum`, and a constant for differentiation.

    Both are gradients with respect to the kernel of the decoder's last layer; norms are Euclidean.
    """
    ratio = _norm(nll) / (_norm(adversarial) + epsilon)
    return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, maximum))


def _norm(x: Gradient) -> Float[Array, ""]:
    return jnp.sqrt(jnp.sum(x.astype(jnp.float32) ** 2))


class GeneratorTerms(NamedTuple):
    """What one evaluation of the generator's loss computed on its way to the gradient."""

    image: Float[Array, "b h w c"]
    nll: Float[Array, ""]
    penalty: Float[Array, ""]
    adversarial: Float[Array, ""]
    weight: Float[Array, ""]
    """The adaptive weight, before `strength`."""
    total: Float[Array, ""]
    forward_aux: Any
    nll_aux: Any
    adversarial_aux: Any


ImageLoss = Callable[[Float[Array, "b h w c"]], tuple[Float[Array, ""], Any]]
"""An image batch to a loss, and anything else that the computation gives."""


def generator_gradients(
    forward: Callable[[Any], tuple[tuple[Float[Array, "b h w c"], Float[Array, ""]], Any]],
    params: Any,
    nll: ImageLoss,
    adversarial: ImageLoss,
    last_layer: Callable[[Any], Gradient],
    strength: float | Float[Array, ""],
    weigh: Callable[[Gradient, Gradient], Float[Array, ""]] = adaptive_weight,
) -> tuple[Any, GeneratorTerms]:
    """The gradient of nll + penalty + strength * weight * adversarial, and its terms.

    The image is all that both losses see of the parameters. So the gradients of the two with
    respect to the image are computed first, one pass forward and backward through the perceptual
    network and one through the discriminator. Pulled back to the last layer's kernel they give
    the weight; the rest of those two backward passes has no use, and XLA leaves it out. Their
    weighted sum is then pulled back through the whole autoencoder, once.

    Args:
        forward: parameters to ((reconstruction, penalty on the latents), aux). The penalty is the
            weighted divergence or codebook loss, which has no part in the adaptive weight.
        params: what to differentiate with respect to.
        nll: the reconstruction loss of an image batch, and aux.
        adversarial: the generator's loss of an image batch, and aux, such as logits and the
            discriminator's batch statistics.
        last_layer: picks the kernel of the decoder's last layer out of a tree like `params`.
        strength: the discriminator's weight in the config; 0 before it takes part.
        weigh: the weight from the two gradients; called once.
    """
    (image, penalty), pull_back, forward_aux = jax.vjp(forward, params, has_aux=True)
    (nll_value, nll_aux), nll_slope = jax.value_and_grad(nll, has_aux=True)(image)
    (gan_value, gan_aux), gan_slope = jax.value_and_grad(adversarial, has_aux=True)(image)

    def at_last_layer(slope: Float[Array, "b h w c"]) -> Gradient:
        return last_layer(pull_back((slope, jnp.zeros_like(penalty)))[0])

    weight = weigh(at_last_layer(nll_slope), at_last_layer(gan_slope))
    factor = weight * strength
    (gradients,) = pull_back((nll_slope + factor * gan_slope, jnp.ones_like(penalty)))
    total = nll_value + penalty + factor * gan_value
    return gradients, GeneratorTerms(
        image, nll_value, penalty, gan_value, weight, total, forward_aux, nll_aux, gan_aux
    )
