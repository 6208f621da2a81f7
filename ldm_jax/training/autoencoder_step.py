"""Stage one's pure training step: the autoencoder's optimiser, its codebook, then its critic's.

In the order of the published code: the autoencoder is updated against the critic as it is, then
the critic. The critic learns from the reconstructions that the autoencoder has just learnt from,
or, as published, from those of the updated autoencoder (`adversarial.sees`).

With accumulation both sides' gradients are averages over micro-batches, each with an adaptive
weight and batch statistics of its own, as when the published code accumulates.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ldm_jax import config as cfg
from ldm_jax.core import tree
from ldm_jax.latent_diffusion import to_pixels
from ldm_jax.losses.adaptive import adaptive_weight, generator_gradients
from ldm_jax.models.autoencoder import Autoencoder
from ldm_jax.training.autoencoder_loss import AutoencoderLoss
from ldm_jax.training.codebook_updates import code_metrics, create_codebook, update_codebook
from ldm_jax.training.critic import Critic, CriticTraining
from ldm_jax.training.gradients import Metrics, descend, over_parts
from ldm_jax.training.optim import make_optimizer
from ldm_jax.training.state import TrainState, create_state, update_ema

Step = Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]

TRAINED = {
    "all": ((r".*", True),),
    "decoder": (
        (r"(decoder|post_quant_conv)/.*", True),
        (r"(encoder|quant_conv|quantize)/.*", False),
    ),
}
"""(pattern of the whole path, whether it is trained) for each choice of `AutoencoderRun.train`."""


@flax.struct.dataclass
class Own:
    """What stage one alone keeps in its state."""

    critic: Any
    """A `critic.Critic`, or an empty dict where nothing is trained against one."""
    codebook: Any
    """What a codebook of moving averages has gathered, or an empty dict."""


def last_kernel(params: Any) -> Float[Array, "..."]:
    """The kernel of the decoder's last layer, where the adaptive weight is measured."""
    return params["decoder"]["conv_out"]["kernel"]


def autoencoder_optimizer(run: cfg.AutoencoderRun) -> optax.GradientTransformation:
    """The optimiser of what `run.train` says; the rest has no moments."""
    optimizer = make_optimizer(run.optim, run.loop.steps)
    if run.train == "all":
        return optimizer
    return optax.masked(optimizer, lambda params: tree.mask(params, TRAINED[run.train]))


def create_autoencoder_state(run: cfg.AutoencoderRun, params: Any) -> TrainState:
    """The state before the first step of `run`, on `params`."""
    state = create_state(params, autoencoder_optimizer(run), run.optim.ema_decay)
    critic = CriticTraining(run).create() if run.loss.adversarial is not None else {}
    return state.replace(own=Own(critic, create_codebook(run, params)))


def make_autoencoder_step(autoencoder: Autoencoder, run: cfg.AutoencoderRun) -> Step:
    """`step(state, frozen, batch) -> (state, metrics)`; `frozen` holds LPIPS' parameters, if any.

    What `run.train` leaves out gets neither gradient nor weight decay: it keeps its bits.
    """
    losses, parts = AutoencoderLoss(autoencoder, run), run.optim.accumulation
    adversarial = run.loss.adversarial
    critics = CriticTraining(run) if adversarial is not None else None
    optimizer = autoencoder_optimizer(run)

    def step(state: TrainState, frozen: Any, batch: Any) -> tuple[TrainState, Metrics]:
        trained = tree.mask(state.params, TRAINED[run.train])
        active = state.step >= adversarial.start if critics is not None else None
        learn = partial(_learn, losses, critics, state, frozen, trained, active)
        (gradients, batch_stats, metrics), seen = over_parts(learn, batch, parts)
        params, opt_state, norms = descend(optimizer, gradients, state.opt_state, state.params)
        params = _choose(trained, params, state.params)
        codebook = state.own.codebook
        if run.autoencoder.codes is not None:
            metrics |= code_metrics(run, seen["indices"])
            codebook, params = update_codebook(
                run, codebook, params, seen["compared"], seen["indices"], state.step
            )
        metrics |= norms
        critic = state.own.critic
        if critics is not None:
            critic = critic.replace(batch_stats=batch_stats)
            update = partial(_update_critic, losses, critics, params, parts)
            judges = {"batch": batch, "images": seen["images"]}
            critic, judged = _when(active, update, critic, judges)
            metrics |= judged
        ema_params = state.ema_params
        if run.optim.ema_decay is not None:
            averages = update_ema(ema_params, params, state.step, run.optim.ema_decay)
            ema_params = _choose(trained, averages, ema_params)
        own = Own(critic, codebook)
        state = TrainState(state.step + 1, params, ema_params, opt_state, own)
        return state, metrics

    return step


def _learn(
    losses: AutoencoderLoss,
    critics: CriticTraining | None,
    state: TrainState,
    frozen: Any,
    trained: Any,
    active: Array | None,
    batch: Any,
) -> tuple[Any, Any]:
    """Gradients of the autoencoder, the critic's running statistics after it, and metrics; and
    of each image the reconstruction, the codes, and what was compared with them."""
    pixels = to_pixels(batch["image"])

    def forward(params: Any) -> tuple[Any, Any]:
        image, passed = losses.reconstruct(params, batch)
        return (image, losses.penalty(passed)), passed

    def no_critic(images: Float[Array, "b h w c"]) -> tuple[Float[Array, ""], Any]:
        return jnp.zeros(()), {}

    judge, strength, weigh = no_critic, jnp.zeros(()), _no_weight
    if critics is not None:
        config = critics.config
        judge = critics.judge(state.own.critic, active)
        strength = jnp.where(active, config.weight * config.factor, 0.0)
        weigh = adaptive_weight if config.adaptive else _no_weight
    gradients, terms = generator_gradients(
        forward, state.params, losses.nll(frozen, pixels), judge, last_kernel, strength, weigh
    )
    gradients = _choose(trained, gradients, jax.tree.map(jnp.zeros_like, gradients))
    metrics = {"loss": terms.total, "nll": terms.nll} | terms.nll_aux
    metrics |= losses.measures(terms.image, pixels, terms.forward_aux)
    if critics is not None:
        metrics["adversarial"] = terms.adversarial
        metrics["adaptive_weight"] = jnp.where(active, terms.weight, 0.0)
    passed = terms.forward_aux
    seen = {"images": terms.image, "indices": passed.indices, "compared": passed.compared}
    return (gradients, terms.adversarial_aux, metrics), seen


def _update_critic(
    losses: AutoencoderLoss,
    critics: CriticTraining,
    params: Any,
    parts: int,
    critic: Critic,
    seen: Any,
) -> tuple[Critic, Metrics]:
    """One step of the critic, on the reconstructions seen or on new ones with `params`."""

    def learn(part: Any) -> tuple[Any, Any]:
        real, fake = to_pixels(part["batch"]["image"]), part["images"]
        if critics.config.sees == "updated":
            fake, _ = losses.reconstruct(params, part["batch"])
        return critics.gradients(critic, real, fake), ()

    (gradients, batch_stats, lecam, metrics), _ = over_parts(learn, seen, parts)
    critic, norms = critics.update(critic, gradients, batch_stats, lecam)
    return critic, metrics | norms


def _when(
    active: Array, update: Callable[[Any, Any], tuple[Any, Metrics]], critic: Any, seen: Any
) -> tuple[Any, Metrics]:
    """`update(critic, seen)` if active; else the critic as it is, and zeros for metrics."""
    _, metrics = jax.eval_shape(update, critic, seen)

    def skip(critic: Any, seen: Any) -> tuple[Any, Metrics]:
        return critic, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics)

    return jax.lax.cond(active, update, skip, critic, seen)


def _choose(mask: Any, chosen: Any, other: Any) -> Any:
    """The leaves of `chosen` where `mask` says so, else those of `other`."""
    return jax.tree.map(lambda this, a, b: a if this else b, mask, chosen, other)


def _no_weight(nll: Float[Array, "..."], adversarial: Float[Array, "..."]) -> Float[Array, ""]:
    return jnp.ones(())
