"""What a model or a sampler cannot draw, refused from numbers before anything is compiled."""

from collections.abc import Sequence

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.core.typing import Level, Solver
from ldm_jax.generation.conditions import Picture
from ldm_jax.models.control_net import ControlNet
from ldm_jax.sampling.solver_base import evaluates_once

LEAST_NOISE = 0.5
"""sigma / alpha at the first level, below which a drawing cannot begin with noise alone."""
LEAST_TILE = 8
"""Latents along the side of a tile, below which a decoder has no context."""


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
        raise cfg.ConfigError("there is a mask, but no picture (init_image)")
    if model.is_inpainting and picture.mask is None:
        raise cfg.ConfigError(
            "this is an inpainting model; it needs a picture and a mask (--init_image, --mask)"
        )
    if sampling.resample > 1 and (picture.mask is None or model.is_inpainting):
        raise cfg.ConfigError(
            f"resample is {sampling.resample}, which needs a mask, and a model that is not an "
            "inpainting model"
        )
    scale = model.autoencoder.factor
    wanted = (count, height // scale, width // scale, model.autoencoder.latent_channels)
    if picture.noise is not None and picture.noise.shape != wanted:
        raise cfg.ConfigError(
            f"the starting noise has shape {picture.noise.shape}; it must be {wanted}: "
            "pictures, height and width in latents, channels"
        )


def check_controls(nets: Sequence[ControlNet], sampling: cfg.Sampling, picture: Picture) -> None:
    """Raises ConfigError unless there is a hint of the pictures' size for each ControlNet."""
    hints = () if picture.hints is None else picture.hints.pictures
    if len(hints) != len(nets):
        raise cfg.ConfigError(
            f"there are {len(hints)} hints for {len(nets)} ControlNets; give one for each (hint)"
        )
    for hint, net in zip(hints, nets, strict=True):
        wanted = sampling.height, sampling.width, net.branch.hint_channels
        if hint.shape != wanted:
            raise cfg.ConfigError(
                f"the hint has the shape {hint.shape}, where the ControlNet and the size that is "
                f"drawn need {wanted}"
            )
    if nets and sampling.unet_tile is not None:
        raise cfg.ConfigError(
            f"unet_tile is {sampling.unet_tile}, but ControlNets see the whole picture; leave it "
            "out"
        )


def check_way(sampling: cfg.Sampling, whole: Level, visited: Level) -> None:
    """Raises ConfigError where nothing would be drawn: no step is taken, or hardly any noise is
    there to begin with."""
    taken = visited.timestep.shape[0] - 1
    if sampling.strength and not taken:
        raise cfg.ConfigError(
            f"strength is {sampling.strength} of {sampling.steps} steps, which is less than one "
            "step, so nothing would be drawn; increase one of them"
        )
    time, alpha, sigma, _ = (float(np.asarray(values)[0]) for values in whole)
    how = "listed levels" if sampling.spacing is None else f"steps with spacing {sampling.spacing}"
    if sigma < LEAST_NOISE * alpha and sampling.strength in (None, 1):
        raise cfg.ConfigError(
            f"{sampling.steps} {how} begin at timestep {time:g}, where sigma / alpha is only "
            f"{sigma / alpha:.2g}: too little noise to draw from; use more steps, or spacing "
            "'trailing'"
        )


def check_guidance(sampling: cfg.Sampling, solver: Solver, visited: Level) -> None:
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
    free = sampling.guides_freely
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
                f"{name} is {value}, which has no effect because guidance_scale is 1; choose "
                "another scale, or leave it out"
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
                f"guidance_interval is {low:g} to {high:g}, but sampling visits noise levels "
                f"(sigma / alpha) from {ratios[-1]:.3g} to {ratios[0]:.3g}, none of them inside"
            )


def _ratios(visited: Level) -> np.ndarray:
    """sigma / alpha of all levels but the final one, falling."""
    sigma, alpha = (
        np.asarray(values, np.float64)[:-1] for values in (visited.sigma, visited.alpha)
    )
    with np.errstate(divide="ignore"):
        return sigma / alpha


def check_size(model: cfg.Model, sampling: cfg.Sampling, textures: bool) -> None:
    height, width = sampling.height, sampling.width
    trained = model.sides
    for name, side in (("height", height), ("width", width)):
        if side % model.side_multiple:
            raise cfg.ConfigError(
                f"{name} is {side}; for this model it must be a multiple of {model.side_multiple}"
            )
    least = LEAST_TILE * model.autoencoder.factor
    if sampling.tile is not None and sampling.tile < least:
        raise cfg.ConfigError(
            f"tile is {sampling.tile}; for this model it must be {least} or more pixels"
        )
    unet_tile, multiple = sampling.unet_tile, 2 * model.side_multiple
    if unet_tile is not None and unet_tile % multiple:
        raise cfg.ConfigError(
            f"unet_tile is {unet_tile}; for this model it must be a multiple of {multiple}, and "
            f"best of the size of training, {' x '.join(map(str, trained))}"
        )
    for name in ("tile", "unet_tile"):
        if getattr(sampling, name) is not None and textures:
            raise cfg.ConfigError(
                f"tileable pictures cannot be drawn in tiles; leave out {name} or tileable"
            )
    if model.draws_one_size and (height, width) != trained:
        raise cfg.ConfigError(
            f"height is {height} and width {width}, but this model draws {trained[0]} x "
            f"{trained[1]} pixels only, because its captions are drawn into a map of that size; "
            "leave out both"
        )
