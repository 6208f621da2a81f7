"""The training step that the loop runs is the original's, of both optimisers, for KL and VQ.

`golden/README.md` says how its numbers were made. Gradients are read off Adam's first moments,
compared tensor by tensor to 1e-4: float32 in another order of summation gives some 1e-5 where they
have gone through LPIPS, the discriminator and the autoencoder.
"""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import stage_one as original

from ldm_jax import config as cfg
from ldm_jax.models.build import build_autoencoder
from ldm_jax.models.lpips import LPIPS
from ldm_jax.training import autoencoder_loss, autoencoder_step, discriminator_training
from ldm_jax.training.autoencoder_step import create_autoencoder_state, make_autoencoder_step

BETA1 = original.BETAS[0]


def make_run(kind):
    """The run of which the original's step is the first."""
    autoencoder = original.autoencoder_config(kind)
    if kind == "vq":
        autoencoder = replace(autoencoder, bottleneck=cfg.VQ(original.CODES, weighting="legacy"))
    return cfg.AutoencoderRun(
        cfg.Data(image_size=original.SIDE, batch_size=original.BATCH),
        autoencoder,
        cfg.AutoencoderLoss(
            reduction=f"published_{kind}",
            kl_weight=original.KL_WEIGHT,
            codebook_weight=original.CODEBOOK_WEIGHT,
            perceptual=cfg.Perceptual(original.PERCEPTUAL_WEIGHT),
            adversarial=cfg.Adversarial(
                weight=original.DISCRIMINATOR_WEIGHT, start=0, sees="updated"
            ),
        ),
        optim=cfg.Optim(
            learning_rate=original.LEARNING_RATE, beta1=BETA1, beta2=original.BETAS[1],
            clip_norm=None, ema_decay=None,
        ),
    )  # fmt: skip


def _in_other_roundings(images):
    """The images, and the same with errors as small as float32's.

    A maximum of VGG16's or the sign of an activation can be so near a tie that rounding, which is
    that of a machine, decides it, and with it some per cent of a gradient. The original's numbers
    are of one side.
    """
    yield images
    random = np.random.default_rng(0)
    for _ in range(8):
        yield np.float32(images * (1 + 1e-6 * random.normal(size=images.shape)))


@pytest.fixture(scope="module", params=original.KINDS)
def step(request):
    """States before and after one step, its metrics, and the original's numbers."""
    kind, patch = request.param, pytest.MonkeyPatch()
    images, noise = original.nhwc(original.batch()), original.nhwc(original.noise())
    run = make_run(kind)
    # Exactly the original's images and draws.
    for module in (autoencoder_loss, autoencoder_step):
        patch.setattr(module, "to_pixels", lambda images: images)
    draws = noise if kind == "kl" else None
    patch.setattr(autoencoder_loss.AutoencoderLoss, "noise", lambda self, index, shape: draws)
    autoencoder, network = (
        build_autoencoder(run.autoencoder),
        discriminator_training.DiscriminatorTraining(run).network,
    )
    rename = partial(original.autoencoder_name, run.autoencoder)
    params = original.parameters(autoencoder, rename, images, noise)
    judging = original.parameters(
        SimpleNamespace(init=partial(network.init, train=False)), original.discriminator_name,
        images,
    )  # fmt: skip
    before = create_autoencoder_state(run, params)
    before = before.replace(
        own=before.own.replace(discriminator=before.own.discriminator.replace(params=judging))
    )
    frozen = {"perceptual": original.parameters(LPIPS(), original.lpips_name, images, images)}
    with np.load(original.GOLDEN) as file:
        golden = {name: file[name] for name in file.files if name.startswith(f"{kind}/")}
    golden = {name.removeprefix(f"{kind}/"): value for name, value in golden.items()}
    program = jax.jit(make_autoencoder_step(autoencoder, run))
    for rounded in _in_other_roundings(images):
        batch = {"image": rounded, "index": jnp.arange(original.BATCH, dtype=jnp.uint32)}
        after, metrics = program(before, frozen, batch)
        weight = original.DISCRIMINATOR_WEIGHT * float(metrics["adaptive_weight"])
        if weight == pytest.approx(float(golden["generator/metric/d_weight"]), rel=1e-4):
            break
    patch.undo()
    return SimpleNamespace(
        kind=kind, before=before, after=after, metrics=metrics, golden=golden, rename=rename
    )


def test_terms(step):
    ours = {
        "generator/metric/nll_loss": step.metrics["nll"],
        "generator/metric/g_loss": step.metrics["adversarial"],
        "generator/metric/d_weight":
            original.DISCRIMINATOR_WEIGHT * step.metrics["adaptive_weight"],
        "generator/metric/total_loss": step.metrics["loss"],
        "discriminator/metric/disc_loss": step.metrics["discriminator_loss"],
        "discriminator/metric/logits_real": step.metrics["logits_real"],
        "discriminator/metric/logits_fake": step.metrics["logits_fake"],
    }  # fmt: skip
    if step.kind == "kl":
        ours["generator/metric/kl_loss"] = step.metrics["kl_per_image"]
    else:
        ours["generator/metric/p_loss"] = step.metrics["lpips"]
        ours["generator/metric/perplexity"] = step.metrics["code_perplexity"]
    ours = {name: float(value) for name, value in ours.items()}
    # Mean logits are small differences of large numbers.
    assert ours == pytest.approx({name: float(step.golden[name]) for name in ours}, rel=1e-4)


def test_gradients(step):
    """Adam's first moment after one step is (1 - beta1) times the gradient."""
    for state, rename, side in (
        (step.after.opt_state, step.rename, "generator"),
        (step.after.own.discriminator.opt_state, original.discriminator_name, "discriminator"),
    ):
        moments = optax.tree.get(state, "mu")
        gradients = jax.tree.map(lambda moment: moment / (1 - BETA1), moments)
        errors = original.differences(gradients, rename, step.golden, f"{side}/gradient")
        assert max(errors.values()) < 1e-4, side


def test_updates(step):
    for before, after, rename, side in (
        (step.before, step.after, step.rename, "generator"),
        (
            step.before.own.discriminator,
            step.after.own.discriminator,
            original.discriminator_name,
            "discriminator",
        ),
    ):  # fmt: skip
        updates = jax.tree.map(lambda a, b: a - b, after.params, before.params)
        errors = original.differences(updates, rename, step.golden, f"{side}/update")
        # Adam's first updates are the signs of gradients, of which those of next to nothing are
        # rounding; the bias of keys has no other.
        assert max(error for name, error in errors.items() if "k.bias" not in name) < 0.05, side


def test_running_statistics(step):
    for layer, ours in step.after.own.discriminator.batch_stats["main"].items():
        for kind in ("mean", "var"):
            name = f"discriminator/statistics/loss.discriminator.main.{layer}.running_{kind}"
            np.testing.assert_allclose(ours[kind], step.golden[name], rtol=1e-5, atol=1e-6)
