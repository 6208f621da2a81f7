"""Stage one's pure training step: the autoencoder's optimiser, its codebook, then its
discriminator's.

In the order of the published code: the autoencoder is updated against the discriminator as it is,
then the discriminator. The discriminator learns from the reconstructions that the autoencoder has
just learnt from, or, as published, from those of the updated autoencoder (`adversarial.sees`).

With accumulation both sides' gradients are averages over micro-batches, each with an adaptive
weight and batch statistics of its own, as when the published code accumulates.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ldm_jax import config as cfg
from ldm_jax.losses.adaptive import adaptive_weight, generator_gradients
from ldm_jax.models.autoencoder import Autoencoder
from ldm_jax.models.pixels import to_pixels
from ldm_jax.training.autoencoder_loss import AutoencoderLoss
from ldm_jax.training.codebook_updates import code_metrics, create_codebook, update_codebook
from ldm_jax.training.discriminator_training import Discriminator, DiscriminatorTraining
from ldm_jax.training.gradients import Metrics, descend, over_parts
from ldm_jax.training.optim import make_optimizer
from ldm_jax.training.state import TrainState, create_state, update_ema
from ldm_jax.training.trainable import bind

Step = Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]


@flax.struct.dataclass
class Own:
    """What stage one alone keeps in its state."""

    discriminator: Any
    """A `Discriminator`, or an empty dict where nothing is trained against one."""
    codebook: Any
    """What a codebook of moving averages has gathered, or an empty dict."""


def last_kernel(params: Any) -> Float[Array, "..."]:
    """The kernel of the decoder's last layer, where the adaptive weight is measured."""
    return params["decoder"]["conv_out"]["kernel"]


def create_autoencoder_state(run: cfg.AutoencoderRun, params: Any) -> TrainState:
    """The state before the first step of `run`, on the `params` that it trains."""
    optimizer = make_optimizer(run.optim, run.loop.steps)
    state = create_state(params, optimizer, run.optim.ema_decay)
    discriminator = DiscriminatorTraining(run).create() if run.loss.adversarial is not None else {}
    return state.replace(own=Own(discriminator, create_codebook(run, params)))


def make_autoencoder_step(autoencoder: Autoencoder, run: cfg.AutoencoderRun) -> Step:
    """`step(state, frozen, batch) -> (state, metrics)`; `frozen` holds LPIPS' parameters, if any,
    and those of the autoencoder that are not trained."""
    losses, parts = AutoencoderLoss(autoencoder, run), run.optim.accumulation
    adversarial = run.loss.adversarial
    trainer = DiscriminatorTraining(run) if adversarial is not None else None
    optimizer = make_optimizer(run.optim, run.loop.steps)

    def step(state: TrainState, frozen: Any, batch: Any) -> tuple[TrainState, Metrics]:
        active = state.step >= adversarial.start if trainer is not None else None
        learn = partial(_learn, losses, trainer, state, frozen, active)
        (gradients, batch_stats, metrics), seen = over_parts(learn, batch, parts)
        params, opt_state, norms = descend(
            optimizer, gradients, state.opt_state, state.params, run.loop.norm_depth
        )
        codebook = state.own.codebook
        if run.autoencoder.codes is not None:
            metrics |= code_metrics(run, seen["indices"])
            codebook, params = update_codebook(
                run, codebook, params, seen["compared"], seen["indices"], state.step
            )
        metrics |= norms
        discriminator = state.own.discriminator
        if trainer is not None:
            discriminator = discriminator.replace(batch_stats=batch_stats)
            update = partial(_update_discriminator, losses, trainer, bind(params, frozen), parts)
            judges = {"batch": batch, "images": seen["images"]}
            discriminator, judged = _when(active, update, discriminator, judges)
            metrics |= judged
        ema_params = state.ema_params
        if run.optim.ema_decay is not None:
            ema_params = update_ema(ema_params, params, state.step, run.optim.ema_decay)
        own = Own(discriminator, codebook)
        state = TrainState(state.step + 1, params, ema_params, opt_state, own)
        return state, metrics

    return step


def _learn(
    losses: AutoencoderLoss,
    trainer: DiscriminatorTraining | None,
    state: TrainState,
    frozen: Any,
    active: Array | None,
    batch: Any,
) -> tuple[Any, Any]:
    """Gradients of the autoencoder, the discriminator's running statistics after it, and metrics;
    and of each image the reconstruction, the codes, and what was compared with them."""
    pixels = losses.pixels(batch)

    def forward(params: Any) -> tuple[Any, Any]:
        image, passed = losses.reconstruct(bind(params, frozen), batch)
        return (image, losses.penalty(passed)), passed

    def no_discriminator(images: Float[Array, "b h w c"]) -> tuple[Float[Array, ""], Any]:
        return jnp.zeros(()), {}

    judge, strength, weigh = no_discriminator, jnp.zeros(()), _no_weight
    if trainer is not None:
        config = trainer.config
        judge = trainer.judge(state.own.discriminator, active)
        strength = jnp.where(active, config.weight * config.factor, 0.0)
        weigh = adaptive_weight if config.adaptive else _no_weight
    gradients, terms = generator_gradients(
        forward, state.params, losses.nll(frozen, pixels), judge, last_kernel, strength, weigh
    )
    metrics = {"loss": terms.total, "nll": terms.nll} | terms.nll_aux
    metrics |= losses.measures(terms.image, pixels, terms.forward_aux)
    if trainer is not None:
        metrics["adversarial"] = terms.adversarial
        metrics["adaptive_weight"] = jnp.where(active, terms.weight, 0.0)
    passed = terms.forward_aux
    seen = {"images": terms.image, "indices": passed.indices, "compared": passed.compared}
    return (gradients, terms.adversarial_aux, metrics), seen


def _update_discriminator(
    losses: AutoencoderLoss,
    trainer: DiscriminatorTraining,
    params: Any,
    parts: int,
    discriminator: Discriminator,
    seen: Any,
) -> tuple[Discriminator, Metrics]:
    """One step of the discriminator, on the reconstructions seen or on new ones with `params`."""

    def learn(part: Any) -> tuple[Any, Any]:
        real, fake = to_pixels(part["batch"]["image"]), part["images"]
        if trainer.config.sees == "updated":
            fake, _ = losses.reconstruct(params, part["batch"])
        return trainer.gradients(discriminator, real, fake), ()

    (gradients, batch_stats, lecam, metrics), _ = over_parts(learn, seen, parts)
    discriminator, norms = trainer.update(discriminator, gradients, batch_stats, lecam)
    return discriminator, metrics | norms


def _when(
    active: Array, update: Callable[[Any, Any], tuple[Any, Metrics]], discriminator: Any, seen: Any
) -> tuple[Any, Metrics]:
    """`update(discriminator, seen)` if active; else the discriminator as it is, and zeros for
    metrics."""
    _, metrics = jax.eval_shape(update, discriminator, seen)

    def skip(discriminator: Any, seen: Any) -> tuple[Any, Metrics]:
        return discriminator, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics)

    return jax.lax.cond(active, update, skip, discriminator, seen)


def _no_weight(nll: Float[Array, "..."], adversarial: Float[Array, "..."]) -> Float[Array, ""]:
    return jnp.ones(())
