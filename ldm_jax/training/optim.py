"""The optimiser of a run: AdamW under a learning-rate schedule, with clipping."""

from collections.abc import Callable

import jax
import optax

from ldm_jax import config as cfg
from ldm_jax.core import tree


def learning_rate(optim: cfg.Optim, steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then constant, or a linear or cosine fall to 0 at `steps`."""
    peak, warmup = optim.learning_rate, optim.warmup_steps
    after = max(steps - warmup, 1)
    match optim.schedule:
        case "constant":
            main = optax.constant_schedule(peak)
        case "linear":
            main = optax.linear_schedule(peak, 0.0, after)
        case "cosine":
            main = optax.cosine_decay_schedule(peak, after)
    if not warmup:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup])


def schedule_note(optim: cfg.Optim, before: int, now: int, done: int) -> str:
    """What it means for the learning rate, in a line, that a run of `before` steps goes on as one
    of `now` after `done`; "" where it means nothing."""
    if before == now or optim.schedule == "constant":
        return ""
    with jax.numpy_dtype_promotion("standard"):
        old, new = (f"{float(learning_rate(optim, n)(done)):.3g}" for n in (before, now))
    return (
        f"loop.steps was {before} and is {now}, where the {optim.schedule} schedule ends: the "
        f"learning rate goes on at {new} {'as before' if new == old else f'instead of {old}'}"
    )


def of_two_dimensions(params: optax.Params) -> optax.Params:
    """Kernels and embeddings, which have two or more."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def make_diffusion_optimizer(run: cfg.DiffusionRun) -> optax.GradientTransformation:
    """That of stage two; the text encoder may have a learning rate of its own.

    AdamW's update is proportional to the learning rate, weight decay included, so one rate is
    another with the update multiplied by their ratio. For parameters without any of the text
    encoder such an optimiser raises cfg.ConfigError.
    """
    usual = make_optimizer(run.optim, run.loop.steps)
    if run.text_encoder_learning_rate is None:
        return usual
    ratio = run.text_encoder_learning_rate / run.optim.learning_rate

    def of_text_encoder(params: optax.Params) -> optax.Params:
        found = tree.mask(params, [(cfg.TRAINED["text_encoder"], True), (r".*", False)])
        if not any(jax.tree.leaves(found)):
            raise cfg.ConfigError(
                f"text_encoder_learning_rate is {run.text_encoder_learning_rate}, but nothing of "
                "the text encoder trains; leave it out, or train that too (train, adapter.modules)"
            )
        return found

    return optax.chain(usual, optax.masked(optax.scale(ratio), of_text_encoder))


def make_optimizer(
    optim: cfg.Optim,
    steps: int,
    decays: Callable[[optax.Params], optax.Params] = of_two_dimensions,
) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) after clipping by global norm.

    Weight decay applies to the parameters that `decays` marks True, by default to kernels and
    embeddings.
    """
    adamw = optax.adamw(
        learning_rate(optim, steps),
        b1=optim.beta1,
        b2=optim.beta2,
        eps=optim.eps,
        mu_dtype=optim.moment_dtype,
        weight_decay=optim.weight_decay,
        mask=decays,
    )
    if optim.clip_norm is None:
        return adamw
    return optax.chain(optax.clip_by_global_norm(optim.clip_norm), adamw)
