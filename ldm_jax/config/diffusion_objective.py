"""What stage two minimises: a distance, what each noise level counts for, and which are drawn."""

from typing import Annotated, Literal

from ldm_jax.config.checks import LogRatio, Positive, Weight, Within, require, settings
from ldm_jax.core.names import Distance, FixedVariance

Weighting = Literal[
    "plain", "x0", "eps", "score", "v", "velocity", "edm", "min_snr", "p2", "debiased",
    "posterior_mean", "posterior_kl", "likelihood",
]  # fmt: skip


@settings
class Objective:
    """Loss and timestep sampling of stage two; docs/objectives.md has formulas and sources."""

    loss: Literal["simple", "hybrid", "vlb"] = "simple"
    """`simple`: distance of output and target. `hybrid`: simple, plus the variational bound to
    train the learned variance. `vlb`: the variational bound. The last two need a Discrete
    process."""
    distance: Distance = "l2"
    """Squared error, absolute error, or pseudo-Huber."""

    huber_c: Positive = 0.1
    """With `huber`: errors far above this count linearly, smaller ones quadratically."""
    weighting: Weighting = "plain"
    """Weight of each noise level. `plain`: unweighted error of the output. x0, eps, score, v,
    velocity or edm: as if the network predicted that. Or a published weighting such as min_snr."""
    min_snr_gamma: Positive = 5.0
    """With `min_snr`: the maximum weight, gamma."""
    p2_k: Positive = 1.0
    """With `p2`: k in snr / (k + snr)^gamma."""

    p2_gamma: Annotated[float, Within(0.0, 100.0)] = 1.0
    """With `p2`: gamma."""

    vlb_weight: Weight = 0.001
    """With `hybrid`: weight of the variational bound."""
    fixed_variance: FixedVariance = "beta_tilde"
    """With `vlb` and `posterior_kl`: variance of the steps, if the network does not learn it."""
    bins: Annotated[int, Within(2, 65536)] | None = None
    """With `hybrid` and `vlb` on pixels: number of grey levels in [-1, 1]; None: 256. Must be None
    for latents, which are continuous."""
    times: Literal["uniform", "logit_normal", "log_normal", "second_moment"] = "uniform"
    """Distribution of the training times. `uniform`: the process's default. `logit_normal`: more in
    the middle. `log_normal`: log(sigma / alpha) is normal (EDM). `second_moment`: more at timesteps
    with a large loss, reweighted so that the mean loss is unchanged."""
    times_mean: LogRatio = 0.0
    """With `logit_normal` and `log_normal`: the mean. EDM uses -1.2."""
    times_std: Annotated[float, Within(1e-6, 50.0)] = 1.0
    """With `logit_normal` and `log_normal`: the standard deviation. EDM uses 1.2."""
    low_discrepancy: bool = False
    """Spread the times of a batch evenly over their distribution, for a less noisy loss."""
    noise_offset: Annotated[float, Within(0.0, 1000.0)] = 0.0
    """Offset noise: add a random constant with this standard deviation to the noise of each
    channel. About 0.1 helps with very dark and very bright images."""
    input_perturbation: Annotated[float, Within(0.0, 1000.0)] = 0.0
    """Standard deviation of extra noise on the input but not in the target (Ning 2023: 0.1)."""
    map_weight: Weight = 0.0
    """Weight of the loss that trains the caption map towards the latents; needs a
    CaptionMapConditioner."""
    validation_levels: Annotated[int, Within(0, 1000)] = 8
    """Also report the validation loss separately for this many noise levels; 0: only the mean."""

    def __post_init__(self) -> None:
        if self.loss == "vlb":
            for name, value in (("distance", "l2"), ("weighting", "plain")):
                require(getattr(self, name) == value, f"objective.{name}", getattr(self, name),
                        f"{value!r} with loss 'vlb', which is no distance")  # fmt: skip
