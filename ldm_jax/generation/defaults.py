"""How a model draws by default, and which settings it refuses."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, get_args

import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from ldm_jax import config as cfg
from ldm_jax.config.sampling import LISTS
from ldm_jax.core.names import RatioSpacing
from ldm_jax.core.typing import Level, Process, Solver
from ldm_jax.diffusion.spacing import has_ddim_uniform
from ldm_jax.models.process import build_process
from ldm_jax.sampling.levels import in_sections, inner_levels, levels, levels_at, levels_of, part
from ldm_jax.sampling.sde import PredictorCorrector
from ldm_jax.sampling.solver_base import evaluates_once
from ldm_jax.sampling.solvers import DEFAULT_ETA, DEFAULT_SPACING, GRIDS, make_solver

SMALL, SMALL_BATCH = 16 * 16, 32
"""Pictures of so many latents or fewer are drawn in such batches by default; larger ones one by
one. The number of pictures plays no part, so that no bit depends on it."""
SAMPLER, STEPS = "ddim", 50
"""What draws by default."""
LEAST_NOISE = 0.5
"""sigma / alpha at the first level, below which a drawing cannot begin with noise alone."""
LEAST_TILE = 8
"""Latents along the side of a tile, below which a decoder has no context."""


@dataclass(frozen=True)
class Picture:
    """What drawing starts from, instead of noise drawn from the seed; what is None is absent."""

    image: UInt8[np.ndarray, "h w 3"] | None = None
    """Drawn on, with `strength`."""
    mask: Float32[np.ndarray, "h w"] | None = None
    """1 where `image` is painted anew, 0 where it is kept."""
    noise: Float32[np.ndarray, "n zh zw z"] | None = None
    """Standard normal starting noise for each picture."""


NO_PICTURE = Picture()


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
        named, guidance_scale=_guidance(model, named), spacing=_usual_spacing(model, named),
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
            "sampler 'euler_maruyama' follows the process in its time, and where this model's "
            "ends its drift has no bound; choose another"
        )
    _check_way(resolved, whole, visited)
    _check_guidance(resolved, chosen, visited)
    _check_size(model, resolved, textures)
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
            "inversion follows the model alone; leave out guidance of every kind (guidance_scale 1)"
        )
    if solver(build_process(model.diffusion.process), sampling).stochastic:
        raise cfg.ConfigError(
            f"sampler {sampling.sampler!r} with eta {sampling.eta} and corrector "
            f"{sampling.corrector!r} draws noise on its way, which an inversion cannot know; "
            "choose one that does not, such as ddim with eta 0"
        )
    if is_inpainting(model):
        raise cfg.ConfigError(
            "inversion shows the model no picture; choose a model that is not for inpainting"
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


def require_emphasis(config: cfg.Model) -> None:
    """Raises ConfigError where brackets in prompts have no meaning that could be switched off."""
    if not has_clip(config):
        raise cfg.ConfigError(
            "literal_prompts is for models with CLIP's text encoder; others take brackets "
            "literally anyway, so leave it out"
        )


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


def factor(model: cfg.Model) -> int:
    """What the sides of pictures must be multiples of."""
    return model.autoencoder.factor * model.unet.side_multiple


def is_inpainting(model: cfg.Model) -> bool:
    """Whether the U-Net itself is shown a mask and a picture."""
    return cfg.find(model.conditioners, cfg.InpaintingConditioner) is not None


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


def check_picture(model: cfg.Model, sampling: cfg.Sampling, picture: Picture, count: int) -> None:
    """Raises ConfigError unless `count` pictures can be drawn with resolved `sampling`."""
    height, width = sampling.height, sampling.width
    for name in ("image", "mask"):
        array = getattr(picture, name)
        if array is not None and array.shape[:2] != (height, width):
            raise cfg.ConfigError(
                f"the {name} has {array.shape[0]}x{array.shape[1]} pixels, but {height}x"
                f"{width} are drawn; resize it"
            )
    if picture.mask is not None and picture.image is None:
        raise cfg.ConfigError("there is a mask, but no picture that it belongs to")
    if is_inpainting(model) and picture.mask is None:
        raise cfg.ConfigError(
            "this is an inpainting model; it needs a picture and a mask (init_image, mask)"
        )
    if sampling.resample > 1 and (picture.mask is None or is_inpainting(model)):
        raise cfg.ConfigError(
            f"resample is {sampling.resample}, which is for painting under a mask (mask) with a "
            "model that is not shown it"
        )
    scale = model.autoencoder.factor
    wanted = (count, height // scale, width // scale, model.autoencoder.latent_channels)
    if picture.noise is not None and picture.noise.shape != wanted:
        raise cfg.ConfigError(
            f"the starting noise has shape {picture.noise.shape}; it must be {wanted}: "
            "pictures, height and width in latents, channels"
        )


def _guidance(model: cfg.Model, sampling: cfg.Sampling) -> float:
    """The scale of classifier-free guidance: that of `sampling`, or the usual one."""
    if not {"caption", "label"} & {*model.inputs}:
        if sampling.guidance_scale not in (None, 1):
            raise cfg.ConfigError(
                f"guidance_scale is {sampling.guidance_scale}, but this model is unconditional, so "
                "that there is nothing to be guided to; leave it out"
            )
        return 1.0
    # Autoguidance stands in for it.
    usual = _usual_guidance(model) if sampling.autoguidance_scale is None else 1.0
    return or_default(sampling.guidance_scale, usual)


def _strength(sampling: cfg.Sampling, picture: Picture) -> float | None:
    if picture.image is None:
        if sampling.strength is not None:
            raise cfg.ConfigError(
                f"strength is {sampling.strength}, but there is no picture to draw on"
            )
        return None
    return or_default(sampling.strength, 0.75 if picture.mask is None else 1.0)


def _check_way(sampling: cfg.Sampling, whole: Level, visited: Level) -> None:
    """Raises ConfigError where nothing would be drawn: no step is taken, or hardly any noise is
    there to begin with."""
    taken = visited.timestep.shape[0] - 1
    if sampling.strength and not taken:
        raise cfg.ConfigError(
            f"strength is {sampling.strength} of {sampling.steps} steps, which is less than one, "
            "so that nothing would be drawn; choose more of either"
        )
    time, alpha, sigma, _ = (float(np.asarray(values)[0]) for values in whole)
    how = "listed levels" if sampling.spacing is None else f"steps with spacing {sampling.spacing}"
    if sigma < LEAST_NOISE * alpha and sampling.strength in (None, 1):
        raise cfg.ConfigError(
            f"{sampling.steps} {how} begin at "
            f"timestep {time:g}, where sigma / alpha is "
            f"{sigma / alpha:.2g}: noise is no picture with so little noise, and would come "
            "back as it is; take more steps, or spacing 'trailing'"
        )


def _check_guidance(sampling: cfg.Sampling, solver: Solver, visited: Level) -> None:
    _check_effects(sampling, visited)
    sampler = sampling.sampler
    whole = "with" if sampling.corrector else "without"
    if sampling.classifier_form == "mean" and not (solver.stochastic and evaluates_once(solver)):
        raise cfg.ConfigError(
            f"classifier_form 'mean' moves the mean of noisy steps of one evaluation, but sampler "
            f"{sampler!r} {whole} corrector takes none; choose ddpm, euler_a or ddim with an eta "
            "above 0, no corrector, or form 'eps'"
        )
    taken = visited.timestep.shape[0] - 1
    if sampling.resample > 1 and sampling.resample_jump >= taken:
        raise cfg.ConfigError(
            f"resample_jump is {sampling.resample_jump}, but with {taken} steps to take a stretch "
            f"that is passed again has {taken - 1} at most, so that resample would have no effect; "
            "choose a shorter one, or more steps"
        )
    if sampling.resample > 1 and not evaluates_once(solver):
        raise cfg.ConfigError(
            f"resample is {sampling.resample}, but sampler {sampler!r} {whole} corrector evaluates "
            "more than once a step; choose one that does not, such as ddim or ddpm"
        )


def _check_effects(sampling: cfg.Sampling, visited: Level) -> None:
    """Raises ConfigError for changes of a guidance that is not there."""
    free = sampling.guidance_scale != 1
    guided = free or sampling.autoguidance_scale is not None
    guided |= sampling.classifier_scale is not None
    for name, absent, needs in (
        ("guidance_schedule", "constant", guided),
        ("guidance_interval", None, guided),
        ("guidance_rescale", None, free),
    ):
        value = getattr(sampling, name)
        if value != absent and not needs:
            raise cfg.ConfigError(
                f"{name} is {value}, but there is no guidance that it could change: "
                "guidance_scale is 1; choose another, or leave it out"
            )
    if sampling.classifier_form is not None and sampling.classifier_scale is None:
        raise cfg.ConfigError(
            f"classifier_form is {sampling.classifier_form!r}, but there is no classifier"
        )
    if sampling.guidance_interval is not None:
        low, high = sampling.guidance_interval
        ratios = _ratios(visited)
        if ratios.size and not np.any((ratios > low) & (ratios <= high)):
            raise cfg.ConfigError(
                f"guidance_interval is {low:g} to {high:g}, but the noise levels that are visited "
                f"have sigma / alpha from {ratios[-1]:.3g} to {ratios[0]:.3g}, none of them inside"
            )


def _ratios(visited: Level) -> np.ndarray:
    """sigma / alpha of all levels but the final one, falling."""
    sigma, alpha = (
        np.asarray(values, np.float64)[:-1] for values in (visited.sigma, visited.alpha)
    )
    with np.errstate(divide="ignore"):
        return sigma / alpha


def _check_size(model: cfg.Model, sampling: cfg.Sampling, textures: bool) -> None:
    height, width = sampling.height, sampling.width
    trained = model.sides
    for name, side in (("height", height), ("width", width)):
        if side % factor(model):
            raise cfg.ConfigError(
                f"{name} is {side}; for this model it must be a multiple of {factor(model)}"
            )
    least = LEAST_TILE * model.autoencoder.factor
    if sampling.tile is not None and sampling.tile < least:
        raise cfg.ConfigError(
            f"tile is {sampling.tile}; for this model it must be {least} or more pixels"
        )
    if sampling.tile is not None and textures:
        raise cfg.ConfigError(
            "pictures whose edges fit cannot be decoded in tiles, whose edges are others; "
            "leave out tile or tileable"
        )
    has_map = cfg.find(model.conditioners, cfg.CaptionMapConditioner) is not None
    if has_map and (height, width) != trained:
        raise cfg.ConfigError(
            f"this model draws {trained[0]} x {trained[1]} pixels only, because its captions are "
            "drawn into a map of that size; set height and width"
        )


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
    return 3.0
