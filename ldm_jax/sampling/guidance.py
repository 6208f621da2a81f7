"""Guidance: all of its numbers, and what each kind makes of a denoiser.

`Guidance` holds the numbers and puts the kinds together in one order; each of the functions below
is one kind, from denoisers to a denoiser. Numbers may be traced.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ldm_jax.core.names import ClassifierForm, GuidanceSchedule
from ldm_jax.core.typing import Denoise, Level, Prediction, Solver
from ldm_jax.sampling.solver_base import WrappedSolver, evaluates_once

Number = float | int | Float[Array, ""]
Scale = Number | Callable[[Level], Float[Array, ""]]
"""One scale for all levels, or a function of the level."""
USUAL_IMAGE_SCALE = 1.5
"""Of guidance by a picture to edit (Brooks 2022)."""
LogProb = Callable[[Float[Array, "b ..."], Level], Float[Array, "b"]]
"""log p(y | x) of each noisy example at one level, y being what is wanted of it."""


@dataclass(frozen=True, eq=False)
class Guidance:
    """What guides a drawing; what is None is absent.

    Schedule and form decide what is compiled, as does what is absent.
    """

    scale: Number = 1.0
    """Of classifier-free guidance, where there is an unconditional condition."""
    image_scale: Number = USUAL_IMAGE_SCALE
    """Of guidance by the picture to edit, where there is a condition of that alone."""
    schedule: GuidanceSchedule = "constant"
    """Of all scales over the noise levels; see `scheduled`."""
    interval: tuple[Number, Number] | None = None
    """Noise levels, as sigma / alpha, between which any of it acts."""
    rescale: Number | None = None
    """Share of the spread that classifier-free guidance adds that is taken away again."""
    weak_denoise: Denoise | None = None
    """The denoiser of a weaker model, from which autoguidance leads away."""
    autoguidance_scale: Number = 1.0
    log_prob: LogProb | None = None
    """What a classifier says of what is wanted."""
    classifier_scale: Number = 1.0
    classifier_form: ClassifierForm = "eps"
    threshold: Number | None = None
    """Quantile of dynamic thresholding."""
    threshold_bound: Number = 1.0
    """Range of x0 for it."""

    def denoiser(
        self,
        denoise_of: Callable[[Float[Array, "b ..."], Level, PyTree], Prediction],
        cond: PyTree[Array],
        uncond: PyTree[Array] | None,
        pictured: PyTree[Array] | None = None,
    ) -> Denoise:
        """The guided denoiser: classifier-free (where there is an `uncond`, or also `pictured`, the
        condition of the picture to edit alone), of that autoguidance, of that the classifier's
        gradient, and last the threshold."""
        scale = self._scheduled(self.scale)
        if uncond is None:
            denoise = partial(denoise_of, cond=cond)
        elif pictured is None:
            denoise = classifier_free(denoise_of, cond, uncond, scale, self.rescale)
        else:
            image_scale = self._scheduled(self.image_scale)
            denoise = by_picture_and_text(
                denoise_of, cond, pictured, uncond, scale, image_scale, self.rescale
            )
        if self.weak_denoise is not None:
            scale = self._scheduled(self.autoguidance_scale)
            denoise = autoguidance(denoise, self.weak_denoise, scale)
        if self.log_prob is not None and self.classifier_form == "eps":
            denoise = classifier(denoise, self.log_prob, self._classifier_scale())
        if self.threshold is not None:
            denoise = threshold(denoise, self.threshold, self.threshold_bound)
        return denoise

    def solver(self, solver: Solver) -> Solver:
        """`solver`, moved by the classifier where its form is the mean's."""
        if self.log_prob is None or self.classifier_form == "eps":
            return solver
        return MeanShift(solver, self.log_prob, self._classifier_scale())

    def _scheduled(self, scale: Number) -> Scale:
        return scheduled(scale, self.schedule, self.interval)

    def _classifier_scale(self) -> Scale:
        """A classifier's scale is 0, not 1, where it does not act."""
        return scheduled(self.classifier_scale, self.schedule, self.interval, none=0.0)


NO_GUIDANCE = Guidance()


# ------------------------------------------------------------------- scales over the noise levels


def scale_at(scale: Scale, level: Level) -> Number:
    """The scale at `level`."""
    return scale(level) if callable(scale) else scale


def scheduled(
    scale: Number,
    schedule: GuidanceSchedule = "constant",
    interval: tuple[Number, Number] | None = None,
    none: float = 1.0,
) -> Scale:
    """`scale` that grows while noise falls, or acts only between two noise levels.

    What guidance adds to `none`, the scale of no guidance, is multiplied by a weight that is
    `constant` 1, or rises from 0 at pure noise to 2 at none: `linear`, or `cosine` (Wang 2024,
    arXiv:2404.13040, section 4: the mean over the way is 1). The way is measured by the angle
    arctan(sigma / alpha), which is the paper's time for a cosine schedule and defined for every
    process.

    `interval` (low, high): outside of low < sigma / alpha <= high the scale is `none`
    (Kynkäänniemi 2024, arXiv:2404.07724, eq. 3, whose sigma is sigma / alpha here).
    Raises ValueError for an unknown schedule.
    """
    if schedule not in get_args(GuidanceSchedule):
        raise ValueError(
            f"guidance_schedule is {schedule!r}; it must be one of {get_args(GuidanceSchedule)}"
        )
    if schedule == "constant" and interval is None:
        return scale

    def at(level: Level) -> Float[Array, ""]:
        noise = jnp.arctan2(level.sigma, level.alpha) / (jnp.pi / 2)
        weight = {
            "constant": jnp.ones_like(noise),
            "linear": 2 * (1 - noise),
            "cosine": 1 + jnp.cos(jnp.pi * noise),
        }[schedule]
        value = none + weight * (scale - none)
        if interval is None:
            return value
        ratio = level.sigma / level.alpha  # infinite where alpha is 0
        return jnp.where((ratio > interval[0]) & (ratio <= interval[1]), value, none)

    return at


# ------------------------------------------------------------------- from one model to another


def classifier_free(
    denoise_of: Callable[[Float[Array, "b ..."], Level, PyTree], Prediction],
    cond: PyTree[Array],
    uncond: PyTree[Array],
    scale: Scale,
    rescale: Number | None = None,
) -> Denoise:
    """Classifier-free guidance, Ho & Salimans 2022 (arXiv:2207.12598), eq. 6.

    eps = eps_u + scale (eps_c - eps_u), so scale 0 is unconditional, 1 conditional (callers who
    know it beforehand save half the work by using the conditional denoiser itself), and the
    paper's w is scale - 1. It may be traced, or depend on the level (see `scheduled`). x0 is
    combined alike, which keeps x0 and eps consistent, both being affine in each other at a given x.
    A learned variance is the conditional one. With `rescale`, 0 to 1, see `rescaled`.

    `denoise_of(x, level, cond)` is called once with 2b examples, ordered [uncond, cond]. The
    leaves of `cond` and `uncond` have one row per example, [b, ...]. Raises ValueError if the two
    differ in structure, shape or dtype.
    """
    predictions = _together(denoise_of, uncond, cond)

    def denoise(x: Float[Array, "b *d"], level: Level) -> Prediction:
        unconditional, conditional = predictions(x, level)
        guided = extrapolate(unconditional, conditional, scale_at(scale, level))
        return guided if rescale is None else rescaled(guided, conditional, x, level, rescale)

    return denoise


def by_picture_and_text(
    denoise_of: Callable[[Float[Array, "b ..."], Level, PyTree], Prediction],
    cond: PyTree[Array],
    pictured: PyTree[Array],
    uncond: PyTree[Array],
    scale: Scale,
    image_scale: Scale,
    rescale: Number | None = None,
) -> Denoise:
    """Guidance of two conditions, a picture to edit and a text, Brooks 2022 (arXiv:2211.09800),
    eq. 3.

    eps = e(0, 0) + image_scale (e(c_I, 0) - e(0, 0)) + scale (e(c_I, c_T) - e(c_I, 0)), of which
    `uncond` is the first condition, `pictured` the second and `cond` the third; both scales 1 are
    the conditional model alone, and equal ones are classifier-free guidance. x0, variance,
    `rescale` and errors are as in `classifier_free`.

    `denoise_of(x, level, cond)` is called once with 3b examples, in that order.
    """
    predictions = _together(denoise_of, uncond, pictured, cond)

    def denoise(x: Float[Array, "b *d"], level: Level) -> Prediction:
        unconditional, of_picture, conditional = predictions(x, level)
        towards = extrapolate(unconditional, of_picture, scale_at(image_scale, level))
        by_text = scale_at(scale, level)
        guided = Prediction(
            x0=towards.x0 + by_text * (conditional.x0 - of_picture.x0),
            eps=towards.eps + by_text * (conditional.eps - of_picture.eps),
            variance=conditional.variance,
        )
        return guided if rescale is None else rescaled(guided, conditional, x, level, rescale)

    return denoise


def _together(
    denoise_of: Callable[[Float[Array, "b ..."], Level, PyTree], Prediction],
    *conditions: PyTree[Array],
) -> Callable[[Float[Array, "b ..."], Level], list[Prediction]]:
    """The predictions under each of the `conditions`, all by one call of the network."""
    for other in conditions[:-1]:
        _require_alike(conditions[-1], other)
    count = len(conditions)
    every = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *conditions)

    def predictions(x: Float[Array, "b *d"], level: Level) -> list[Prediction]:
        found = denoise_of(jnp.concatenate([x] * count), level, every)
        parts = jax.tree.map(lambda values: jnp.split(values, count), found)
        return [
            Prediction(*(None if part is None else part[i] for part in parts)) for i in range(count)
        ]

    return predictions


def autoguidance(denoise: Denoise, weak: Denoise, scale: Scale) -> Denoise:
    """Guidance by a weaker model of the same task, Karras 2024 (arXiv:2406.02507), eq. 3.

    D = D_weak + scale (D - D_weak): 1 is the model alone. `weak` is a smaller, or shorter
    trained, model under the same condition; it costs a call of its own. The variance is the
    model's.
    """

    def guided(x: Float[Array, "b *d"], level: Level) -> Prediction:
        return extrapolate(weak(x, level), denoise(x, level), scale_at(scale, level))

    return guided


def extrapolate(base: Prediction, target: Prediction, scale: Number) -> Prediction:
    """base + scale (target - base), of x0 and of eps; the variance is the target's."""
    return Prediction(
        x0=base.x0 + scale * (target.x0 - base.x0),
        eps=base.eps + scale * (target.eps - base.eps),
        variance=target.variance,
    )


def rescaled(
    guided: Prediction,
    conditional: Prediction,
    x: Float[Array, "b *d"],
    level: Level,
    share: Number,
) -> Prediction:
    """`guided` with a part `share` of the excess of its spread over the conditional's taken away.

    Lin 2024 (arXiv:2305.08891), eq. 15 and 16, phi being `share`; the paper uses 0.7. As there it
    is v = alpha eps - sigma x0 whose standard deviation over an example is compared, whatever the
    network predicts; v stays meaningful at all levels, also where alpha is 0.
    """
    alpha, sigma = level.alpha, level.sigma
    v_guided, v_conditional = (alpha * p.eps - sigma * p.x0 for p in (guided, conditional))
    ratio = _spread(v_conditional) / jnp.maximum(_spread(v_guided), 1e-12)
    v = v_guided * (share * ratio + (1 - share))
    power = alpha**2 + sigma**2
    return Prediction(
        x0=(alpha * x - sigma * v) / power,
        eps=(sigma * x + alpha * v) / power,
        variance=guided.variance,
    )


def threshold(
    denoise: Denoise,
    quantile: Number,
    bound: Number = 1.0,
) -> Denoise:
    """Dynamic thresholding, Saharia 2022 (arXiv:2205.11487), section 2.3.

    An example whose `quantile` (0 to 1) of |x0|, s, is above `bound` has x0 clipped to [-s, s] and
    divided by s / bound; others are clipped to [-bound, bound]. Pixels have bound 1; latents have
    no range, and those scaled to unit variance rarely leave -3 to 3. eps follows from x0.
    """

    def thresholded(x: Float[Array, "b *d"], level: Level) -> Prediction:
        prediction = denoise(x, level)
        flat = jnp.abs(prediction.x0).reshape(x.shape[0], -1)
        limit = jnp.maximum(jnp.quantile(flat, quantile, axis=1), bound)
        limit = limit.reshape(-1, *(1,) * (x.ndim - 1))
        x0 = jnp.clip(prediction.x0, -limit, limit) * (bound / limit)
        return prediction._replace(x0=x0, eps=(x - level.alpha * x0) / level.sigma)

    return thresholded


def _spread(values: Float[Array, "b *d"]) -> Float[Array, "b ..."]:
    """Standard deviation of each example, with axes of length 1."""
    return jnp.std(values, axis=tuple(range(1, values.ndim)), keepdims=True)


def _require_alike(cond: PyTree[Array], uncond: PyTree[Array]) -> None:
    if jax.tree.structure(cond) != jax.tree.structure(uncond):
        raise ValueError(
            f"cond and uncond differ in structure: {jax.tree.structure(cond)} and "
            f"{jax.tree.structure(uncond)}; give both the same fields"
        )
    for (path, c), u in zip(
        jax.tree_util.tree_leaves_with_path(cond), jax.tree.leaves(uncond), strict=True
    ):
        if c.shape != u.shape or c.dtype != u.dtype:
            raise ValueError(
                f"cond{jax.tree_util.keystr(path)} is {c.dtype}{list(c.shape)} but uncond has "
                f"{u.dtype}{list(u.shape)}; repeat the unconditional row for every example"
            )


# ------------------------------------------------------------------- by a classifier's gradient


def gradient(log_prob: LogProb, x: Float[Array, "b *d"], level: Level) -> Float[Array, "b *d"]:
    """The gradient of each example's log p(y | x) by that example."""
    return jax.grad(lambda x: jnp.sum(log_prob(x, level)))(x)


def classifier(denoise: Denoise, log_prob: LogProb, scale: Scale) -> Denoise:
    """Classifier guidance, Dhariwal & Nichol 2021 (arXiv:2105.05233), algorithm 2, for any solver.

    eps - scale sigma grad log p(y | x), which is the score of p(x) p(y | x)^scale; x0 moves by
    scale sigma^2 / alpha grad. Where alpha is 0, x says nothing of y and nothing is changed. What
    is guided may itself be guided, without a classifier or by another model.
    """

    def guided(x: Float[Array, "b *d"], level: Level) -> Prediction:
        prediction = denoise(x, level)
        alpha, sigma = level.alpha, level.sigma
        some = alpha > 0
        slope = jnp.where(some, scale_at(scale, level), 0.0) * gradient(log_prob, x, level)
        return prediction._replace(
            x0=prediction.x0 + sigma**2 / jnp.where(some, alpha, 1.0) * slope,
            eps=prediction.eps - sigma * slope,
        )

    return guided


@dataclass(frozen=True, eq=False)
class MeanShift(WrappedSolver):
    """`solver`, whose steps' means move by scale Sigma grad log p(y | x), Sigma their variance.

    Dhariwal & Nichol 2021, algorithm 1, the gradient being taken where the step starts. For
    stochastic solvers that evaluate once a step, where they stand, and add noise in proportion:
    DDPM with any variance, DDIM with eta above 0, Euler ancestral, DPM-Solver++ 2M SDE. A step
    without noise is not guided. Raises ValueError for other solvers.
    """

    log_prob: LogProb
    scale: Scale

    def __post_init__(self) -> None:
        name = type(self.solver).__name__
        if not self.solver.stochastic:
            raise ValueError(
                f"{name} adds no noise, whose variance the mean would be moved by; use classifier "
                "guidance of form 'eps', or a sampler with noise"
            )
        if not evaluates_once(self.solver):
            raise ValueError(
                f"{name} evaluates more than once a step, of which each would move the mean; use "
                "classifier guidance of form 'eps', or a sampler that evaluates once"
            )

    def step(
        self,
        carry: Any,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float[Array, "b *d"],
    ) -> Any:
        """The solver's step, its mean moved.

        Steps with noise 0 and 1 tell the mean and the deviation, whatever the solver's variance
        is made of; all three share one prediction.
        """
        prediction = denoise(carry.x, level)

        def stepped(noise: Float[Array, "b *d"]) -> Any:
            return self.solver.step(carry, level, next_level, lambda *_: prediction, noise)

        std = stepped(jnp.ones_like(noise)).x - stepped(jnp.zeros_like(noise)).x
        slope = gradient(self.log_prob, carry.x, level)
        reached = stepped(noise)
        return reached._replace(x=reached.x + scale_at(self.scale, level) * std**2 * slope)
