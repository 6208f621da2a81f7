"""One whole latent diffusion model: its process, its parts, and how they fit each other."""

from dataclasses import field, replace
from typing import Annotated, Literal

from ldm_jax.config.checks import (
    ImageSize,
    Positive,
    Within,
    height_and_width,
    require,
    require_divisible,
    settings,
)
from ldm_jax.config.conditioning import (
    WITH_EMPTY,
    WITHOUT_PICTURES,
    CaptionMapConditioner,
    Conditioner,
    EditConditioner,
    InpaintingConditioner,
    find,
    slots_of,
)
from ldm_jax.config.networks import FirstStage, UNet
from ldm_jax.config.noise_processes import Discrete, Process
from ldm_jax.core.names import FinalAlphaBar, PredictionKind


@settings
class Diffusion:
    """The forward process and what the network predicts."""

    process: Process = field(default_factory=Discrete)
    prediction: PredictionKind = "eps"
    """What the network predicts: eps (Stable Diffusion 1), v (Stable Diffusion 2, 768 px), x0,
    velocity (rectified flow), edm or score."""

    sigma_data: Positive = 1.0
    """With prediction `edm`: standard deviation of the data; scaled latents have 1."""
    learned_variance: bool = False
    """The U-Net also predicts the variance of each step, in additional channels (IDDPM)."""
    spacing: Literal["trailing", "leading", "linspace", "ddim_uniform"] = "trailing"
    """Default timestep spacing for sampling with ddim, ddpm and plms."""
    steps_offset: Annotated[int, Within(0, 100_000)] = 1
    """With spacing `leading`: the lowest timestep. Stable Diffusion uses 1."""
    final_alpha_bar: FinalAlphaBar = "one"
    """Default end of sampling: `one` ends at no noise, `first` at the noise of the first
    timestep."""

    def __post_init__(self) -> None:
        process = type(self.process).__name__
        blind = self.process.ends_in_noise and self.prediction in ("eps", "score")
        require(not blind, "diffusion.prediction", self.prediction,
                "x0, v, velocity or edm: the process ends in noise alone, whose eps and score say "
                "nothing of the data")  # fmt: skip
        discrete = isinstance(self.process, Discrete)
        require(discrete or not self.learned_variance, "diffusion.learned_variance",
                self.learned_variance, f"False for process {process}, which has no steps whose "
                "variance could be learned")  # fmt: skip
        continuous = self.spacing in ("trailing", "linspace")
        require(discrete or continuous, "diffusion.spacing", self.spacing,
                f"trailing or linspace for process {process}")  # fmt: skip
        if discrete:
            last = self.process.num_timesteps - 1
            require(self.steps_offset <= max(last, 1), "diffusion.steps_offset",
                    self.steps_offset, f"in 0..{last}, a timestep")  # fmt: skip


@settings
class Model:
    """Both stages of one model, without what trained them."""

    autoencoder: FirstStage
    unet: UNet
    conditioners: tuple[Conditioner, ...] = ()
    """What it is conditioned on; () is unconditional."""
    diffusion: Diffusion = field(default_factory=Diffusion)
    image_size: ImageSize = 512
    """Pixels of the images that it was trained on: 512 for a square, or (height, width)."""

    def __post_init__(self) -> None:
        check_conditioners(self.unet, self.conditioners)
        channels, factor = self.autoencoder.latent_channels, self.autoencoder.factor
        require(self.unet.in_channels == channels, "unet.in_channels", self.unet.in_channels,
                f"{channels}, the latent channels of the first stage")  # fmt: skip
        times, why = (2, " twice") if self.diffusion.learned_variance else (1, "")
        require(self.unet.out_channels == times * channels, "unet.out_channels",
                self.unet.out_channels, f"{times * channels},{why} the latent channels of the "
                f"first stage, as diffusion.learned_variance is {self.diffusion.learned_variance}"
                )  # fmt: skip
        require_divisible("image_size", self.sides, self.side_multiple,
                          "what first stage and U-Net can divide")  # fmt: skip
        drawn = find(self.conditioners, CaptionMapConditioner)
        latents = tuple(side // factor for side in self.sides)
        require(drawn is None or latents == (drawn.size, drawn.size), "caption_map.size",
                drawn and drawn.size,
                f"the height and the width of the latents, {latents}")  # fmt: skip

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the images that it was trained on, in pixels."""
        return height_and_width("image_size", self.image_size)

    @property
    def side_multiple(self) -> int:
        """What the sides of pictures must be multiples of."""
        return self.autoencoder.factor * self.unet.side_multiple

    @property
    def draws_one_size(self) -> bool:
        """Whether it draws pictures of `image_size` alone, since its captions are drawn into a map
        of that size."""
        return find(self.conditioners, CaptionMapConditioner) is not None

    @property
    def is_inpainting(self) -> bool:
        """Whether the U-Net itself is shown a mask and a picture."""
        return find(self.conditioners, InpaintingConditioner) is not None

    @property
    def sees_pictures(self) -> bool:
        """Whether it is conditioned on more than captions and classes."""
        return not {*self.inputs} <= {"caption", "label"}

    @property
    def needs_files(self) -> bool:
        """Whether something must be named beside captions and classes for it to draw."""
        return not WITHOUT_PICTURES.issuperset(self.inputs)

    @property
    def has_unconditional(self) -> bool:
        """Whether something that it is conditioned on can be left out, as guidance does."""
        return not WITH_EMPTY.isdisjoint(self.inputs)

    @property
    def has_two_guidances(self) -> bool:
        """Whether a picture to edit and something else, such as an instruction, guide it by scales
        of their own."""
        empty = WITH_EMPTY & {*self.inputs}
        return find(self.conditioners, EditConditioner) is not None and len(empty) > 1

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it is conditioned on, such as `caption`."""
        return tuple(dict.fromkeys(name for c in self.conditioners for name in c.inputs))


def check_conditioners(unet: UNet, conditioners: tuple[Conditioner, ...]) -> None:
    """Raises ConfigError unless `unet` takes exactly what `conditioners` give."""
    kinds = ", ".join(type(conditioner).__name__ for conditioner in conditioners) or "none"
    for name, want in _slots(conditioners, unet.in_channels).items():
        require(getattr(unet, name) == want, f"unet.{name}", getattr(unet, name),
                f"{want} to match the conditioners ({kinds})")  # fmt: skip


def fit_unet(
    unet: UNet, conditioners: tuple[Conditioner, ...], latent_channels: int, learned_variance: bool
) -> UNet:
    """`unet` with what it leaves open (None or 0) as the latents and the conditioners have it."""
    times = 2 if learned_variance else 1
    fitting = {"in_channels": latent_channels, "out_channels": times * latent_channels}
    fitting |= _slots(conditioners, latent_channels)
    return replace(unet, **{k: v for k, v in fitting.items() if not getattr(unet, k)})


def fit_conditioners(
    conditioners: tuple[Conditioner, ...], latent_channels: int, latent_sides: tuple[int, int]
) -> tuple[Conditioner, ...]:
    """`conditioners` with what they leave open (None) as the latents have it."""
    fitted = []
    for conditioner in conditioners:
        if isinstance(conditioner, CaptionMapConditioner):
            conditioner = replace(
                conditioner, size=conditioner.size or latent_sides[0],
                channels=conditioner.channels or latent_channels,
            )  # fmt: skip
        fitted.append(conditioner)
    return tuple(fitted)


def _slots(conditioners: tuple[Conditioner, ...], latent_channels: int) -> dict[str, int | None]:
    """What conditioners give, by the U-Net's settings."""
    slots = slots_of(conditioners, latent_channels)
    return {"context_dim": slots.context, "pooled_dim": slots.pooled,
            "class_count": slots.label, "concat_channels": slots.concat}  # fmt: skip
