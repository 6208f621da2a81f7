"""How pictures are drawn."""

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, get_args

import tyro

from ldm_jax.config.checks import (
    ConfigError,
    Count,
    Seed,
    Share,
    Weight,
    Within,
    check_fields,
)
from ldm_jax.core.names import (
    ClassifierForm,
    CorrectorName,
    GuidanceSchedule,
    SamplerName,
    Spacing,
)

MAX_PIXELS = 2**28
"""Pixels that are drawn together, at most: a batch of 4096 pictures of 256 x 256, or a picture of
16384 x 16384."""
MAX_SIDE = 2**16
MAX_STEPS = 100_000
MAX_GUIDANCE = 1000.0
"""Scale of any guidance: usual ones are below 20, and what is far beyond is no picture."""

Steps = Annotated[int, Within(1, MAX_STEPS)]
Side = Annotated[int, Within(1, MAX_SIDE)]
"""Pixels along a side of what is drawn, which may be larger than what any model is trained on."""
GuidanceScale = Annotated[float, Within(-MAX_GUIDANCE, MAX_GUIDANCE)]


def one_of(names: Any) -> Any:
    """How the command line shows a closed set of names; the dataclass itself checks them, so that
    they are listed in their order."""
    return tyro.conf.arg(metavar="{" + ",".join(get_args(names)) + "}")


def number(default: Any = None) -> Any:
    """A field that is handed to a compiled program when it runs: another value is no other
    program."""
    return field(default=default, metadata={"number": True})


@dataclass(frozen=True)
class Sampling:
    """Settings of a sampler; what is None is what the model, or the sampler, usually has."""

    sampler: Annotated[str | None, one_of(SamplerName)] = None
    """Sampler; ddim by default. The names are at the end."""
    steps: Steps | None = number()
    """Steps of the sampler; 50 by default, fewer are faster."""
    guidance_scale: Annotated[GuidanceScale | None, tyro.conf.arg(aliases=["--guidance"])] = (
        number()
    )
    """Follow the prompt more. Default: 7.5 (CLIP), 5 (BERT) or 3; 1: off."""
    image_guidance_scale: GuidanceScale | None = number()
    """Follow the picture to edit more; 1.5 by default, 1: off."""
    guidance_schedule: Annotated[str, one_of(GuidanceSchedule)] = "constant"
    """How guidance grows while noise falls; the mean stays the scale."""
    guidance_interval: tuple[float, ...] | None = number()
    """Two noise levels, as sigma / alpha, between which alone guidance acts: (low, high]."""
    guidance_rescale: Share | None = number()
    """0 to 1: the share of the contrast added by guidance that is taken away (Lin 2024); 0.7 is
    usual."""
    autoguidance_scale: GuidanceScale | None = number()
    """Scale of guidance away from --weak_model; 2 by default, 1 is none."""
    classifier_scale: Annotated[float, Within(0.0, MAX_GUIDANCE)] | None = number()
    """Scale of the classifier's gradient; 1 by default, 0 is none."""
    classifier_form: Annotated[str | None, one_of(ClassifierForm)] = None
    """eps, for every sampler, by default; or mean, for those that add noise."""
    threshold: Annotated[float, Within(0.0, 1.0, above=True)] | None = number()
    """Above 0, to 1: quantile of dynamic thresholding (Saharia 2022), against strong guidance;
    0.995 is usual."""
    resample: Annotated[int, Within(1, 1000)] = 1
    """How often inpainting passes each stretch of the way (Lugmayr 2022), for new parts that agree
    with what is kept."""
    resample_jump: Steps = 1
    """Length of these stretches in steps."""
    eta: Annotated[float, Within(0.0, 10.0)] | None = number()
    """Share of fresh noise of ddim (0, deterministic, by default), and of the ancestral and SDE
    samplers (1, the posterior's variance): euler_a, dpm2_a, dpmpp_2s_a, dpmpp_sde, dpmpp_2m_sde,
    dpmpp_3m_sde."""
    spacing: Annotated[str | None, one_of(Spacing)] = number()
    """Which noise levels are visited; models and samplers have defaults of their own."""
    sections: tuple[Steps, ...] = number(())
    """Instead of a spacing, so many timesteps in each of equal parts of the schedule, the least
    noisy first (IDDPM). Of this and the next two at most one; steps is then their number."""
    timesteps: tuple[Weight, ...] = number(())
    """Instead of a spacing, the timesteps themselves, falling."""
    sigmas: tuple[Weight, ...] = number(())
    """Instead of a spacing, the ratios of noise to signal, falling; a last 0 may be written or
    not."""
    corrector: Annotated[str | None, one_of(CorrectorName)] = None
    """Langevin steps at each level, before the step of a sampler without memory."""
    corrector_steps: Annotated[int, Within(1, 1000)] | None = None
    """How many of them; 1 by default."""
    snr: Annotated[float, Within(0.0, 10.0, above=True)] | None = None
    """Their signal-to-noise ratio, longer steps for more; 0.16 by default."""
    seed: Seed = number(0)
    """Another seed draws other pictures; 0 to 4294967295."""
    height: Side | None = None
    """In pixels; by default of training, or of the initial picture."""
    width: Side | None = None
    """In pixels, as the height."""
    strength: Share | None = number()
    """0 keeps the picture, 1 draws all anew; default 0.75, with mask 1."""
    batch_size: Count | None = number()
    """Pictures drawn at a time. A batch is filled up to it, so that one program draws all of
    them; by default 32 small ones, or 1 of more than 16 x 16 latents."""
    tile: Side | None = number()
    """Encode and decode in overlapping tiles of so many pixels, for large pictures."""
    unet_tile: Side | None = None
    """Denoise in overlapping tiles of so many pixels, too: for pictures larger than those of
    training, each tile of which is drawn as such a picture."""

    def __post_init__(self) -> None:
        check_fields(self, "")
        for name in NAMES:
            value, allowed = getattr(self, name), get_args(NAMES[name])
            if value is not None and value not in allowed:
                raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
        lists = [n for n in ("spacing", *LISTS) if getattr(self, n) not in (None, ())]
        if len(lists) > 1:
            raise ConfigError(
                f"{' and '.join(lists)} are given; each says all that is visited, so give one"
            )
        if self.steps is not None and self._listed not in (0, self.steps):
            raise ConfigError(
                f"steps is {self.steps}, but {self._listed} levels are listed; leave it out"
            )
        for name in ("timesteps", "sigmas"):
            values = getattr(self, name)
            falls = all(a > b for a, b in zip(values, values[1:], strict=False))
            if not falls:
                raise ConfigError(f"{name} are {values}; they must fall, to 0 at the least")
        low_high = self.guidance_interval
        if low_high is not None and not (len(low_high) == 2 and 0 <= low_high[0] < low_high[1]):
            raise ConfigError(
                f"guidance_interval is {low_high}; it must be two numbers of at least 0, low < high"
            )
        pixels = (self.batch_size or 1) * (self.height or 1) * (self.width or 1)
        if pixels > MAX_PIXELS:
            raise ConfigError(
                f"batch_size is {self.batch_size or 1}, height {self.height or 'not given'}, width "
                f"{self.width or 'not given'}; their product must be at most {MAX_PIXELS}, the "
                "pixels that are ever drawn together"
            )
        if (self.visited or 1) * self.resample > MAX_STEPS:
            raise ConfigError(
                f"steps is {self.visited or 'not given'} and resample {self.resample}; together "
                f"they must be at most {MAX_STEPS} steps"
            )
        for name, neutral, needed, how in NEEDS:
            absent = getattr(self, needed) in (None, 1)
            if absent and getattr(self, name) != neutral:
                raise ConfigError(f"{name} is {getattr(self, name)}, which needs {how}")

    @property
    def _listed(self) -> int:
        return sum(self.sections) or len(self.timesteps) or sum(s > 0 for s in self.sigmas)

    @property
    def visited(self) -> int | None:
        """How many levels are visited: as many as are listed, or `steps`."""
        return self._listed or self.steps

    @property
    def guides_freely(self) -> bool:
        """Whether classifier-free guidance of resolved settings, by text or picture, has an
        effect."""
        return self.guidance_scale != 1 or self.image_guidance_scale not in (None, 1)

    @property
    def program(self) -> "Sampling":
        """The part of these settings that a program is compiled for: all but its numbers."""
        return replace(self, **{f.name: f.default for f in fields(self) if f.metadata})


NEEDS = (
    ("corrector_steps", None, "corrector", "a corrector"),
    ("snr", None, "corrector", "a corrector"),
    ("resample_jump", 1, "resample", "resample above 1"),
)
"""Fields, their neutral values, and the field without which they have no effect."""
LISTS = ("sections", "timesteps", "sigmas")
"""The fields that say themselves what is visited."""
NAMES = {
    "sampler": SamplerName, "spacing": Spacing, "corrector": CorrectorName,
    "guidance_schedule": GuidanceSchedule, "classifier_form": ClassifierForm,
}  # fmt: skip
