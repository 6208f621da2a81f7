"""A request against a model: every usual value filled in, every file read, ready to be drawn."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ldm_jax import config as cfg
from ldm_jax.config.request import FILES
from ldm_jax.core.npy import read_rows
from ldm_jax.data.inputs import box_maps
from ldm_jax.generation.condition_files import read_shown
from ldm_jax.generation.conditions import NO_PICTURE, Picture
from ldm_jax.generation.control_hints import prepare, read_hints
from ldm_jax.generation.defaults import or_default, usual_mask_blur
from ldm_jax.generation.pipeline import Pipeline, Plan
from ldm_jax.generation.used_files import Hashes, used_hashes
from ldm_jax.images import masks

MOST_NOISE = 1000.0
"""Starting noise is about of unit variance; what has values beyond this is something else."""


@dataclass(frozen=True, eq=False)
class ResolvedRequest:
    """What a model draws for a request."""

    request: cfg.Request
    """With the usual values of model and sampler where it had none."""
    plan: Plan
    """For `Pipeline.run`."""
    paste: Callable[[UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "height width 3"]]
    """Lays a drawn image over the picture whose mask it fills; without one, returns it."""
    filled: tuple[str, ...]
    """The settings that were filled in."""
    hashes: tuple[Hashes, ...] = ()
    """Of each condition, the short hashes of the adapters' files that it is drawn with."""


def resolve_request(pipeline: Pipeline, request: cfg.Request) -> ResolvedRequest:
    """Resolves `request` and reads the files that it names; no network is run.

    Where files ask for sides that the model cannot draw, the plan is for larger ones, and `paste`
    cuts pictures to what was asked for.

    Raises:
        cfg.ConfigError, ValueError: what this model cannot draw, or files that cannot be used.
    """
    files, sampling = request.picture, request.sampling
    picture, paste = NO_PICTURE, _as_it_is
    shown = read_shown(pipeline.config, request.condition_files)
    hints = read_hints(pipeline.choice, request.hints)
    if shown.sides is not None:
        sampling = _exactly(sampling, shown.sides)
    _check_whole(request)
    if files.init_image is not None:
        image = masks.load_image(files.init_image)
        # Cropped to its mask, a picture is painted at the size of training.
        crop = files.only_masked is not None
        sampling = _sized(pipeline, sampling, None if crop else image.shape[:2])
        if files.mask is None:
            picture = Picture(masks.resize(image, sampling.height, sampling.width))
        else:
            blur = or_default(files.mask_blur, usual_mask_blur(max(image.shape[:2])))
            files = replace(files, mask_blur=blur)
            prepared = masks.prepare(
                image, masks.load_mask(files.mask), sampling.height, sampling.width,
                blur=files.mask_blur, invert=files.invert_mask, only_masked=files.only_masked,
            )  # fmt: skip
            picture, paste = Picture(prepared.image, prepared.mask), prepared.paste
    if shown.scalable:
        sampling = _sized(pipeline, sampling, shown.usual_sides)
        shown = shown.scaled(pipeline.config, (sampling.height, sampling.width))
    if hints and shown.sides is None:
        sampling = _sized(pipeline, sampling, hints[0].shape[:2])
    drawn = sampling.height, sampling.width
    if shown.sides is not None:
        # A model draws sides of certain lengths only; what is drawn beyond the picture is cut off.
        multiple = pipeline.config.side_multiple
        full = tuple(-(-side // multiple) * multiple for side in shown.sides)
        sampling = replace(sampling, height=full[0], width=full[1])
        wanted, shown = shown.sides, shown.padded(pipeline.config, full)
        picture = _padded(picture, full)
        paste = partial(_cut_and_paste, sides=wanted, paste=paste)
    picture = replace(picture, shown=shown.inputs)
    resolved = pipeline.resolve_sampling(sampling, picture)
    sampling = resolved.sampling
    if hints:
        full = sampling.height, sampling.width
        picture = replace(picture, hints=prepare(hints, request.hints, drawn, full))
    maps = box_maps(pipeline.config.conditioners, shown.inputs, (sampling.height, sampling.width))
    picture = replace(picture, shown={**shown.inputs, **maps})
    if files.latents is not None:
        shape = pipeline.model.latent_shape_of(sampling.height, sampling.width)
        count = len(request.conditions) * request.num
        # One noise serves every prompt where each is drawn once.
        noise = read_rows(
            files.latents, shape, files.latents_row, count, most=MOST_NOISE, repeat=request.num == 1
        )  # fmt: skip
        picture = replace(picture, noise=noise)
    plan = pipeline.plan(
        request.conditions, resolved, num=request.num, first_prompt=request.first_prompt,
        first_image=request.first_image, negative=request.negative_prompt,
        unknown_words=request.unknown_words, picture=picture,
    )  # fmt: skip
    if shown.sides is not None:
        sampling = replace(sampling, height=wanted[0], width=wanted[1])
    hashes, choice = used_hashes(pipeline, plan), pipeline.choice
    if not any("embeddings" in one for one in hashes):  # then none of the folder is in a picture
        choice = replace(choice, embeddings_dir=None)
    whole = replace(request, sampling=sampling, picture=files, model=choice)
    asked = request.to_dict()
    filled = tuple(name for name in whole.to_dict() if name not in asked)
    return ResolvedRequest(whole, plan, paste, filled, hashes)


def with_own_batch(pipeline: Pipeline, request: cfg.Request) -> cfg.Request:
    """`request` with a batch that is no larger than what is drawn, where it names none: for those
    who wait for each drawing. Raises as `resolve_request`."""
    if request.sampling.batch_size is not None:
        return request
    usual = resolve_request(pipeline, request).request.sampling.batch_size
    total = len(request.conditions) * request.num
    return request.changed(batch_size=total) if total < usual else request


def read_inverted(
    pipeline: Pipeline, request: cfg.Request, path: Path
) -> tuple[cfg.Sampling, UInt8[np.ndarray, "n h w 3"]]:
    """The sampler's settings with the size of the picture in `path`, and that picture for each of
    the request's conditions."""
    image = masks.load_image(path)
    sampling = _sized(pipeline, request.sampling, image.shape[:2])
    resized = masks.resize(image, sampling.height, sampling.width)
    return sampling, np.repeat(resized[None], len(request.conditions), axis=0)


def _sized(
    pipeline: Pipeline, sampling: cfg.Sampling, sides: tuple[int, int] | None
) -> cfg.Sampling:
    """`sampling` with the size of a picture of these `sides`, or else of training, where it says
    none."""
    height, width = pipeline.config.sides
    if sides is not None and not pipeline.config.draws_one_size:
        height, width = masks.size_for(sides, pipeline.config.side_multiple)
    return replace(
        sampling, height=or_default(sampling.height, height),
        width=or_default(sampling.width, width),
    )  # fmt: skip


def _check_whole(request: cfg.Request) -> None:
    """Raises ConfigError where a part of a picture is painted by files that show all of it."""
    if request.picture.only_masked is None:
        return
    for name in FILES:
        if getattr(request.condition_files, name) is not None:
            raise cfg.ConfigError(
                f"only_masked paints a part of the picture, but {name} is of all of it; leave out "
                "only_masked"
            )
    if request.hints.hint:
        raise cfg.ConfigError(
            "only_masked paints a part of the picture, but hint is of all of it; leave out "
            "only_masked"
        )


def _exactly(sampling: cfg.Sampling, sides: tuple[int, int]) -> cfg.Sampling:
    """`sampling` with the size that the files ask for; raises ConfigError for another."""
    for name, side in zip(("height", "width"), sides, strict=True):
        asked = getattr(sampling, name)
        if asked not in (None, side):
            raise cfg.ConfigError(
                f"{name} is {asked}, but the file that the picture is conditioned on makes it "
                f"{side}; leave out {name}, or resize the file"
            )
    return replace(sampling, height=sides[0], width=sides[1])


def _padded(picture: Picture, sides: tuple[int, int]) -> Picture:
    """`picture` and its mask, whose edges are repeated up to `sides`."""

    def longer(array: Any) -> Any:
        if array is None:
            return None
        beyond = [(0, side - old) for side, old in zip(sides, array.shape, strict=False)]
        return np.pad(array, beyond + [(0, 0)] * (array.ndim - 2), mode="edge")

    return replace(picture, image=longer(picture.image), mask=longer(picture.mask))


def _cut_and_paste(
    image: UInt8[np.ndarray, "h w 3"], sides: tuple[int, int], paste: Callable[[Any], Any]
) -> UInt8[np.ndarray, "height width 3"]:
    return paste(image[: sides[0], : sides[1]])


def _as_it_is(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return image
