"""How pictures are drawn."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ldm_jax.config.checks import ConfigError

SamplerName = Literal[
    "ddim", "ddpm", "ddpm_beta", "ddpm_learned", "plms", "euler", "euler_a", "heun", "dpm2",
    "dpm2_a", "lms", "dpm_solver_1", "dpm_solver_2", "dpm_solver_3", "dpmpp_2m", "dpmpp_2m_sde",
    "dpmpp_2s_a", "dpmpp_3m_sde", "dpmpp_sde", "unipc", "unipc_3", "unipc_bh1", "deis", "lcm",
    "euler_maruyama", "reverse_diffusion",
]  # fmt: skip
CorrectorName = Literal["langevin", "annealed_langevin"]
Spacing = Literal[
    "trailing", "leading", "linspace", "quad", "ddim_uniform", "karras", "exponential", "ays_sd15",
    "ays_sdxl",
]  # fmt: skip
GuidanceSchedule = Literal["constant", "linear", "cosine"]
ClassifierForm = Literal["eps", "mean"]


@dataclass(frozen=True)
class Sampling:
    """Settings of a sampler; what is None is what the model, or the sampler, usually has."""

    sampler: str = "ddim"
    """A `SamplerName`."""
    steps: int = 50
    guidance_scale: float | None = None
    """Scale of classifier-free guidance; 1 is none."""
    guidance_schedule: str = "constant"
    """A `GuidanceSchedule`: how guidance grows while noise falls."""
    guidance_interval: tuple[float, ...] | None = None
    """Noise levels, as sigma / alpha, between which guidance acts: (low, high]."""
    guidance_rescale: float | None = None
    """Share of the contrast that guidance adds that is taken away again (Lin 2024)."""
    autoguidance_scale: float | None = None
    """Scale of guidance away from a weaker model; 1 is none."""
    classifier_scale: float | None = None
    """Scale of a classifier's gradient; 0 is none."""
    classifier_form: str | None = None
    """A `ClassifierForm`: eps for every sampler, mean for those that add noise."""
    threshold: float | None = None
    """Quantile of dynamic thresholding (Saharia 2022), 0 to 1."""
    resample: int = 1
    """How often inpainting passes each stretch of the way (Lugmayr 2022)."""
    resample_jump: int = 1
    """Length of these stretches in steps."""
    eta: float | None = None
    """Share of fresh noise: 0 is deterministic, 1 has the posterior's variance."""
    spacing: str | None = None
    """A `Spacing`: which noise levels are visited."""
    sections: tuple[int, ...] = ()
    """Instead of a spacing: so many timesteps in each of equal parts of the schedule, the least
    noisy first (IDDPM). Of this and the next two at most one; `steps` is then their number."""
    timesteps: tuple[float, ...] = ()
    """The times that are visited, falling."""
    sigmas: tuple[float, ...] = ()
    """The ratios of noise to signal that are visited, falling; a last 0 may be written or not."""
    corrector: str | None = None
    """A `CorrectorName`: Langevin steps at each level before the sampler's step, if any."""
    corrector_steps: int = 1
    """How many of them."""
    snr: float = 0.16
    """Their signal-to-noise ratio; longer steps for more."""
    seed: int = 0
    height: int | None = None
    """Of the pictures, in pixels; None is the size of training."""
    width: int | None = None
    strength: float = 1.0
    """How much of the way an initial picture is sent back into noise."""
    batch_size: int | None = None
    """Pictures drawn at a time. A batch is filled up to it, so that one program draws all of
    them; None is 32 small ones, or 1 of more than 16 x 16 latents."""
    tile: int | None = None
    """Decodes in overlapping tiles of so many pixels; None decodes whole pictures."""

    def __post_init__(self) -> None:
        for name in NAMES:
            value, allowed = getattr(self, name), get_args(NAMES[name])
            if value is not None and value not in allowed:
                raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
        given = [n for n in ("spacing", *LISTS) if getattr(self, n) not in (None, ())]
        if len(given) > 1:
            raise ConfigError(
                f"{' and '.join(given)} are given; each says all that is visited, so give one"
            )
        for name in ("timesteps", "sigmas"):
            values = getattr(self, name)
            falls = all(a > b for a, b in zip(values, values[1:], strict=False))
            if not falls or not all(0 <= value < math.inf for value in values):
                raise ConfigError(f"{name} are {values}; they must fall, to 0 at the least")
        checks = {
            "corrector_steps": (self.corrector_steps >= 1, "1 or more"),
            "snr": (0 < self.snr < math.inf, "above 0, and finite"),
            "steps": (self.steps >= 1, "1 or more"),
            "batch_size": (self.batch_size is None or self.batch_size >= 1, "1 or more"),
            "sections": (all(count >= 1 for count in self.sections), "counts of 1 or more"),
            "seed": (0 <= self.seed < 2**32, "between 0 and 4294967295"),
            "eta": (self.eta is None or 0 <= self.eta < math.inf, "0 or more, and finite"),
            "guidance_scale": (
                self.guidance_scale is None or math.isfinite(self.guidance_scale),
                "finite; 1 is no guidance",
            ),
            "guidance_interval": (_is_interval(self.guidance_interval), "two numbers, low < high"),
            "guidance_rescale": (_is_share(self.guidance_rescale), "between 0 and 1"),
            "autoguidance_scale": (_finite(self.autoguidance_scale), "finite; 1 is none"),
            "classifier_scale": (_finite(self.classifier_scale), "finite; 0 is none"),
            "threshold": (_is_share(self.threshold), "between 0 and 1"),
            "resample": (self.resample >= 1, "1 or more"),
            "resample_jump": (self.resample_jump >= 1, "1 or more"),
            "height": (self.height is None or self.height >= 1, "1 or more"),
            "width": (self.width is None or self.width >= 1, "1 or more"),
            "strength": (0 <= self.strength <= 1, "between 0 and 1"),
            "tile": (self.tile is None or self.tile >= 1, "1 or more"),
        }
        for name, (ok, allowed) in checks.items():
            if not ok:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be {allowed}")

    @property
    def visited(self) -> int:
        """How many levels are visited: as many as are listed, or `steps`."""
        listed = sum(self.sections) or len(self.timesteps) or sum(s > 0 for s in self.sigmas)
        return listed or self.steps


LISTS = ("sections", "timesteps", "sigmas")
"""The fields that say themselves what is visited."""
NAMES = {
    "sampler": SamplerName, "spacing": Spacing, "corrector": CorrectorName,
    "guidance_schedule": GuidanceSchedule, "classifier_form": ClassifierForm,
}  # fmt: skip


def _finite(value: float | int | None) -> bool:
    return value is None or math.isfinite(value)


def _is_share(value: float | int | None) -> bool:
    return value is None or 0 <= value <= 1


def _is_interval(value: tuple[float | int, ...] | None) -> bool:
    return value is None or (len(value) == 2 and 0 <= value[0] < value[1])
