"""The pipelines of diffusers that are read and written: their folders, what their constructors
override, and the conditions of their models."""

from dataclasses import dataclass, replace

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model
from ldm_jax.convert.diffusers import schedulers
from ldm_jax.convert.fields import Fields
from ldm_jax.convert.obstacles import named, of_unscaled


@dataclass(frozen=True)
class Pipeline:
    """What of one class of diffusers matters here."""

    places: dict[str, str]
    """Folder → our name of the component in it."""
    kind: str = schedulers.LATENT
    """Which settings of a scheduler its constructor overrides."""
    beside: tuple[str, ...] = ()
    """Folders of networks that make its condition of other pictures, which is not done here."""
    scale: float | None = None
    """What it multiplies latents by, whatever its first stage's file says; None: what that says."""


_COMMON = {"unet": "unet", "tokenizer": "tokenizer", "scheduler": "scheduler"}
_STABLE = {"vae": "autoencoder", "text_encoder": "text_encoder"} | _COMMON
_LATENT = {"vqvae": "autoencoder", "bert": "text_encoder"} | _COMMON
_WITHOUT_TEXT = {"vqvae": "autoencoder", "unet": "unet", "scheduler": "scheduler"}
_INPAINT = "StableDiffusionInpaintPipeline"
_UPSCALE = "StableDiffusionUpscalePipeline"
_SUPER_RESOLUTION = "LDMSuperResolutionPipeline"
_EDIT = "StableDiffusionInstructPix2PixPipeline"
_DEPTH = "StableDiffusionDepth2ImgPipeline"
DEPTH_ESTIMATOR = "depth_estimator"
PIPELINES = {
    "StableDiffusionPipeline": Pipeline(_STABLE, schedulers.STABLE),
    "StableDiffusionImg2ImgPipeline": Pipeline(_STABLE, schedulers.STABLE),
    _INPAINT: Pipeline(_STABLE, schedulers.STABLE_INPAINTING),
    _UPSCALE: Pipeline(_STABLE | {"low_res_scheduler": "low_res_scheduler"}, scale=0.08333),
    _EDIT: Pipeline(_STABLE),
    _DEPTH: Pipeline(_STABLE, beside=(DEPTH_ESTIMATOR,)),
    "LDMTextToImagePipeline": Pipeline(_LATENT),
    "LDMPipeline": Pipeline(_WITHOUT_TEXT),
    _SUPER_RESOLUTION: Pipeline(_WITHOUT_TEXT, scale=1.0),
}
RGB = 3


def read_conditioners(
    pipeline: str,
    fields: Fields,
    unet: cfg.UNet,
    latents: int,
    text: cfg.TextConditioner | None,
    noise: cfg.NoiseAugmentation | None,
) -> tuple[cfg.UNet, tuple[cfg.Conditioner, ...]]:
    """The U-Net with its inputs divided into latents and what is concatenated, and the conditioners
    that give this.

    `fields` are the U-Net's, `noise` that of the low-resolution image.

    Raises:
        ConvertError: it has another number of inputs than the pipeline gives it.
    """
    beside = unet.in_channels - latents
    texts: tuple[cfg.Conditioner, ...] = () if text is None else (text,)
    possible: dict[int, tuple[cfg.Conditioner, ...]] = {}
    match pipeline:
        case "StableDiffusionUpscalePipeline" | "LDMSuperResolutionPipeline":
            possible[RGB] = (cfg.LowResConditioner(noise=noise),)
            allowed = f"{latents + RGB}, the latents' and a picture's"
        case "StableDiffusionInstructPix2PixPipeline":
            possible[latents] = (cfg.EditConditioner(),)
            allowed = f"{2 * latents}, the latents' and those of the picture to edit"
        case "StableDiffusionDepth2ImgPipeline":
            possible[1] = (cfg.DepthConditioner(),)
            allowed = f"{latents + 1}, the latents' and the depth"
        case _ if text is not None:
            possible = {0: (), 1 + latents: (cfg.InpaintingConditioner(),)}
            allowed = (
                f"{latents}, the latents', or {2 * latents + 1} for inpainting with text; other "
                f"conditions that are concatenated are not those of {pipeline}"
            )
        case _:
            possible, allowed = {0: ()}, f"{latents}, the latents'"
    if beside not in possible:
        raise fields.error("in_channels", allowed)
    return replace(unet, in_channels=latents, concat_channels=beside), texts + possible[beside]


def read_noise(index: Fields, scheduler: Fields) -> cfg.NoiseAugmentation:
    """The noise on the low-resolution image, of `model_index.json` and `low_res_scheduler`.

    Raises:
        ConvertError: names the field whose value is not supported.
    """
    trained = index.whole("max_noise_level", 350)
    process = schedulers.read_noise_schedule(scheduler)
    with index.naming():
        return imported_model.noise_levels(process, trained)


def pipeline_of(conditioners: tuple[cfg.Conditioner, ...]) -> str | None:
    """The pipeline of diffusers that has these conditions; None where there is none."""
    match conditioners:
        case ():
            return "LDMPipeline"
        case (cfg.LowResConditioner(noise=None),):
            return _SUPER_RESOLUTION
        case (cfg.TextConditioner(encoder=cfg.BERTText()),):
            return "LDMTextToImagePipeline"
        case (cfg.TextConditioner(encoder=cfg.CLIPText()),):
            return "StableDiffusionPipeline"
        case (
            cfg.TextConditioner(encoder=cfg.CLIPText()),
            cfg.InpaintingConditioner(form="stable_diffusion"),
        ):
            return _INPAINT
        case (
            cfg.TextConditioner(encoder=cfg.CLIPText()),
            cfg.LowResConditioner(noise=cfg.NoiseAugmentation()),
        ):
            return _UPSCALE
        case (cfg.TextConditioner(encoder=cfg.CLIPText()), cfg.EditConditioner()):
            return _EDIT
        case (cfg.TextConditioner(encoder=cfg.CLIPText()), cfg.DepthConditioner()):
            return _DEPTH
    return None


def conditioner_obstacles(config: cfg.Model) -> list[str]:
    """What of a model's conditions no pipeline of diffusers has."""
    pipeline = pipeline_of(config.conditioners)
    if pipeline is None:
        return [
            f"conditioners are {named(config.conditioners)}, for which diffusers has no pipeline"
        ]
    found, stage = [], config.autoencoder
    scale = PIPELINES[pipeline].scale
    codes = isinstance(stage, cfg.Autoencoder) and not isinstance(stage.bottleneck, cfg.KL)
    if scale is not None and codes and stage.latent_scale != scale:
        found.append(
            f"autoencoder.latent_scale is {stage.latent_scale}, where {pipeline} has {scale}, and "
            "a codebook cannot take it in as KL can"
        )
    found += of_unscaled(config)
    if pipeline == _SUPER_RESOLUTION and stage.latent_channels != RGB:
        found.append(
            f"autoencoder.latent_channels is {stage.latent_channels}, where {pipeline} has {RGB}"
        )
    return found
