"""Draws pictures: `python sample.py --model=MODEL --prompt=CAPTION`."""

import argparse
import sys
import typing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from ldm_jax import config as cfg

PATHS = (
    "init_image", "mask", "latents", "model", "tokenizer", "original_config", "weak_model",
    "classifier",
)  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """Draws pictures with a trained model and says in each file how it was made."""

    model: Path | None = None
    """Work directory of a trained diffusion model, model folder, diffusers folder, or single
    checkpoint file (.safetensors, .ckpt)."""
    out: Path = Path("samples")
    """Folder for the PNG files, grid.png and manifest.json; it must be new or empty."""

    prompt: tuple[str, ...] = ()
    """One or more captions."""
    prompts: Path | None = None
    """Text file with one caption a line."""
    classes: tuple[int, ...] = ()
    """One or more class numbers, for class-conditional models."""
    negative_prompt: str | None = None
    """Caption to be guided away from; the empty one by default."""
    literal_prompts: bool = False
    """Brackets in prompts are letters like others, not emphasis."""
    num: int = 1
    """Pictures for each prompt or class."""
    from_png: Path | None = None
    """A picture whose settings are the defaults of all others but --out."""
    first_prompt: int = 0
    """Number of the first prompt, on which noise depends."""
    first_image: int = 0
    """Number of each prompt's first picture, on which noise depends."""

    sampler: cfg.sampling.SamplerName | None = None
    """ddim unless another is asked for."""
    steps: int | None = None
    """Solver steps; 50 by default."""
    guidance: float | None = None
    """Scale of classifier-free guidance; 1 is none. By default 7.5 for CLIP, 5 for BERT, else 3."""
    guidance_schedule: cfg.sampling.GuidanceSchedule = "constant"
    """How guidance grows while noise falls; the mean stays the scale asked for."""
    guidance_interval: tuple[float, float] | None = None
    """Two noise levels, as sigma / alpha, between which alone guidance acts."""
    guidance_rescale: float | None = None
    """0 to 1: the share of the contrast added by guidance that is taken away; 0.7 is usual."""
    weak_model: Path | None = None
    """A weaker model of the same task, or an earlier checkpoint (WORKDIR/checkpoints/STEP), for
    autoguidance; --guidance is then 1 unless it is given."""
    autoguidance_scale: float | None = None
    """Scale of guidance away from --weak_model; 2 by default, 1 is none."""
    classifier: Path | None = None
    """Work directory of a classifier that guides towards --classes."""
    classifier_scale: float | None = None
    """Scale of the classifier's gradient; 1 by default, 0 is none."""
    classifier_form: cfg.sampling.ClassifierForm | None = None
    """eps, for every sampler, by default; or mean, for those that add noise."""
    threshold: float | None = None
    """0 to 1: quantile of dynamic thresholding, against strong guidance; 0.995 is usual."""
    eta: float | None = None
    """Share of fresh noise of ddim (0, deterministic, by default), and of the ancestral and SDE
    samplers (1): euler_a, dpm2_a, dpmpp_2s_a, dpmpp_sde, dpmpp_2m_sde, dpmpp_3m_sde."""
    corrector: cfg.sampling.CorrectorName | None = None
    """Langevin steps at each level, before the step of a sampler without memory."""
    corrector_steps: int | None = None
    """How many of them; 1 by default."""
    snr: float | None = None
    """Their signal-to-noise ratio; 0.16 by default."""
    spacing: cfg.sampling.Spacing | None = None
    """Which noise levels the solver visits; models and samplers have defaults of their own."""
    sections: tuple[int, ...] = ()
    """Instead of a spacing, so many timesteps in each of equal parts, the least noisy first."""
    timesteps: tuple[float, ...] = ()
    """Instead of a spacing, the timesteps themselves, falling."""
    sigmas: tuple[float, ...] = ()
    """Instead of a spacing, the ratios of noise to signal, falling."""
    seed: int | None = None
    """0 to 4294967295; 0 by default."""
    height: int | None = None
    """Pixels; by default the size of training, or that of the initial picture."""
    width: int | None = None
    """Pixels, as height."""

    init_image: Path | None = None
    """A picture to draw on, resized to height and width."""
    strength: float | None = None
    """How much of the initial picture is given up, 0 to 1; 0.75 by default, 1 with a mask."""
    mask: Path | None = None
    """White where the initial picture is painted anew, of its size."""
    mask_blur: float | None = None
    """Radius in pixels by which the mask's edge is softened; 4 by default."""
    invert_mask: bool = False
    """Paint where the mask is black."""
    only_masked: int | None = None
    """Crop to the mask and so many pixels around it, and paint these at full size."""
    resample: int = 1
    """Draw each stretch of the way so often, for new parts that agree with what is kept."""
    resample_jump: int = 1
    """Length of these stretches in steps."""
    latents: Path | None = None
    """Starting noise, one array [pictures, height, width, channels] in a .npy file."""
    latents_row: int = 0
    """Which of the file's pictures is the first one's."""

    clip_skip: int | None = None
    """Stop so many layers from CLIP's end; 1 is all of them."""
    tileable: bool = False
    """Opposite edges of the pictures fit each other."""
    tile: int | None = None
    """Decode in overlapping tiles of so many pixels, for large pictures."""
    batch_size: int | None = None
    """Pictures drawn at a time; by default 32 small ones, or 1 of more than 16 x 16 latents."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """What the networks compute in; float32 unless the model was trained in another."""

    weights: Literal["ema", "raw"] | None = None
    """The parameter average, or the parameters as trained last; ema of work directories and raw
    of single files by default."""
    tokenizer: Path | None = None
    """Folder with the tokenizer's files, which single files lack."""
    prediction: Literal["eps", "v", "x0"] | None = None
    """What the U-Net predicts, where a single file cannot tell."""
    original_config: Path | None = None
    """The YAML file that describes a single checkpoint file."""
    overwrite: bool = False
    """Write into a folder that has files already."""

    benchmark: bool = False
    """Draw a fixed set of samples instead (the captions and sampler given, or a few of each), time
    and hash them, and write OUT/record.json and OUT/record.npz."""
    verify: Path | None = None
    """Draw the samples of such a record again, and say whether they are equal bit for bit, or how
    far off; the exit status is 1 if they are not."""


DRAWING = (
    "negative_prompt", "literal_prompts", "sampler", "steps", "guidance", "eta", "spacing",
    "sections", "timesteps", "sigmas", "seed", "height", "width", "init_image", "strength", "mask",
    "mask_blur", "invert_mask", "only_masked", "latents", "latents_row", "clip_skip", "tileable",
    "tile", "batch_size", "dtype", "model", "weights", "tokenizer", "prediction", "original_config",
    "guidance_schedule", "guidance_interval", "guidance_rescale", "weak_model",
    "autoguidance_scale", "classifier", "classifier_scale", "classifier_form", "threshold",
    "resample", "resample_jump",
)  # fmt: skip
"""What a picture may say about how it was drawn. Never where to write."""


def parse(arguments: list[str]) -> Arguments:
    """The command line, on top of the settings of the picture that `--from_png` names.

    Raises:
        ValueError: the picture has no settings, or some that make no sense.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--from_png", "--from-png", type=Path)
    path = first.parse_known_args(arguments)[0].from_png
    default = Arguments() if path is None else _from_png(path)
    found = tyro.cli(Arguments, args=arguments, default=default, description=__doc__)
    if found.init_image is None and default.strength is not None:
        # The web UI's pictures name a strength, but not the picture that it was for.
        found = replace(found, strength=None)
    if path is not None and (found.prompt, found.prompts, found.classes) != (
        default.prompt, default.prompts, default.classes
    ):  # fmt: skip
        # Other wishes than the picture's.
        keep = {"prompt", "prompts", "classes"} - _given(arguments)
        found = replace(found, **{name: getattr(Arguments(), name) for name in keep})
    return found


def _from_png(path: Path) -> Arguments:
    from ldm_jax.config.files import matches
    from ldm_jax.drawings import read_drawing

    read = read_drawing(path)
    read["guidance"] = read.get("guidance_scale")
    hints = typing.get_type_hints(Arguments)
    given: dict[str, Any] = {}
    for name in DRAWING:
        value = read.get(name)
        if value is None:
            continue
        if name in ("model", "weak_model") and str(value).startswith("hf:"):
            # A picture cannot make this machine download anything.
            continue
        if name in PATHS and isinstance(value, str):
            value = Path(value)
        given[name] = tuple(value) if isinstance(value, list) else value
    condition = read.get("condition")
    if condition is not None:
        given |= {"classes": (condition,)} if isinstance(condition, int) else {
            "prompt": (condition,)
        }  # fmt: skip
    given["first_prompt"] = read.get("prompt_number", 0)
    given["first_image"] = read.get("image_number", 0)
    for name, value in given.items():
        if not matches(value, hints[name]):
            raise ValueError(f"{path} says that {name} is {value!r}, which it cannot be")
    return Arguments(**given)


def _given(arguments: list[str]) -> set[str]:
    names = (word.split("=")[0].removeprefix("--") for word in arguments if word.startswith("--"))
    return {name.replace("-", "_") for name in names}


def read_conditions(arguments: Arguments) -> list[str | int | None]:
    """The captions, classes or (for neither) one None that the arguments ask for."""
    conditions: list[str | int | None] = [*arguments.prompt]
    if arguments.prompts is not None:
        if not arguments.prompts.is_file():
            raise FileNotFoundError(f"--prompts={arguments.prompts}: there is no such file")
        try:
            lines = arguments.prompts.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"--prompts={arguments.prompts} is not UTF-8 text: {error}") from error
        conditions += [line.strip() for line in lines if line.strip()]
        if not conditions:
            raise ValueError(f"--prompts={arguments.prompts} has no caption in it")
    if conditions and arguments.classes:
        raise ValueError("give captions or --classes, not both: a model takes one of them")
    return conditions or [*arguments.classes] or [None]


def check(arguments: Arguments) -> None:
    """Raises ValueError for what cannot work, whatever the model."""
    if arguments.model is None:
        raise ValueError("--model=MODEL is missing: a work directory, model folder or single file")
    if arguments.num < 1:
        raise ValueError(f"--num={arguments.num}: it must be 1 or more")
    if arguments.negative_prompt and arguments.guidance == 1:
        raise ValueError("--negative_prompt needs --guidance; at 1 there is none to lead away")
    if arguments.benchmark and (arguments.init_image, arguments.latents) != (None, None):
        raise ValueError("--benchmark draws from seeds; leave out --init_image and --latents")
    for name, usual in (("corrector_steps", 1), ("snr", 0.16)):
        # A picture says what is usual too.
        if arguments.corrector is None and getattr(arguments, name) not in (None, usual):
            raise ValueError(f"--{name} needs --corrector")
    for name in ("first_prompt", "first_image", "latents_row"):
        if getattr(arguments, name) < 0:
            raise ValueError(f"--{name}={getattr(arguments, name)}: it must be 0 or more")
    about_mask = {"mask_blur": None, "only_masked": None, "invert_mask": False}
    for name, absent in about_mask.items():
        if arguments.mask is None and getattr(arguments, name) != absent:
            raise ValueError(f"--{name} needs --mask")
    if arguments.mask is not None and arguments.init_image is None:
        raise ValueError("--mask needs --init_image, the picture that is painted on")
    if arguments.strength is not None and arguments.init_image is None:
        raise ValueError("--strength needs --init_image, the picture that is drawn on")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out={arguments.out} is a file; name a folder")
    if arguments.out.exists() and any(arguments.out.iterdir()) and not arguments.overwrite:
        raise ValueError(f"--out={arguments.out} is not empty; choose another, or --overwrite")


def run(arguments: Arguments) -> Path:
    """Draws and writes everything; returns the path of the grid."""
    check(arguments)
    conditions = read_conditions(arguments)

    # JAX starts only now, so that --help and mistakes answer at once.
    import numpy as np
    from tqdm import tqdm

    from ldm_jax.drawings import Drawings
    from ldm_jax.pipeline import IMAGES_PER_PROMPT, versions
    from ldm_jax.settings import batch_size

    pipeline = open_pipeline(arguments)
    last = max(arguments.first_image + arguments.num, arguments.first_prompt + len(conditions))
    if last > IMAGES_PER_PROMPT:
        raise ValueError(
            f"--num={arguments.num} for {len(conditions)} prompts; at most {IMAGES_PER_PROMPT} of "
            "each have noise of their own"
        )
    pipeline.check_conditions(conditions)
    pipeline.check_conditions([arguments.negative_prompt])
    numbers = [
        (arguments.first_prompt + p, arguments.first_image + j)
        for p in range(len(conditions))
        for j in range(arguments.num)
    ]
    wanted = [condition for condition in conditions for _ in range(arguments.num)]
    index = np.array([p * IMAGES_PER_PROMPT + j for p, j in numbers], np.uint32)
    sampling, picture, paste = read_picture(arguments, pipeline, wanted)
    settings = asdict(pipeline.settle(sampling)) | _said(arguments)
    settings |= {"model": str(arguments.model), "origin": pipeline.origin}
    together = batch_size(pipeline.config, pipeline.settle(sampling))
    if arguments.init_image is None:
        del settings["strength"]
    drawn = pipeline.draw(
        wanted, index, sampling=sampling, negative=arguments.negative_prompt, picture=picture
    )
    bar = tqdm(total=len(wanted), unit="image", desc="sampling")
    with bar, Drawings(arguments.out, settings, versions()) as drawings:
        for rows, images in drawn:
            for row, image in zip(rows, images, strict=True):
                prompt, number = numbers[row]
                wish = {
                    "condition": wanted[row], "prompt_number": prompt, "image_number": number,
                    "batch_size": together,
                }  # fmt: skip
                if arguments.latents is not None:
                    wish["latents_row"] = arguments.latents_row + int(row)
                drawings.write(paste(image), wish)
            bar.update(len(rows))
    return drawings.grid


def benchmark(arguments: Arguments) -> Path:
    """Times and hashes samples; returns the path of the record."""
    check(arguments)
    conditions = read_conditions(arguments)

    from ldm_jax import records

    pipeline = open_pipeline(arguments)
    if conditions == [None]:
        conditions = records.usual_conditions(pipeline.config)
    sampling = replace(sampling_of(arguments), steps=_or(arguments.steps, records.STEPS))
    record = arguments.out / "record.json"
    arguments.out.mkdir(parents=True, exist_ok=True)
    samplings = records.usual_samplings(sampling, arguments.sampler)
    wanted = [condition for condition in conditions for _ in range(arguments.num)]
    for line in records.benchmark(pipeline, record, samplings, wanted, str(arguments.model)):
        print(line, flush=True)
    return record


def verify(arguments: Arguments) -> bool:
    """Draws the samples of a record again and says what came of it; whether all are bit-equal."""
    from ldm_jax import records

    if arguments.model is None:
        arguments = replace(arguments, model=Path(records.read(arguments.verify)["model"]))
    if arguments.dtype is None:
        arguments = replace(arguments, dtype=records.read(arguments.verify)["dtype"])
    equal = True
    for same, line in records.verify(open_pipeline(arguments), arguments.verify):
        equal &= same
        print(line, flush=True)
    return equal


def open_pipeline(arguments: Arguments) -> Any:
    """The model that the arguments name."""
    from ldm_jax.pipeline import Pipeline

    choices = {
        name: getattr(arguments, name)
        for name in ("weights", "tokenizer", "prediction", "original_config")
        if getattr(arguments, name) is not None
    }
    return Pipeline(
        arguments.model, dtype=arguments.dtype, clip_skip=_or(arguments.clip_skip, 1),
        tile_textures=arguments.tileable, emphasis=not arguments.literal_prompts,
        weak_model=arguments.weak_model, classifier=arguments.classifier, **choices,
    )  # fmt: skip


def sampling_of(arguments: Arguments) -> cfg.Sampling:
    """The sampler's settings."""
    strength = arguments.strength
    if strength is None:
        strength = 0.75 if arguments.init_image and not arguments.mask else 1.0
    autoguidance, classifier = arguments.autoguidance_scale, arguments.classifier_scale
    if arguments.weak_model is not None:
        autoguidance = _or(autoguidance, 2.0)
    form = arguments.classifier_form
    if arguments.classifier is not None:
        classifier, form = _or(classifier, 1.0), _or(form, "eps")
    sampling = cfg.Sampling(
        sampler=arguments.sampler or "ddim", steps=_or(arguments.steps, 50),
        guidance_scale=arguments.guidance, eta=arguments.eta, spacing=arguments.spacing,
        sections=arguments.sections, timesteps=arguments.timesteps, sigmas=arguments.sigmas,
        corrector=arguments.corrector, corrector_steps=_or(arguments.corrector_steps, 1),
        snr=_or(arguments.snr, 0.16),
        seed=_or(arguments.seed, 0), height=arguments.height, width=arguments.width,
        strength=strength, batch_size=arguments.batch_size, tile=arguments.tile,
        guidance_schedule=arguments.guidance_schedule,
        guidance_interval=arguments.guidance_interval,
        guidance_rescale=arguments.guidance_rescale, autoguidance_scale=autoguidance,
        classifier_scale=classifier, classifier_form=form, threshold=arguments.threshold,
        resample=arguments.resample, resample_jump=arguments.resample_jump,
    )  # fmt: skip
    if arguments.steps not in (None, sampling.visited):
        raise cfg.ConfigError(
            f"--steps={arguments.steps}, but {sampling.visited} levels are listed; leave it out"
        )
    return sampling


def read_noise(arguments: Arguments, wanted: list[Any]) -> Any:
    """The starting noise of each picture, or None."""
    import numpy as np

    if arguments.latents is None:
        return None
    where = f"--latents={arguments.latents}"
    if not arguments.latents.read_bytes().startswith(b"\x93NUMPY"):
        raise ValueError(f"{where} is not a .npy file, which numpy.save writes")
    try:
        noise = np.load(arguments.latents, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{where} is damaged, or holds other things than numbers") from error
    if not np.issubdtype(noise.dtype, np.floating) or not np.isfinite(noise).all():
        raise ValueError(f"{where} must hold finite floating-point numbers")
    if noise.ndim != 4:
        raise ValueError(f"{where} has shape {noise.shape}; it must have four axes: pictures, "
                         "height and width in latents, channels")  # fmt: skip
    if len(noise) == 1 and arguments.num == 1:
        # The same noise for each prompt.
        return np.repeat(noise.astype(np.float32), len(wanted), axis=0)
    rows = noise[arguments.latents_row :][: len(wanted)]
    if len(rows) < len(wanted):
        raise ValueError(
            f"{where} holds the noise of {len(noise)} pictures, but {len(wanted)} are drawn from "
            f"number {arguments.latents_row} on"
        )
    return rows.astype(np.float32)


def read_picture(
    arguments: Arguments, pipeline: Any, wanted: list[Any]
) -> tuple[cfg.Sampling, Any, Any]:
    """The sampler's settings with the picture's size, what `draw` starts from, and how a drawn
    image is pasted back."""
    from ldm_jax import masks
    from ldm_jax.settings import Picture, factor

    sampling, noise = sampling_of(arguments), read_noise(arguments, wanted)
    if arguments.init_image is None:
        return sampling, Picture(noise=noise), lambda image: image
    image = masks.load_image(arguments.init_image)
    size = masks.size_for(image, factor(pipeline.config))
    # Cropped to its mask, a picture is painted at the size of training.
    if arguments.mask is not None and arguments.only_masked is not None:
        size = (pipeline.config.image_size,) * 2
    height, width = _or(sampling.height, size[0]), _or(sampling.width, size[1])
    sampling = replace(sampling, height=height, width=width)
    if arguments.mask is None:
        picture = Picture(masks.resize(image, height, width), None, noise)
        return sampling, picture, lambda image: image
    prepared = masks.prepare(
        image, masks.load_mask(arguments.mask), height, width, blur=_or(arguments.mask_blur, 4.0),
        invert=arguments.invert_mask, only_masked=arguments.only_masked,
    )  # fmt: skip
    return sampling, Picture(prepared.image, prepared.mask, noise), prepared.paste


def _said(arguments: Arguments) -> dict[str, Any]:
    """Further arguments that decide what is drawn, where they were given."""
    names = (
        "negative_prompt", "literal_prompts", "clip_skip", "tileable", "init_image", "mask",
        "mask_blur", "invert_mask", "only_masked", "latents", "dtype", "weights", "tokenizer",
        "prediction", "original_config", "weak_model", "classifier",
    )  # fmt: skip
    said = {}
    for name in names:
        value = getattr(arguments, name)
        if value != getattr(Arguments(), name):
            said[name] = str(value) if isinstance(value, Path) else value
    return said


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def main() -> int:
    """The command line; returns the process's exit status."""
    try:
        arguments = parse(sys.argv[1:])
        if arguments.verify is not None:
            return 0 if verify(arguments) else 1
        print(benchmark(arguments) if arguments.benchmark else run(arguments))
    except KeyboardInterrupt:
        print("sample.py: interrupted; what was drawn before is in --out", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"sample.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
