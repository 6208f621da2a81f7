"""The optimiser of a run: AdamW under a learning-rate schedule, with clipping."""

from collections.abc import Callable

import jax
import optax

from ldm_jax import config as cfg


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
        weight_decay=optim.weight_decay,
        mask=decays,
    )
    if optim.clip_norm is None:
        return adamw
    return optax.chain(optax.clip_by_global_norm(optim.clip_norm), adamw)
