"""The community's requests as ours."""

import math
import secrets
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ldm_jax.config.checks import Seed
from ldm_jax.config.control_choice import HintFit
from ldm_jax.config.request import FILES
from ldm_jax.images.fitting import fitted
from ldm_jax.sampling.solvers import DEFAULT_ETA
from ldm_jax.web import pictures
from ldm_jax.web.controls import CONTROL
from ldm_jax.web.jobs import Job
from ldm_jax.web.refused import Refused
from ldm_jax.web.sdapi import sampler_names
from ldm_jax.web.sdapi.filling import fill
from ldm_jax.web.sdapi.request_fields import FILES_SCRIPT, SCRIPTS, SHOWN, Checked
from ldm_jax.web.sdapi.server_options import MODEL, SKIP, Options, overridden
from ldm_jax.web.sent_files import SentFile
from ldm_jax.web.services import Services, decoded

MAX_SEED = int(typing.get_args(Seed)[1].high)
NAMES = {
    "guidance_scale": "cfg_scale", "sampler": "sampler_name", "spacing": "scheduler",
    "num": "batch_size", "init_image": "init_images", "strength": "denoising_strength",
    "invert_mask": "inpainting_mask_invert", "only_masked": "inpaint_full_res_padding",
    "tileable": "tiling", "clip_skip": f"override_settings.{SKIP}",
    "model": f"override_settings.{MODEL}",
    "classes": "prompt", **{name: f"{SCRIPTS}.{FILES_SCRIPT}.{name}" for name in SHOWN},
}  # fmt: skip
"""Our settings by the fields that they come from, where those have other names."""
FITS: tuple[HintFit, ...] = ("stretch", "crop", "fill")
"""What values of `resize_mode` do with the picture and its mask."""
FILL, ORIGINAL = 0, 1
"""Of `inpainting_fill`: what lies under the mask before it is painted."""


@dataclass(frozen=True)
class Translated:
    """A request of the community's API."""

    fields: Checked
    options: Options
    """Of the server, as this request has them."""
    job: Job
    seed: int
    """Of the first picture."""


def translate(fields: Checked, options: Options, services: Services) -> Translated:
    """The job that such a request is.

    Picture i has the seed after that of picture i - 1, as users know it, so that each is a request
    of its own. Raises Refused (422), as `renamed` names fields.
    """
    options = overridden(options, fields["override_settings"], services.models)
    name = options.model(services.models)
    count = fields["batch_size"] * fields["n_iter"]
    _check_counts(fields, services.limits.max_pictures)
    largest = MAX_SEED - count + 1
    seed = secrets.randbelow(largest + 1) if fields["seed"] < 0 else fields["seed"]
    if seed > largest:
        raise Refused(422, ("seed", f"seed is {seed}; for {count} pictures, whose seeds follow "
                            f"it, it must be at most {largest}"))  # fmt: skip
    sent = _pictures(fields, services) | _files(fields, services)
    sent |= decoded({CONTROL: fields.controls}, services.limits)
    values = settings_of(fields) | options.settings()
    first = services.request_of(values | {"seed": seed}, name, sent)
    requests = tuple(first.changed(seed=seed + i) for i in range(count))
    job = Job(name, requests, fields["save_images"], keep=True,
              optional=options.optional(fields["override_settings"]))  # fmt: skip
    return Translated(fields, options, job, seed)


def settings_of(fields: Checked) -> dict[str, Any]:
    """The settings of one picture that the fields say, but for seed, model and pictures."""
    sampler = fields["sampler_name"] or fields["sampler_index"] or sampler_names.USUAL
    named = sampler_names.settings_of(sampler, fields["scheduler"], fields["steps"])
    found: dict[str, Any] = named | {
        "steps": fields["steps"], "guidance_scale": float(fields["cfg_scale"]),
        "height": fields["height"], "width": fields["width"], "batch_size": 1,
        "tileable": fields["tiling"], "eta": _eta(fields["eta"], named["sampler"]),
    }  # fmt: skip
    # An empty text is none, so that models without captions take it.
    found["prompt"] = [fields["prompt"]] if fields["prompt"] else None
    found["negative_prompt"] = fields["negative_prompt"] or None
    if fields.is_img2img:
        found |= _of_pictures(fields)
    found |= {name: value for name, value in fields.shown.items() if name not in FILES}
    return {name: value for name, value in found.items() if value is not None}


def renamed(error: Refused) -> Refused:
    """The same refusal with the community's names of fields in the place of ours."""
    errors = []
    for field, message in error.errors:
        theirs = NAMES.get(field or "", field)
        if field in NAMES and message.startswith(f"{field} "):
            message = f"{theirs}{message[len(field) :]}"
        errors.append((theirs, message))
    return Refused(error.status, *errors)


def _eta(eta: float | None, sampler: str) -> float | None:
    """1, which clients send always, is nothing for samplers that have no eta."""
    if eta == 1 and sampler not in DEFAULT_ETA:
        return None
    return eta


def _of_pictures(fields: Checked) -> dict[str, Any]:
    found: dict[str, Any] = {"strength": float(fields["denoising_strength"])}
    if fields["mask"]:
        inverted = fields["inpainting_mask_invert"]
        if inverted not in (0, 1):
            raise Refused(422, ("invert_mask", "invert_mask must be 0 or 1"))
        found |= {"mask_blur": _blur(fields), "invert_mask": bool(inverted)}
        if fields["inpaint_full_res"]:
            found["only_masked"] = fields["inpaint_full_res_padding"]
    return found


def _blur(fields: Checked) -> float:
    if fields["mask_blur"] is not None:
        return float(fields["mask_blur"])
    if fields["mask_blur_x"] != fields["mask_blur_y"]:
        raise Refused(
            422, ("mask_blur_x", "mask_blur_x and mask_blur_y differ; give one mask_blur")
        )
    return float(fields["mask_blur_x"])


def _files(fields: Checked, services: Services) -> dict[str, Image.Image | SentFile]:
    """The files that the model is to be conditioned on."""
    return decoded({n: value for n, value in fields.shown.items() if n in FILES}, services.limits)


def _pictures(fields: Checked, services: Services) -> dict[str, Image.Image]:
    """The picture and the mask, decoded; with "fill", the picture's colours run under the mask."""
    if not fields.is_img2img:
        return {}
    images = fields["init_images"]
    if len(images) != 1:
        raise Refused(422, ("init_image", f"init_images has {len(images)} pictures; give one"))
    if not images[0]:
        raise Refused(422, ("init_image", "init_images has an empty entry; give a picture"))
    sent = decoded({"init_image": images[0], "mask": fields["mask"]}, services.limits)
    if "mask" in sent:
        sent["mask"] = _resized(sent["mask"], sent["init_image"].size)
    sent = _in_proportion(fields, sent, services.limits.max_pixels)
    filling, everything = fields["inpainting_fill"], fields["denoising_strength"] == 1
    if "mask" not in sent or filling == ORIGINAL or everything:
        return sent
    if filling != FILL:
        why = f"inpainting_fill is {filling}; it must be 0 (fill) or 1 (original)"
        raise Refused(422, ("inpainting_fill", f"{why} where denoising_strength is below 1"))
    return sent | {"init_image": _filled(sent, bool(fields["inpainting_mask_invert"]))}


def _in_proportion(
    fields: Checked, sent: dict[str, Image.Image], most: int
) -> dict[str, Image.Image]:
    """Picture and mask cropped or filled up to the size of drawing, if that is asked for; what is
    painted is cut out of the whole picture, as the web UI does."""
    mode = fields["resize_mode"]
    if mode not in range(len(FITS)):
        why = f"resize_mode is {mode}; it must be 0 (just resize), 1 (crop and resize) or 2 (resize"
        raise Refused(422, ("resize_mode", f"{why} and fill)"))
    sides = fields["height"], fields["width"]
    # Sides that cannot be are refused where all of the request is looked at.
    if "mask" in sent and fields["inpaint_full_res"] or min(sides) < 1 or math.prod(sides) > most:
        return sent
    if FITS[mode] == "stretch":
        return sent
    as_pixels = {"init_image": pictures.picture_of, "mask": pictures.mask_of}
    return {
        name: Image.fromarray(fitted(as_pixels[name](image, name), sides, FITS[mode]))
        for name, image in sent.items()
    }


def _resized(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The mask in its picture's size, as the web UI takes masks of any size."""
    if mask.size == size:
        return mask
    grey = Image.fromarray(pictures.mask_of(mask, "mask"))
    return grey.resize(size, Image.Resampling.BILINEAR)


def _filled(sent: Mapping[str, Image.Image], inverted: bool) -> Image.Image:
    image = pictures.picture_of(sent["init_image"], "init_image")
    mask = pictures.mask_of(sent["mask"], "mask").mean(-1) >= 128
    return Image.fromarray(fill(image, np.asarray(mask != inverted)))


def _check_counts(fields: Checked, most: int) -> None:
    for name in ("batch_size", "n_iter"):
        if not 1 <= fields[name] <= most:
            raise Refused(422, (name, f"{name} is {fields[name]}; it must be a whole number "
                                  f"from 1 to {most}"))  # fmt: skip
    if fields["batch_size"] * fields["n_iter"] > most:
        raise Refused(422, ("batch_size", f"batch_size times n_iter must be at most {most}"))
