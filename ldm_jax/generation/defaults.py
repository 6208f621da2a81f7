"""How a model draws by default."""

from dataclasses import replace
from typing import Any, NamedTuple, get_args

import numpy as np
from jaxtyping import Array, Float

from ldm_jax import config as cfg
from ldm_jax.config.sampling import LISTS
from ldm_jax.core.names import RatioSpacing
from ldm_jax.core.typing import Level, Process, Solver
from ldm_jax.diffusion.spacing import has_ddim_uniform
from ldm_jax.generation.conditions import NO_PICTURE, Picture
from ldm_jax.generation.refusals import check_guidance, check_size, check_way
from ldm_jax.models.process import build_process
from ldm_jax.sampling.guidance import USUAL_IMAGE_SCALE
from ldm_jax.sampling.levels import in_sections, inner_levels, levels, levels_at, levels_of, part
from ldm_jax.sampling.sde import PredictorCorrector
from ldm_jax.sampling.solvers import DEFAULT_ETA, DEFAULT_SPACING, GRIDS, make_solver

SMALL, SMALL_BATCH = 16 * 16, 32
"""Pictures of so many latents or fewer are drawn in such batches by default; larger ones one by
one. The number of pictures plays no part, so that no bit depends on it."""
SAMPLER, STEPS = "ddim", 50
"""What draws by default."""
MASK_BLUR, MASK_BLUR_SHARE = 4, 32
"""A mask's edge is softened by so many pixels, or this part of the picture's longer side."""


class Resolved(NamedTuple):
    """Settings that a model can be drawn with."""

    sampling: cfg.Sampling
    """With the usual values where there were none; what does not apply is None."""
    levels: Level
    """The noise levels that are visited."""


def resolve_sampling(
    model: cfg.Model,
    sampling: cfg.Sampling,
    picture: Picture = NO_PICTURE,
    *,
    textures: bool = False,
) -> Resolved:
    """`sampling` with the model's and the sampler's usual values where it has none, and the noise
    levels that it visits.

    `picture` is what is drawn on; `textures` says that opposite edges of pictures are to fit each
    other.

    Raises:
        cfg.ConfigError: settings that this model, or this sampler, cannot have, or that would have
            no effect.
    """
    named = replace(sampling, sampler=or_default(sampling.sampler, SAMPLER))
    corrects, sampler = named.corrector is not None, named.sampler
    trained_height, trained_width = model.sides
    resolved = replace(
        named, guidance_scale=_guidance(model, named),
        image_guidance_scale=_image_guidance(model, named), spacing=_usual_spacing(model, named),
        steps=or_default(named.visited, STEPS),
        eta=or_default(named.eta, DEFAULT_ETA.get(sampler)),
        corrector_steps=or_default(named.corrector_steps, 1) if corrects else None,
        snr=or_default(named.snr, 0.16) if corrects else None,
        classifier_form=named.classifier_form
        or (None if named.classifier_scale is None else "eps"),
        height=named.height or trained_height, width=named.width or trained_width,
        strength=_strength(named, picture),
    )  # fmt: skip
    resolved = replace(resolved, batch_size=_batch_size(model, resolved))
    process = build_process(model.diffusion.process)
    try:
        whole = _levels(model, process, resolved)
        chosen = solver(process, resolved)
        rest = whole if resolved.strength is None else part(whole, resolved.strength)
        visited = inner_levels(chosen, process, rest)
    except ValueError as error:
        raise cfg.ConfigError(str(error)) from error
    if model.diffusion.process.ends_in_noise and sampler == "euler_maruyama":
        raise cfg.ConfigError(
            "sampler 'euler_maruyama' cannot be used with this model: its drift is infinite at "
            "the noisiest time; choose another sampler"
        )
    check_way(resolved, whole, visited)
    check_guidance(resolved, chosen, visited)
    check_size(model, resolved, textures)
    return Resolved(resolved, visited)


def resolve_inversion(
    model: cfg.Model, sampling: cfg.Sampling, *, textures: bool = False
) -> Resolved:
    """`resolve_sampling` for the way from a picture up to its noise, which has no guidance and is
    gone whole.

    Raises:
        cfg.ConfigError: as `resolve_sampling`, and for guidance, solvers that draw noise of their
            own, and models that are shown a picture.
    """
    if sampling.guidance_scale is None:
        sampling = replace(sampling, guidance_scale=1.0)
    resolved = resolve_sampling(model, sampling, textures=textures)
    sampling = resolved.sampling
    guides = ("autoguidance_scale", "classifier_scale", "threshold")
    if sampling.guidance_scale != 1 or any(getattr(sampling, name) is not None for name in guides):
        raise cfg.ConfigError(
            "inversion works only without guidance; leave out guidance of every kind "
            "(guidance_scale 1)"
        )
    if solver(build_process(model.diffusion.process), sampling).stochastic:
        raise cfg.ConfigError(
            f"sampler {sampling.sampler!r} with eta {sampling.eta} and corrector "
            f"{sampling.corrector!r} adds random noise, so its drawings cannot be inverted; "
            "choose a deterministic one, such as ddim with eta 0"
        )
    if model.sees_pictures:
        raise cfg.ConfigError(
            "models conditioned on pictures cannot be inverted; choose another model"
        )
    return resolved


def bound(model: cfg.Model) -> float:
    """The range to which dynamic thresholding brings x0: pixels have 1; latents none, but those
    of unit variance rarely leave three standard deviations."""
    stage = model.autoencoder
    pixels = stage.factor == 1 and stage.latent_channels == stage.image_channels
    return 1.0 if pixels else 3.0


def guidance_numbers(model: cfg.Model, sampling: cfg.Sampling) -> dict[str, Any]:
    """The numbers of `Guidance` that resolved `sampling` gives; another is no new program."""
    low_high = sampling.guidance_interval
    numbers = {
        "scale": sampling.guidance_scale,
        "image_scale": sampling.image_guidance_scale,
        "interval": low_high and tuple(np.float32(value) for value in low_high),
        "rescale": sampling.guidance_rescale,
        "autoguidance_scale": sampling.autoguidance_scale,
        "classifier_scale": sampling.classifier_scale,
        "threshold": sampling.threshold,
        "threshold_bound": None if sampling.threshold is None else bound(model),
    }
    return {
        name: np.float32(value) if isinstance(value, float | int) else value
        for name, value in numbers.items()
        if value is not None
    }


def has_clip(config: cfg.Model) -> bool:
    """Whether the model has CLIP's text encoder."""
    return isinstance(_text_encoder(config), cfg.CLIPText)


def takes_captions(config: cfg.Model) -> bool:
    """Whether the model has a text encoder."""
    return _text_encoder(config) is not None


def skip_layers(config: cfg.Model, clip_skip: int | None) -> cfg.Model:
    """`config` with a text encoder that stops `clip_skip` - 1 layers earlier than in training; it
    encodes prompts and negative prompts alike.

    Raises ConfigError for more than it has, and for models without CLIP's.
    """
    if clip_skip in (None, 1):
        return config
    encoder = _text_encoder(config)
    if not isinstance(encoder, cfg.CLIPText):
        raise cfg.ConfigError("clip_skip is for models with CLIP's text encoder; leave it out")
    most = encoder.layers - encoder.skip_last
    if not 1 <= clip_skip <= most:
        raise cfg.ConfigError(f"clip_skip is {clip_skip}; it must lie in 1..{most}")
    encoder = replace(encoder, skip_last=encoder.skip_last + clip_skip - 1)
    conditioners = tuple(
        replace(part, encoder=encoder) if isinstance(part, cfg.TextConditioner) else part
        for part in config.conditioners
    )
    return replace(config, conditioners=conditioners)


def _text_encoder(config: cfg.Model) -> Any:
    """Settings of the model's text encoder; None where it has none."""
    return getattr(cfg.find(config.conditioners, cfg.TextConditioner), "encoder", None)


def _levels(model: cfg.Model, process: Process, sampling: cfg.Sampling) -> Level:
    """The noise levels of all of the way, from noise alone.

    Raises ValueError for levels that `process` does not have.
    """
    # Only samplers over timesteps end where some models say; the others end without noise.
    over_time = sampling.sampler in ("ddim", "plms")
    over_time &= sampling.spacing not in get_args(RatioSpacing)
    end = model.diffusion.final_alpha_bar if over_time else "one"
    if sampling.sigmas:
        return levels_of(process, np.array(sampling.sigmas, np.float64))
    if sampling.timesteps:
        return levels_at(process, np.array(sampling.timesteps, np.float64), end)
    if sampling.sections:
        return in_sections(process, sampling.sections, end)
    grid, offset = GRIDS[sampling.sampler], model.diffusion.steps_offset
    return levels(process, sampling.steps, sampling.spacing, end, grid, offset)


def solver(process: Process, sampling: cfg.Sampling, eta: Float[Array, ""] | None = None) -> Solver:
    """The solver of resolved `sampling`, with a traced `eta` in place of its own if there is one.

    Raises ValueError for what the sampler cannot have.
    """
    made = make_solver(sampling.sampler, sampling.eta if eta is None else eta, process)
    if sampling.corrector is None:
        return made
    return PredictorCorrector(made, sampling.corrector, sampling.corrector_steps, sampling.snr)


def _batch_size(model: cfg.Model, sampling: cfg.Sampling) -> int:
    """How many pictures are drawn together: as many as `sampling` says, or the usual number for
    its size."""
    if sampling.batch_size is not None:
        return sampling.batch_size
    latents = sampling.height * sampling.width // model.autoencoder.factor**2
    return SMALL_BATCH if latents <= SMALL else 1


def _guidance(model: cfg.Model, sampling: cfg.Sampling) -> float:
    """The scale of classifier-free guidance: that of `sampling`, or the usual one."""
    if not model.has_unconditional:
        if sampling.guidance_scale not in (None, 1):
            raise cfg.ConfigError(
                f"guidance_scale is {sampling.guidance_scale}, but this model has no unconditional "
                "drawings to guide away from; leave it out"
            )
        return 1.0
    # Autoguidance stands in for it.
    usual = _usual_guidance(model) if sampling.autoguidance_scale is None else 1.0
    return or_default(sampling.guidance_scale, usual)


def _image_guidance(model: cfg.Model, sampling: cfg.Sampling) -> float | None:
    """The scale of guidance by a picture to edit; None where that has no scale of its own."""
    scale = sampling.image_guidance_scale
    if model.has_two_guidances:
        return or_default(scale, USUAL_IMAGE_SCALE)
    if scale is not None:
        raise cfg.ConfigError(
            f"image_guidance_scale is {scale}, but this model is not conditioned on a picture to "
            "edit beside a caption; leave it out"
        )
    return None


def _strength(sampling: cfg.Sampling, picture: Picture) -> float | None:
    if picture.image is None:
        if sampling.strength is not None:
            raise cfg.ConfigError(
                f"strength is {sampling.strength}, but there is no picture to start from "
                "(init_image)"
            )
        return None
    return or_default(sampling.strength, usual_strength(picture.mask is not None))


def usual_strength(masked: bool) -> float:
    """Where none is given: with a mask, what is painted is drawn all anew."""
    return 1.0 if masked else 0.75


def usual_mask_blur(side: int) -> float:
    """Pixels by which the edge of a mask is softened, for a picture whose longer side has `side`
    pixels: of small pictures fewer, as much blur would leave nothing of small masks."""
    return float(min(MASK_BLUR, side // MASK_BLUR_SHARE))


def or_default(value: Any, default: Any) -> Any:
    """`value`, or `default` where it is None."""
    return default if value is None else value


def _usual_spacing(model: cfg.Model, sampling: cfg.Sampling) -> str | None:
    """The spacing of `sampling`, or the usual one; None where a list says what is visited."""
    if sampling.spacing is not None or any(getattr(sampling, name) for name in LISTS):
        return sampling.spacing
    if sampling.sampler in ("ddim", "ddpm", "plms"):
        # Samplers over timesteps do as was done with the model; "leading" is the original's list
        # to exactly so many steps, and exists where that does not.
        spacing = model.diffusion.spacing
        if spacing != "ddim_uniform":
            return spacing
        total = model.diffusion.process.num_timesteps
        return spacing if has_ddim_uniform(total, sampling.steps) else "leading"
    usual = DEFAULT_SPACING[sampling.sampler]
    by_ratio = usual in get_args(RatioSpacing)
    return "trailing" if by_ratio and model.diffusion.process.ends_in_noise else usual


def _usual_guidance(model: cfg.Model) -> float:
    match _text_encoder(model):
        case cfg.CLIPText():
            return 7.5
        case cfg.BERTText():
            return 5.0
    if {"caption", "label"} & {*model.inputs}:
        return 3.0
    # Published models of class maps and layouts never saw an empty one.
    return 2.0 if any(conditioner.dropout for conditioner in model.conditioners) else 1.0
