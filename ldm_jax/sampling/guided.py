"""All guidance of one drawing, put together in one order."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxtyping import Array, Float, PyTree

from ldm_jax.core.typing import Denoise, Level, Prediction, Solver
from ldm_jax.sampling.classifier_guidance import LogProb, MeanShift, classifier
from ldm_jax.sampling.guidance import autoguidance, classifier_free, threshold
from ldm_jax.sampling.scales import Scale, ScaleSchedule, scheduled

Number = float | int | Float[Array, ""]
ClassifierForm = Literal["eps", "mean"]


@dataclass(frozen=True, eq=False)
class Guides:
    """What guides beside the scale of classifier-free guidance; what is None is absent.

    Numbers may be traced. Schedule and form decide what is compiled, as does what is absent.
    """

    schedule: ScaleSchedule = "constant"
    """Of all scales over the noise levels; see `scheduled`."""
    interval: tuple[Number, Number] | None = None
    """Noise levels, as sigma / alpha, between which any of it acts."""
    rescale: Number | None = None
    """Share of the spread that classifier-free guidance adds that is taken away again."""
    weak: Denoise | None = None
    """A weaker model, from which autoguidance leads away."""
    weak_scale: Number = 1.0
    log_prob: LogProb | None = None
    """What a classifier says of what is wanted."""
    classifier_scale: Number = 1.0
    classifier_form: ClassifierForm = "eps"
    threshold: Number | None = None
    """Quantile of dynamic thresholding."""
    bound: Number = 1.0
    """Range of x0 for it."""

    def denoiser(
        self,
        denoise_of: Callable[[Float[Array, "b ..."], Level, PyTree], Prediction],
        cond: PyTree[Array],
        uncond: PyTree[Array] | None,
        scale: Number,
    ) -> Denoise:
        """The guided denoiser: classifier-free (where there is an `uncond`), of that
        autoguidance, of that the classifier's gradient, and last the threshold."""
        if uncond is None:
            denoise = partial(denoise_of, cond=cond)
        else:
            at = self._scheduled(scale)
            denoise = classifier_free(denoise_of, cond, uncond, at, self.rescale)
        if self.weak is not None:
            denoise = autoguidance(denoise, self.weak, self._scheduled(self.weak_scale))
        if self.log_prob is not None and self.classifier_form == "eps":
            denoise = classifier(denoise, self.log_prob, self._classifier_scale())
        if self.threshold is not None:
            denoise = threshold(denoise, self.threshold, self.bound)
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


ALONE = Guides()
