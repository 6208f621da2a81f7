"""Stage one's step: when the discriminator begins, what is trained, and that nothing else
matters."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.core import tree
from ldm_jax.core.sharding import batch_sharding, make_mesh, state_sharding
from ldm_jax.models.build import build_autoencoder
from ldm_jax.training.autoencoder_loss import AutoencoderLoss
from ldm_jax.training.autoencoder_stage import fresh_params
from ldm_jax.training.autoencoder_step import create_autoencoder_state, make_autoencoder_step
from ldm_jax.training.discriminator_training import DiscriminatorTraining
from ldm_jax.training.trainable import split
from ldm_jax.workdir.checkpoints import Checkpoints
from ldm_jax.workdir.consistency import check_same_run
from ldm_jax.workdir.run_config import write_config

START = 2
DISCRIMINATOR = cfg.Adversarial(start=START, channels=8, layers=1, lecam_weight=0.1)
VQ = cfg.VQ(size=16, ema_decay=0.9, revive_after=2)
SIDE = 16


def make_run(discriminator=DISCRIMINATOR, bottleneck=VQ, **changes):
    """A run with a codebook of averages and, unless it is None, a discriminator."""
    run = cfg.AutoencoderRun(
        cfg.Data(image_size=SIDE, batch_size=16),
        replace(tiny.AUTOENCODER, bottleneck=bottleneck),
        cfg.AutoencoderLoss(adversarial=discriminator),
        optim=cfg.Optim(learning_rate=1e-3, beta1=0.5, beta2=0.9, ema_decay=0.99),
        loop=tiny.LOOP,
    )
    return replace(run, **changes)


def batch(number):
    random = np.random.default_rng(number)
    # Smooth pictures: blocks of 4 pixels.
    image = random.integers(0, 256, (16, SIDE // 4, SIDE // 4, 3), np.uint8)
    index = np.arange(16, dtype=np.uint32) + 16 * number
    return {"image": image.repeat(4, axis=1).repeat(4, axis=2), "index": index}


class Trained:
    """A run with its compiled step, and the states and metrics of its first steps."""

    def __init__(self, run, steps, mesh=None, initial=None, state=None, frozen=None):
        autoencoder = build_autoencoder(run.autoencoder)
        losses = AutoencoderLoss(autoencoder, run)

        def init():
            params = fresh_params(losses) if initial is None else initial
            return create_autoencoder_state(run, params)

        where = everywhere = None
        if mesh is not None:
            where = state_sharding(mesh, jax.eval_shape(init), min_size=64)
            everywhere = batch_sharding(mesh)
        if state is None:
            state = jax.jit(init, out_shardings=where)()
        self.step = jax.jit(
            make_autoencoder_step(autoencoder, run), in_shardings=(where, None, everywhere),
            out_shardings=(where, None),
        )  # fmt: skip
        self.states, self.metrics = [state], []
        for number in range(steps):
            state, metrics = self.step(state, frozen or {}, batch(number))
            self.states.append(state)
            self.metrics.append(jax.device_get(metrics))


@pytest.fixture(scope="module")
def trained():
    return Trained(make_run(), 5)


def test_the_discriminator_begins_when_it_should(trained):
    first = trained.states[0].own.discriminator
    for state in trained.states[: START + 1]:
        tiny.same_bits(state.own.discriminator, first)
    for metrics in trained.metrics[:START]:
        assert metrics["adversarial"] == metrics["adaptive_weight"] == metrics["accuracy"] == 0
    begun = trained.states[START + 1].own.discriminator
    assert any((a != b).any() for a, b in zip(tiny.leaves(begun), tiny.leaves(first), strict=True))
    after = trained.metrics[START]
    assert 0 < after["adaptive_weight"] <= 1e4 and after["discriminator_gradient_norm"] > 0
    assert 0 <= after["accuracy_real"] <= 1 and 0 <= after["accuracy_fake"] <= 1


def test_what_is_logged(trained):
    names = {
        "loss", "nll", "l1", "l2", "psnr", "latent_mean", "latent_std", "commitment",
        "code_usage", "code_perplexity", "adversarial", "adaptive_weight", "lecam",
        "discriminator_loss",
        "logits_real", "logits_fake", "accuracy", "accuracy_real", "accuracy_fake",
        "gradient_norm", "update_norm", "discriminator_gradient_norm", "discriminator_update_norm",
    }  # fmt: skip
    for metrics in trained.metrics:
        assert set(metrics) == names
        assert all(np.isfinite(value) for value in metrics.values())


def test_the_codebook_is_averages_and_loses_no_vector(trained):
    state = trained.states[-1]
    vectors = np.asarray(state.params["quantize"]["embedding"]["embedding"])
    kept = state.own.codebook
    moving = np.asarray(kept.counts) > 1e-6
    means = np.asarray(kept.sums)[moving] / np.asarray(kept.counts)[moving, None]
    np.testing.assert_allclose(vectors[moving], means, rtol=1e-5)
    assert trained.metrics[-1]["code_usage"] > trained.metrics[0]["code_usage"]


def test_going_on_from_a_checkpoint_gives_the_same_bits(trained, tmp_path):
    """With the discriminator, its statistics and averages, and the codebook's, in the
    checkpoint."""
    write_config(tmp_path, make_run())
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(3, trained.states[3], {}, make_run())
        checkpoints.wait()
        state, _ = checkpoints.restore(trained.states[0])
    tiny.same_bits(state, trained.states[3])
    for number in (3, 4):
        state, _ = trained.step(state, {}, batch(number))
    tiny.same_bits(state, trained.states[5])
    step, params = Checkpoints.load_params(tmp_path, "ema")
    assert step == 3
    tiny.same_bits(params, trained.states[3].eval_params)


def test_devices_do_not_matter(trained):
    """The adaptive weight, batch norm, codes and their revival are those of the whole batch, which
    eight devices share, and parameters are those that four of them share."""
    mesh = make_mesh(cfg.Mesh(data=2, fsdp=4), jax.devices())
    with jax.set_mesh(mesh):
        shared = Trained(make_run(), 5, mesh)
    for found, expected in zip(shared.metrics, trained.metrics, strict=True):
        # Sums in another order, enlarged by Adam; the adaptive weight divides two small norms.
        for name in expected:
            np.testing.assert_allclose(
                found[name], expected[name], rtol=2e-3, atol=1e-5, err_msg=name
            )


def test_micro_batches_make_the_same_step():
    """Without batch norm and adaptive weights, which are each micro-batch's own."""
    discriminator = replace(
        DISCRIMINATOR, start=0, norm="none", adaptive=False, r1_gamma=0.1, sees="updated"
    )
    optim = make_run().optim
    runs = [make_run(discriminator, optim=replace(optim, accumulation=n)) for n in (1, 4)]
    whole = Trained(runs[0], 1)
    parts = Trained(runs[1], 1, state=whole.states[0])
    # Gradients by Adam's first moments: its first updates are signs, noise where a gradient is 0.
    learnt = [
        {
            "autoencoder": optax.tree.get(state.opt_state, "mu"),
            "discriminator": optax.tree.get(state.own.discriminator.opt_state, "mu"),
            "averages": [state.own.discriminator.lecam, state.own.codebook],
        }
        for state in (whole.states[1], parts.states[1])
    ]
    for a, b in zip(*map(tiny.leaves, learnt), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    for name, value in whole.metrics[0].items():
        if name != "psnr":  # a mean of logarithms is the same, a latent's std is not
            tolerance = 1e-4 if name != "latent_std" else 0.1
            np.testing.assert_allclose(
                parts.metrics[0][name], value, rtol=tolerance, atol=1e-4, err_msg=name
            )


def test_only_the_decoder(trained):
    """The state holds the decoder, its average and its moments, and nothing of the encoder."""
    run = make_run(None, train="decoder")
    initial, untrained = split(trained.states[0].params, run)
    assert untrained.keys() == {"encoder", "quant_conv", "quantize"}
    found = Trained(run, 2, initial=initial, frozen={"untrained": untrained})
    first, last = found.states[0], found.states[-1]
    for kind in ("params", "ema_params"):
        before, after = getattr(first, kind), getattr(last, kind)
        assert after.keys() == {"decoder", "post_quant_conv"}
        changed = [
            (a != b).any() for a, b in zip(tiny.leaves(after), tiny.leaves(before), strict=True)
        ]
        assert all(changed)
    values = tree.count(first.params)
    assert 2 * values <= tree.count(first.opt_state) < 2 * values + 10
    # What is reconstructed is as if all were one tree.
    np.testing.assert_allclose(found.metrics[0]["nll"], trained.metrics[0]["nll"], rtol=1e-5)


def test_a_discriminator_learns_to_tell_two_kinds_apart():
    run = make_run(replace(DISCRIMINATOR, start=0, lecam_weight=0.0, learning_rate=5e-3))
    training = DiscriminatorTraining(run)
    discriminator = training.create()

    @jax.jit
    def step(discriminator, real, fake):
        gradients, batch_stats, lecam, metrics = training.gradients(discriminator, real, fake)
        return training.update(discriminator, gradients, batch_stats, lecam)[0], metrics

    random = np.random.default_rng(0)
    for _ in range(100):
        noise = random.normal(size=(2, 8, SIDE, SIDE, 3)).astype(np.float32)
        smooth = noise[0, :, ::4, ::4].repeat(4, axis=1).repeat(4, axis=2)
        discriminator, metrics = step(discriminator, jnp.asarray(smooth), jnp.asarray(noise[1]))
    assert metrics["accuracy_real"] > 0.9 and metrics["accuracy_fake"] > 0.9


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"bottleneck": cfg.KL()}, "autoencoder.bottleneck was 'VQ', is 'KL'"),
        ({"bottleneck": replace(VQ, size=32)}, "autoencoder.bottleneck.size was 16, is 32"),
        ({"discriminator": None}, "loss.adversarial was 'Adversarial', is None"),
        ({"discriminator": replace(DISCRIMINATOR, layers=2, norm="none")},
         "loss.adversarial.layers was 1, is 2; loss.adversarial.norm was 'batch', is 'none'"),
        ({"train": "decoder"}, "train was 'all', is 'decoder'"),
    ],
)  # fmt: skip
def test_another_bottleneck_or_discriminator_is_refused_by_name(tmp_path, changes, complaint):
    write_config(tmp_path, make_run())
    check_same_run(tmp_path, make_run())
    with pytest.raises(cfg.ConfigError, match=complaint):
        check_same_run(tmp_path, make_run(**changes))
