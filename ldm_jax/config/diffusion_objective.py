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
    """The loss of stage two; docs/objectives.md has the formulas and where they come from."""

    loss: Literal["simple", "hybrid", "vlb"] = "simple"
    """`simple`: the distance of output and target. `hybrid` adds the variational bound for the
    learned variance only, `vlb` is the bound itself; their chain is discrete."""
    distance: Distance = "l2"
    huber_c: Positive = 0.1
    """Errors far above it count as their absolute value."""
    weighting: Weighting = "plain"
    """What each noise level counts for. `plain`: the network's output as it is; a kind of output:
    as if the network predicted that."""
    min_snr_gamma: Positive = 5.0
    p2_k: Positive = 1.0
    p2_gamma: Annotated[float, Within(0.0, 100.0)] = 1.0
    vlb_weight: Weight = 0.001
    """Of the bound in the hybrid loss."""
    fixed_variance: FixedVariance = "beta_tilde"
    """Of the steps in `vlb` and `posterior_kl` where the network learns none."""
    bins: Annotated[int, Within(2, 65536)] | None = None
    """With `hybrid` and `vlb`: how many values the data take in [-1, 1]. None: what 8-bit pixels
    have, 256, and for latents none, whose bound is one of a density."""
    times: Literal["uniform", "logit_normal", "log_normal", "second_moment"] = "uniform"
    """Which times are drawn. `uniform`: those of the process. `logit_normal`: mostly its middle.
    `log_normal`: log(sigma / alpha) is normal. `second_moment`: timesteps of large loss, with
    weights that leave the mean loss as it is."""
    times_mean: LogRatio = 0.0
    """Of `logit_normal` and `log_normal`; EDM has -1.2."""
    times_std: Annotated[float, Within(1e-6, 50.0)] = 1.0
    """EDM has 1.2."""
    low_discrepancy: bool = False
    """The times of a batch are spread evenly over their distribution."""
    noise_offset: Annotated[float, Within(0.0, 1000.0)] = 0.0
    """Standard deviation of a normal number that is added to each channel's noise."""
    input_perturbation: Annotated[float, Within(0.0, 1000.0)] = 0.0
    """Standard deviation of noise that is added to that of the input only, 0.1 in the paper."""
    map_weight: Weight = 0.0
    """Weight of the squared distance of the caption's map from the latents."""
    validation_levels: Annotated[int, Within(0, 1000)] = 8
    """Equal parts of the process's times whose validation losses are told one by one."""

    def __post_init__(self) -> None:
        if self.loss == "vlb":
            for name, value in (("distance", "l2"), ("weighting", "plain")):
                require(getattr(self, name) == value, f"objective.{name}", getattr(self, name),
                        f"{value!r} with loss 'vlb', which is no distance")  # fmt: skip
