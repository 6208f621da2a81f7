"""Noise schedules and lists of timesteps as the schedulers of diffusers describe them in JSON."""

from dataclasses import dataclass, replace
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.convert.fields import Fields
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.models.process import betas

Json = dict[str, Any]


@dataclass(frozen=True)
class Defaults:
    """What a class of diffusers takes for what its file does not say; None: it has no such setting.

    tests/parity compares them with the classes themselves.
    """

    timestep_spacing: str | None = "linspace"
    set_alpha_to_one: bool | None = None
    """Whether sampling ends at no noise, or at that of the first time."""
    clip_sample: bool | None = None
    beta_schedule: str = "linear"
    beta_start: float = 0.0001
    beta_end: float = 0.02


_KARRAS = {"beta_start": 0.00085, "beta_end": 0.012}
_CONSISTENCY = Defaults("leading", True, False, "scaled_linear", **_KARRAS)
SCHEDULERS = {
    "DDIMScheduler": Defaults("leading", True, True),
    "DDIMParallelScheduler": Defaults("leading", True, True),
    "DDPMScheduler": Defaults("leading", None, True),
    "DDPMParallelScheduler": Defaults("leading", None, True),
    "PNDMScheduler": Defaults("leading", False),
    "LMSDiscreteScheduler": Defaults(),
    "EulerDiscreteScheduler": Defaults(),
    "EulerAncestralDiscreteScheduler": Defaults(),
    "HeunDiscreteScheduler": Defaults(clip_sample=False, **_KARRAS),
    "KDPM2DiscreteScheduler": Defaults(**_KARRAS),
    "KDPM2AncestralDiscreteScheduler": Defaults(**_KARRAS),
    "DPMSolverMultistepScheduler": Defaults(),
    "DPMSolverSinglestepScheduler": Defaults(None),
    "DPMSolverSDEScheduler": Defaults(**_KARRAS),
    "DEISMultistepScheduler": Defaults(),
    "UniPCMultistepScheduler": Defaults(),
    "SASolverScheduler": Defaults(),
    "LCMScheduler": _CONSISTENCY,
    "TCDScheduler": _CONSISTENCY,
}
# How a solver goes, which is chosen when sampling; some are of solvers that a folder had before.
_OF_SOLVERS = (
    "skip_prk_steps", "variance_type", "solver_order", "algorithm_type", "solver_type",
    "lower_order_final", "euler_at_final", "use_karras_sigmas", "use_exponential_sigmas",
    "use_beta_sigmas", "use_lu_lambdas", "final_sigmas_type", "lambda_min_clipped", "flow_shift",
    "time_shift_type", "predict_x0", "disable_corrector", "solver_p", "interpolation_type",
    "timestep_type", "sigma_min", "sigma_max", "timestep_values", "dynamic_thresholding_ratio",
    "clip_sample_range", "sample_max_value", "noise_sampler_seed", "original_inference_steps",
    "timestep_scaling", "predictor_order", "corrector_order", "tau_func", "tensor_format",
)  # fmt: skip
_PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine",
              "sigmoid": "sigmoid_betas"}  # fmt: skip


STABLE, STABLE_INPAINTING, LATENT = "stable", "stable inpainting", "latent"
"""Kinds of pipelines, by what their constructors put in the place of what a file says."""


def read_scheduler(fields: Fields, pipeline: str = LATENT) -> tuple[cfg.Diffusion, tuple[str, ...]]:
    """The process that a scheduler's file describes, and what to know about it.

    Which solver it names plays no part: that is chosen when sampling. What the constructor of the
    `pipeline` overrides in the peer is overridden here, and noted.

    Raises:
        ConvertError: names the field whose value is not supported.
    """
    defaults = _defaults(fields)
    fields.only(thresholding=False, use_flow_sigmas=False, use_dynamic_shifting=False,
                shift_terminal=None)  # fmt: skip
    fields.ignore(*_OF_SOLVERS)
    kind = fields.choice(
        "timestep_spacing", defaults.timestep_spacing or "linspace",
        {"leading": "leading", "trailing": "trailing", "linspace": "linspace"},
    )  # fmt: skip
    offset, notes = _offset(fields, kind, pipeline)
    notes = [*_clipping(fields, defaults, pipeline), *notes]
    ends = fields.choice(
        "set_alpha_to_one", defaults.set_alpha_to_one, {True: True, False: False, None: True}
    )
    prediction = fields.choice("prediction_type", "epsilon", _PREDICTIONS)
    end = "first" if ends is False else "one"
    with fields.naming():
        process = _read_betas(fields, defaults)
        config = cfg.Diffusion(
            process, prediction, spacing=kind, steps_offset=offset, final_alpha_bar=end
        )
    fields.close()
    return config, tuple(notes)


def read_noise_schedule(fields: Fields) -> cfg.Discrete:
    """The schedule of a scheduler that only adds noise, whatever its file says of sampling.

    Raises:
        ConvertError: names the field whose value is not supported.
    """
    defaults = _defaults(fields)
    fields.ignore(
        "timestep_spacing", "steps_offset", "clip_sample", "set_alpha_to_one", "prediction_type",
        "thresholding", "use_flow_sigmas", "use_dynamic_shifting", "shift_terminal", *_OF_SOLVERS,
    )  # fmt: skip
    with fields.naming():
        process = _read_betas(fields, defaults)
    fields.close()
    return process


def _defaults(fields: Fields) -> Defaults:
    """Those of the class that the file names."""
    name = fields.text("_class_name")
    if name not in SCHEDULERS:
        raise fields.error("_class_name", f"one of {', '.join(SCHEDULERS)}")
    return SCHEDULERS[name]


def _clipping(fields: Fields, defaults: Defaults, pipeline: str) -> list[str]:
    """Notes on `clip_sample`, which most classes do not have and ignore."""
    clips = fields.flag("clip_sample", bool(defaults.clip_sample))
    if not clips or defaults.clip_sample is None:
        return []
    if pipeline != STABLE:
        raise fields.error("clip_sample", "false (by default it is true): latents are not confined "
                           "to [-1, 1], and no sampler here clips them")  # fmt: skip
    return ["the scheduler's clip_sample is true; diffusers' pipeline does not clip, nor is "
            "anything clipped here"]  # fmt: skip


def _offset(fields: Fields, spacing: str, pipeline: str) -> tuple[int, list[str]]:
    """The number that leading timesteps begin with, and notes on it."""
    offset = fields.get("steps_offset", 0)
    if type(offset) is not int or (pipeline == LATENT and offset < 0):
        raise fields.error("steps_offset", "a timestep, 0 or more")
    if pipeline == LATENT:
        return offset, []
    if offset == 1 or spacing != "leading":
        return 1, []
    return 1, [f"the scheduler's steps_offset is {offset}; diffusers' pipeline takes 1, as is done "
               "here"]  # fmt: skip


def _read_betas(fields: Fields, defaults: Defaults) -> cfg.Discrete:
    """The noise schedule; betas of its own count before any formula, as in diffusers."""
    rescaled = fields.flag("rescale_betas_zero_snr", False)
    given = fields.get("trained_betas", None)
    kind = fields.choice("beta_schedule", defaults.beta_schedule, _SCHEDULES)
    count = fields.whole("num_train_timesteps", 1000)
    start = fields.number("beta_start", defaults.beta_start)
    end = fields.number("beta_end", defaults.beta_end)
    if given is None:
        return cfg.Discrete(count, kind, start, end, zero_terminal_snr=rescaled)
    if not isinstance(given, list) or not all(type(beta) in (int, float) for beta in given):
        raise fields.error("trained_betas", "a list of numbers, or null")
    if len(given) != count:
        raise ConvertError(
            f"{fields.path}: trained_betas has {len(given)} numbers, but num_train_timesteps is "
            f"{count}"
        )
    return cfg.Discrete(count, "given", betas=tuple(given), zero_terminal_snr=rescaled)


def scheduler_obstacles(config: cfg.Diffusion) -> list[str]:
    """What of a process, and of what the network says of it, is not written for diffusers."""
    process, found = config.process, []
    if not isinstance(process, cfg.Discrete) or config.prediction not in _PREDICTIONS.values():
        found.append(
            f"diffusion.process is a {type(process).__name__} with prediction "
            f"{config.prediction!r}; schedulers of diffusers' folders are written for a Discrete "
            f"one with {', '.join(_PREDICTIONS.values())}"
        )
    if config.learned_variance:
        found.append("diffusion.learned_variance is True, which diffusers' pipelines do not read")
    return found


def write_scheduler(config: cfg.Diffusion) -> Json:
    """The `scheduler_config.json` of a DDIM sampler of a process without `scheduler_obstacles`."""
    predictions = {ours: theirs for theirs, ours in _PREDICTIONS.items()}
    # Of the original's list the peer has as many as are asked for, with an offset of 1.
    uniform = config.spacing == "ddim_uniform"
    return {
        "_class_name": "DDIMScheduler", **_betas(config.process),
        "prediction_type": predictions[config.prediction],
        "timestep_spacing": "leading" if uniform else config.spacing,
        "set_alpha_to_one": config.final_alpha_bar == "one",
        "steps_offset": 1 if uniform else config.steps_offset,
        "clip_sample": False, "thresholding": False,
    }  # fmt: skip


def write_noise_schedule(process: cfg.Discrete) -> Json:
    """The `scheduler_config.json` of a scheduler that only adds noise."""
    return {"_class_name": "DDPMScheduler", "clip_sample": False, **_betas(process)}


def _betas(process: cfg.Discrete) -> Json:
    schedules = {ours: theirs for theirs, ours in _SCHEDULES.items()}
    # Formulas that it does not have, or not with this shift, are written out as their betas.
    plain = replace(process, zero_terminal_snr=False)
    listed = process.schedule not in schedules or process.shift != 1
    return {
        "num_train_timesteps": process.num_timesteps,
        "beta_schedule": "linear" if listed else schedules[process.schedule],
        "beta_start": process.beta_start, "beta_end": process.beta_end,
        "rescale_betas_zero_snr": process.zero_terminal_snr,
        "trained_betas": betas(plain).tolist() if listed else None,
    }  # fmt: skip
