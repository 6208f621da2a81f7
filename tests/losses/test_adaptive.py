"""The generator's gradient is that of the weighted sum, with the weight of the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.losses.adaptive import adaptive_weight, generator_gradients

KEYS = jax.random.split(jax.random.key(0), 4)
TARGET = jax.random.normal(KEYS[0], (2, 4, 4, 3))
JUDGE = jax.random.normal(KEYS[1], (3,))
PARAMS = {
    "body": jax.random.normal(KEYS[2], (3, 5)),
    "last": jax.random.normal(KEYS[3], (5, 3)),
}


def forward(params):
    features = jnp.tanh(TARGET @ params["body"])
    return (features @ params["last"], jnp.mean(features**2)), "aux"


def nll(image):
    return jnp.sum(jnp.abs(image - TARGET)), None


def adversarial(image):
    return -jnp.mean(jnp.tanh(image @ JUDGE)), "logits"


def last(params):
    return params["last"]


def test_weight():
    ones = jnp.ones((2, 2))
    assert adaptive_weight(ones, 0.5 * ones) == pytest.approx(2 / 1.0001)
    assert adaptive_weight(ones, 0 * ones) == 1e4  # 2 / 1e-4 is above the maximum
    assert adaptive_weight(0 * ones, ones) == 0


def test_weight_is_a_constant():
    assert (jax.grad(lambda x: adaptive_weight(x, jnp.ones(3)))(jnp.ones(3)) == 0).all()


@pytest.mark.parametrize("strength", [0.0, 0.8])
def test_gradients(strength):
    found, terms = jax.jit(_gradients)(PARAMS, strength)

    def of(loss):
        return jax.grad(lambda params: loss(forward(params)[0][0])[0])(PARAMS)["last"]

    weight = adaptive_weight(of(nll), of(adversarial))
    assert terms.weight == pytest.approx(weight, rel=1e-5)

    def total(params):
        (image, penalty), _ = forward(params)
        return nll(image)[0] + penalty + strength * weight * adversarial(image)[0]

    want_total, want = jax.value_and_grad(total)(PARAMS)
    assert terms.total == pytest.approx(want_total, rel=1e-5)
    for name, gradient in want.items():
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(found[name], gradient, atol=1e-5 * scale)


def _gradients(params, strength):
    gradients, terms = generator_gradients(forward, params, nll, adversarial, last, strength)
    assert (terms.forward_aux, terms.adversarial_aux) == ("aux", "logits")
    return gradients, terms._replace(forward_aux=None, adversarial_aux=None)


def test_each_network_runs_once_each_way():
    """The compiled program multiplies no more than forward, backward and the two small gradients.

    Through the body: once forward, once backward (to its weights alone, as images have none).
    """

    def wide(params):
        features = jnp.tanh(TARGET @ params["body"])
        features = jnp.tanh(features @ params["middle"])
        return (features @ params["last"], jnp.zeros(())), None

    width = 256
    params = {
        "body": jnp.ones((3, width)), "middle": jnp.ones((width, width)),
        "last": jnp.ones((width, 3)),
    }  # fmt: skip

    def gradients(params):
        found, terms = generator_gradients(wide, params, nll, adversarial, last, 1.0)
        return found, terms.weight

    flops = jax.jit(gradients).lower(params).compile().cost_analysis()["flops"]
    pixels = TARGET.size // 3
    middle = 3 * 2 * pixels * width**2  # forward, backward to features and to weights
    assert flops < 1.3 * middle
