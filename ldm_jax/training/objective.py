"""The config of an objective as the functions that the training step is written with."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from ldm_jax import config as cfg
from ldm_jax.core import rngs
from ldm_jax.core.typing import Prediction, Process
from ldm_jax.diffusion import timesteps, weightings
from ldm_jax.diffusion.losses import distance_loss, variance_loss, vlb_loss
from ldm_jax.diffusion.posterior import fixed_share, log_variance, posterior_tables
from ldm_jax.diffusion.schedules import NoiseSchedule


class Objective:
    """What one run minimises, on one process. All draws are named streams of the run's seed."""

    def __init__(self, run: cfg.DiffusionRun, process: Process) -> None:
        self.config, self.process = run.objective, process  # the run's own checks fit them
        self.kind, self.sigma_data = run.diffusion.prediction, run.diffusion.sigma_data
        self.learned_variance = run.diffusion.learned_variance
        self.seed, self.batch_size = run.loop.seed, run.data.batch_size
        self.bounded = self.config.loss != "simple"
        usual = 256 if run.space == "pixels" else None
        self.bins = usual if self.config.bins is None else self.config.bins
        if isinstance(process, NoiseSchedule):
            self.posterior = posterior_tables(process.alpha_bar)

    # --------------------------------------------------------------------------------- times

    def initial_sampler(self) -> Any:
        """What the training state keeps of losses, to draw times by: an empty dict for nothing."""
        if self.config.times != "second_moment":
            return {}
        return timesteps.SecondMoment.create(self.process.num_timesteps)

    def times(
        self, index: UInt32[Array, "b"], sampler: Any
    ) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
        """Each example's time, and the weight that makes up for how often such times are drawn.

        With no `sampler`, as in validation, times of `second_moment` are drawn evenly.
        """
        config = self.config
        key = rngs.stream(self.seed, "timestep")
        if config.low_discrepancy:
            u = timesteps.low_discrepancy(key, index, self.batch_size)
        else:
            u = timesteps.independent(key, index)
        if sampler:
            t, weight = timesteps.by_probability(u, sampler.probabilities())
            return t.astype(jnp.float32), weight
        match config.times:
            case "logit_normal":
                u = timesteps.logit_normal(u, config.times_mean, config.times_std)
            case "log_normal":
                table = timesteps.log_noise(self.process)
                u = timesteps.log_normal(u, table, config.times_mean, config.times_std)
        return self.process.time_at(u), jnp.ones_like(u)

    def level_times(self, index: UInt32[Array, "b"]) -> Float[Array, "k b"]:
        """A time for each example in each of `validation_levels` equal parts of [0, 1)."""
        u = timesteps.independent(rngs.stream(self.seed, "timestep/levels"), index)
        part = jnp.arange(self.config.validation_levels, dtype=jnp.float32)
        return self.process.time_at((part[:, None] + u[None]) / max(len(part), 1))

    # --------------------------------------------------------------------------------- noise

    def noise(
        self, index: UInt32[Array, "b"], shape: tuple[int, ...], *, train: bool
    ) -> tuple[Float[Array, "b zh zw z"], Float[Array, "b zh zw z"]]:
        """The noise that is to be predicted, and that of the network's input.

        In training both get `noise_offset` (Guttenberg 2023, "Diffusion with offset noise"), and
        the latter gets `input_perturbation` (Ning 2023, arXiv:2301.11706, algorithm 1).
        """

        def normal(name: str, shape: tuple[int, ...]) -> Array:
            return rngs.normal(rngs.example_keys(rngs.stream(self.seed, name), index), shape)

        eps = normal("noise", shape)
        if train and self.config.noise_offset:
            eps += self.config.noise_offset * normal("noise/offset", (1, 1, shape[-1]))
        if train and self.config.input_perturbation:
            return eps, eps + self.config.input_perturbation * normal("noise/input", shape)
        return eps, eps

    # ---------------------------------------------------------------------------------- loss

    def distance(
        self, output: Float[Array, "b *d"], target: Float[Array, "b *d"]
    ) -> Float[Array, "b"]:
        """Mean distance of each example's output from its target."""
        return distance_loss(output, target, self.config.distance, self.config.huber_c)

    def weight(self, t: Float[Array, "b"]) -> Float[Array, "b"]:
        """What each example's distance counts for, at its time."""
        if self.config.weighting in ("plain", self.kind):
            return jnp.ones_like(t)
        alpha, sigma = self.process.alpha_at(t), self.process.sigma_at(t)
        own = weightings.output_factor(self.kind, alpha, sigma, self.sigma_data)
        return self._x0_weight(t, alpha, sigma) / own

    def bound(
        self, prediction: Prediction, x0: Float[Array, "b *d"], t: Float[Array, "b"]
    ) -> Float[Array, "b"]:
        """The variational bound, for the variance alone in the hybrid loss; bits per dimension."""
        t, bins = t.astype(jnp.int32), self.bins
        if self.config.loss == "hybrid":
            return variance_loss(self.posterior, prediction, x0, t, bins=bins)
        fixed = self.config.fixed_variance
        return vlb_loss(self.posterior, prediction, x0, t, fixed=fixed, bins=bins)

    def _x0_weight(
        self, t: Float[Array, "b"], alpha: Float[Array, "b"], sigma: Float[Array, "b"]
    ) -> Float[Array, "b"]:
        """What the squared error of x0 counts for."""
        config, snr = self.config, weightings.snr(alpha, sigma)
        match config.weighting:
            case "min_snr":
                return weightings.min_snr(snr, config.min_snr_gamma)
            case "p2":
                return weightings.p2(snr, config.p2_k, config.p2_gamma)
            case "debiased":
                return weightings.debiased(snr)
            case "posterior_mean":
                return weightings.posterior_mean(self.posterior.at(t.astype(jnp.int32)))
            case "posterior_kl":
                step = t.astype(jnp.int32)
                at = self.posterior.at(step)
                share = fixed_share(step, config.fixed_variance)
                return weightings.posterior_kl(at, log_variance(at, share))
            case "likelihood":
                return weightings.likelihood(alpha, sigma, self.process.diffusion_at(t))
            case kind:
                return weightings.output_factor(kind, alpha, sigma, self.sigma_data)
