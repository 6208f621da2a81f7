"""What was drawn, how far a drawing is, and what a picture says of itself, in the words of the web
UI."""

import base64
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ldm_jax
from ldm_jax.config.request import Request
from ldm_jax.core.reading import FileFormatError
from ldm_jax.images import infotext
from ldm_jax.images.picture_text import parameters
from ldm_jax.web.jobs import Job
from ldm_jax.web.pictures import decode_base64, sent_file
from ldm_jax.web.refused import Refused
from ldm_jax.web.sdapi.sampler_names import name_of
from ldm_jax.web.sdapi.translation import Translated
from ldm_jax.web.worker import Worker

Json = dict[str, Any]


def drawn(translated: Translated, given: Json) -> Json:
    """The answer to txt2img and img2img, of which `given` is the body: the pictures' files, byte
    for byte, and `info`, which is JSON in JSON."""
    job, fields = translated.job, translated.fields
    images = [base64.b64encode(png).decode() for png, *_ in job.drawn]
    echo = dict(given)
    if fields.is_img2img and not fields["include_init_images"]:
        echo |= {"init_images": None, "mask": None}
    return {
        "images": images if fields["send_images"] else [], "parameters": echo,
        "info": json.dumps(info(translated)),
    }  # fmt: skip


def info(translated: Translated) -> Json:
    """What is said of the pictures that were drawn."""
    job, fields = translated.job, translated.fields
    requests = [one for _, one, _ in job.drawn]
    first = requests[0] if requests else job.requests[0]
    sampling, count = first.sampling, len(requests)
    seeds = [one.sampling.seed for one in requests]
    prompt, negative = fields["prompt"], fields["negative_prompt"]
    return {
        "prompt": prompt, "all_prompts": [prompt] * count, "negative_prompt": negative,
        "all_negative_prompts": [negative] * count, "seed": translated.seed, "all_seeds": seeds,
        "subseed": -1, "all_subseeds": [-1] * count, "subseed_strength": 0.0,
        "width": sampling.width or fields["width"], "height": sampling.height or fields["height"],
        "sampler_name": name_of(sampling.sampler or ""), "cfg_scale": float(fields["cfg_scale"]),
        "steps": fields["steps"], "batch_size": fields["batch_size"], "restore_faces": False,
        "face_restoration_model": None, "sd_model_name": job.model, "sd_model_hash": "",
        "sd_vae_name": None, "sd_vae_hash": None, "seed_resize_from_w": -1,
        "seed_resize_from_h": -1, "denoising_strength": sampling.strength,
        "extra_generation_params": {"Notes": "; ".join(job.notes)} if job.notes else {},
         "index_of_first_image": 0,
        "infotexts": [text or _infotext(one) for _, one, text in job.drawn], "styles": [],
        "job_timestamp": _stamp(job), "clip_skip": translated.options.clip_skip,
        "is_using_inpainting_conditioning": first.picture.mask is not None,
        "version": f"ldm_jax {ldm_jax.__version__}",
    }  # fmt: skip


def _infotext(request: Request) -> str:
    """The web UI's text of a picture without a caption, which has an empty one."""
    return parameters(replace(request, prompt=("",), classes=()))


def _stamp(job: Job) -> str:
    return time.strftime("%Y%m%d%H%M%S", time.localtime(job.created))


def progress(worker: Worker, skip_image: bool) -> Json:
    """The answer to progress: of the job that is drawn now, or else of an idle server."""
    job = worker.current
    waiting = sum(one.stage == "queued" for one in worker.jobs())
    if job is None or not job.draws:
        return _progress(0.0, 0.0, _state(None, waiting), None, None)
    worker.watch()
    png = None if skip_image else job.preview_png
    image = None if png is None else base64.b64encode(png).decode()
    fraction = min(job.fraction, 0.999)
    return _progress(fraction, job.seconds_left or 0.0, _state(job, waiting), image, job.stage)


def _progress(
    fraction: float, seconds: float, state: Json, image: str | None, text: str | None
) -> Json:
    return {
        "progress": fraction, "eta_relative": seconds, "state": state, "current_image": image,
        "textinfo": text,
    }  # fmt: skip


def _state(job: Job | None, waiting: int) -> Json:
    pictures = 0 if job is None else max(1, job.pictures)
    steps = (job.steps or 0) // pictures if job is not None else 0
    return {
        "skipped": bool(job and job.skip), "interrupted": bool(job and job.stop),
        "stopping_generation": False, "job": job.id if job else "",
        "job_count": pictures + waiting, "job_timestamp": _stamp(job) if job else "0",
        "job_no": job.pictures_done if job else 0,
        "sampling_step": job.steps_done % steps if job and steps else 0, "sampling_steps": steps,
    }  # fmt: skip


def png_info(given: Json, folder: Path) -> Json:
    """The answer to png-info: the text of a PNG in base64, the rest of what it says, and its
    settings one by one; `folder` is where it may be laid for a moment. Raises Refused (422)."""
    data = decode_base64(given.get("image"), "image")
    try:
        with sent_file(data, folder) as path:
            items = infotext.read_png(path)
    except FileFormatError as error:
        raise Refused(422, ("image", f"image {error.args[1]}")) from error
    text = items.pop(infotext.CHUNK, "")
    return {"info": text, "items": items, "parameters": _parameters(text)}


def _parameters(text: str) -> Json:
    if not text:
        return {}
    info = infotext.parse_parameters(text)
    found: dict[str, Any] = {"Prompt": info.prompt, "Negative prompt": info.negative_prompt}
    found |= info.settings
    if "Size" in info.settings:
        width, _, height = info.settings["Size"].partition("x")
        found |= {"Size-1": width, "Size-2": height}
    return found
