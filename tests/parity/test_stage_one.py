"""A whole training step of a KL autoencoder and its discriminator is the original's.

Gradients are compared tensor by tensor, to 1e-4: float32 in another order of summation gives some
1e-5 where they have gone through LPIPS, the discriminator and the autoencoder.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import stage_one as original

from ldm_jax.losses import gan, reconstruction
from ldm_jax.losses.adaptive import generator_gradients
from ldm_jax.models.build import build_autoencoder
from ldm_jax.models.discriminator import PatchGAN
from ldm_jax.models.lpips import LPIPS

CONFIG = original.autoencoder_config("kl")
AUTOENCODER, DISCRIMINATOR, DISTANCE = build_autoencoder(CONFIG), PatchGAN(), LPIPS()
autoencoder_name = partial(original.autoencoder_name, CONFIG)


@pytest.fixture(scope="module")
def golden():
    with np.load(original.GOLDEN) as file:
        return {name.removeprefix("kl/"): file[name] for name in file.files if "kl/" in name}


def forward(params, given):
    """A reconstruction and the weighted divergence; the divergence."""
    image, passed = AUTOENCODER.apply({"params": params}, given["images"], given["noise"])
    kl = reconstruction.divergence_per_image(passed.posterior.kl())
    return (image, original.KL_WEIGHT * kl), kl


def nll(given, image):
    distance = DISTANCE.apply({"params": given["lpips"]}, given["images"], image)
    error = reconstruction.l1(image, given["images"])
    return reconstruction.published_kl(error, distance, original.PERCEPTUAL_WEIGHT), None


def judge(params, statistics, images):
    variables = {"params": params, "batch_stats": statistics}
    logits, new = DISCRIMINATOR.apply(variables, images, train=True, mutable=["batch_stats"])
    return logits, new["batch_stats"]


def adversarial(params, statistics, image):
    logits, statistics = judge(params, statistics, image)
    return gan.hinge_generator(logits), statistics


def discriminate(params, statistics, images, reconstructions):
    real, statistics = judge(params, statistics, images)
    fake, statistics = judge(params, statistics, reconstructions)
    return gan.hinge_discriminator(real, fake), (statistics, real, fake)


@jax.jit
def train(params, discriminator, given):
    """Both turns, in the order of the original."""
    gradients, terms = generator_gradients(
        partial(forward, given=given), params, partial(nll, given),
        partial(adversarial, discriminator, given["statistics"]),
        lambda tree: tree["decoder"]["conv_out"]["kernel"], original.DISCRIMINATOR_WEIGHT,
    )  # fmt: skip
    optimizer = optax.adam(original.LEARNING_RATE, *original.BETAS)
    with jax.numpy_dtype_promotion("standard"):  # inside optax
        updates, _ = optimizer.update(gradients, optimizer.init(params))
    (image, _), _ = forward(optax.apply_updates(params, updates), given)
    learn = jax.value_and_grad(discriminate, has_aux=True)
    (loss, aux), learnt = learn(discriminator, terms.adversarial_aux, given["images"], image)
    return gradients, terms, updates, loss, aux, learnt


@pytest.fixture(scope="module")
def step():
    images, noise = original.nhwc(original.batch()), original.nhwc(original.noise())
    autoencoder = original.parameters(AUTOENCODER, autoencoder_name, images, noise)
    discriminator = original.parameters(DISCRIMINATOR, original.discriminator_name, images)
    given = {
        "images": images, "noise": noise,
        "lpips": original.parameters(DISTANCE, original.lpips_name, images, images),
        "statistics": original.statistics(DISCRIMINATOR, images),
    }  # fmt: skip
    return train(autoencoder, discriminator, given)


def test_terms_of_the_generator(step, golden):
    _, terms, *_ = step
    ours = {
        "nll_loss": terms.nll, "kl_loss": terms.forward_aux, "g_loss": terms.adversarial,
        "d_weight": original.DISCRIMINATOR_WEIGHT * terms.weight, "total_loss": terms.total,
    }  # fmt: skip
    theirs = {name: float(golden[f"generator/metric/{name}"]) for name in ours}
    # The mean of logits is the small difference of large ones.
    assert ours == pytest.approx(theirs, rel=2e-5)


def test_gradients_of_the_generator(step, golden):
    gradients, *_ = step
    errors = original.differences(gradients, autoencoder_name, golden, "generator/gradient")
    assert max(errors.values()) < 1e-4
    kernel = gradients["decoder"]["conv_out"]["kernel"].transpose(3, 2, 0, 1)
    want = golden["generator/gradient_whole/decoder.conv_out.weight"]
    np.testing.assert_allclose(kernel, want, atol=1e-4 * np.abs(want).max())


def test_updates_of_the_generator(step, golden):
    _, _, updates, *_ = step
    errors = original.differences(updates, autoencoder_name, golden, "generator/update")
    # Adam's first updates are the signs of gradients, of which those of next to nothing are
    # rounding; the bias of keys has no other.
    assert max(error for name, error in errors.items() if "k.bias" not in name) < 0.05


def test_discriminator(step, golden):
    """It judges what the autoencoder gives after its update."""
    *_, loss, (statistics, real, fake), gradients = step
    ours = {"disc_loss": loss, "logits_real": jnp.mean(real), "logits_fake": jnp.mean(fake)}
    theirs = {name: float(golden[f"discriminator/metric/{name}"]) for name in ours}
    assert ours == pytest.approx(theirs, rel=1e-4)
    errors = original.differences(
        gradients, original.discriminator_name, golden, "discriminator/gradient"
    )
    assert max(errors.values()) < 1e-4
    for layer, ours in statistics["main"].items():
        for kind in ("mean", "var"):
            name = f"discriminator/statistics/loss.discriminator.main.{layer}.running_{kind}"
            np.testing.assert_allclose(ours[kind], golden[name], rtol=1e-5, atol=1e-6)
