"""Closed sets of names that users choose from, where both settings and mathematics know them."""

from typing import Literal

SamplerName = Literal[
    "ddim", "ddpm", "ddpm_beta", "ddpm_learned", "plms", "euler", "euler_a", "heun", "dpm2",
    "dpm2_a", "lms", "dpm_solver_1", "dpm_solver_2", "dpm_solver_3", "dpmpp_2m", "dpmpp_2m_sde",
    "dpmpp_2s_a", "dpmpp_3m_sde", "dpmpp_sde", "unipc", "unipc_3", "unipc_bh1", "deis", "lcm",
    "euler_maruyama", "reverse_diffusion",
]  # fmt: skip
"""See `sampling.solvers`."""
CorrectorName = Literal["langevin", "annealed_langevin"]
"""See `sampling.sde.PredictorCorrector`."""

TimestepSpacing = Literal[
    "trailing", "leading", "linspace", "quad", "ddim_uniform", "guided_uniform"
]  # fmt: skip
"""Rules for timesteps 0..T-1, see `diffusion.spacing`."""
RatioSpacing = Literal["karras", "exponential"]
"""Rules for noise-to-signal ratios."""
PublishedSpacing = Literal["ays_sd15", "ays_sdxl"]
"""Lists for schedules that are known."""
Spacing = Literal[TimestepSpacing, RatioSpacing, PublishedSpacing]
FinalAlphaBar = Literal["one", "first"]
"""Where sampling ends: at no noise, or at that of the first time."""

GuidanceSchedule = Literal["constant", "linear", "cosine"]
ClassifierForm = Literal["eps", "mean"]
"""See `sampling.guidance`."""

PredictionKind = Literal["eps", "x0", "v", "score", "velocity", "edm"]
"""What a network's output stands for: see `diffusion.parameterization.target`."""
ScheduleKind = Literal["linear", "scaled_linear", "sqrt", "cosine", "sigmoid", "sigmoid_betas"]
"""See `diffusion.schedules.betas`."""
Distance = Literal["l2", "l1", "huber"]
"""Of output and target, see `diffusion.losses`."""
FixedVariance = Literal["beta", "beta_tilde"]
"""Of the posterior's steps, see `diffusion.posterior`."""

EvaluatorName = Literal[
    "torch-fidelity", "adm", "pytorch-fid", "clean-fid", "prdc", "dgm-eval", "cmmd", "clipscore",
    "torchmetrics", "digit-scenes", "ldm-jax",
]  # fmt: skip
"""Programs that scores are named after, see `evaluation.evaluators`."""
