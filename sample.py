"""Draws pictures: `python sample.py --model=MODEL --prompt=CAPTION`."""

import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from ldm_jax import config as cfg


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
    """A picture whose settings are used wherever no other are given."""

    sampler: cfg.sampling.SamplerName | None = None
    """ddim unless another is asked for."""
    steps: int | None = None
    """Solver steps; 50 by default."""
    guidance: float | None = None
    """Scale of classifier-free guidance; 1 is none. By default 7.5 for CLIP, 5 for BERT, else 3."""
    eta: float | None = None
    """Share of fresh noise of ddim (0, deterministic, by default) and euler_a (1)."""
    spacing: cfg.sampling.Spacing | None = None
    """Which noise levels the solver visits; models and samplers have defaults of their own."""
    seed: int | None = None
    height: int | None = None
    """Pixels; the size of training by default."""
    width: int | None = None

    init_image: Path | None = None
    """A picture to draw on, resized to height and width."""
    strength: float | None = None
    """How much of the initial picture is given up, 0 to 1; 0.75 by default, 1 with a mask."""
    mask: Path | None = None
    """White where the initial picture is painted anew, of its size."""
    mask_blur: float = 4.0
    """Radius in pixels by which the mask's edge is softened."""
    invert_mask: bool = False
    """Paint where the mask is black."""
    only_masked: int | None = None
    """Crop to the mask and so many pixels around it, and paint these at full size."""
    latents: Path | None = None
    """Starting noise, one array [pictures, height, width, channels] in a .npy file."""

    clip_skip: int | None = None
    """Stop so many layers from CLIP's end; 1 is all of them."""
    tileable: bool = False
    """Opposite edges of the pictures fit each other."""
    tile: int | None = None
    """Decode in overlapping tiles of so many pixels, for large pictures."""
    batch_size: int | None = None
    """Pictures drawn at a time; smaller needs less memory."""
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


def with_settings(arguments: Arguments) -> tuple[Arguments, list[tuple[int, int]] | None]:
    """`arguments` with those of `from_png` where none were given, and that picture's numbers."""
    if arguments.from_png is None:
        return arguments, None
    from ldm_jax.drawings import read_drawing

    found = read_drawing(arguments.from_png)
    if "guidance_scale" in found:
        found["guidance"] = found["guidance_scale"]
    given: dict[str, Any] = {}
    for field in fields(Arguments):
        value = found.get(field.name)
        if value is not None and getattr(arguments, field.name) == field.default:
            kind = type(getattr(Arguments(), field.name))
            is_path = field.name in ("model", "init_image", "mask", "latents", "tokenizer")
            given[field.name] = Path(value) if is_path or issubclass(kind, Path) else value
    wanted = arguments.prompt or arguments.prompts or arguments.classes
    numbers = None
    if not wanted:
        condition = found.get("condition")
        if isinstance(condition, str):
            given["prompt"] = (condition,)
        elif condition is not None:
            given["classes"] = (condition,)
        if arguments.num == 1:
            numbers = [(found.get("prompt_number", 0), found.get("image_number", 0))]
    return replace(arguments, **given), numbers


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
    if arguments.negative_prompt is not None and arguments.guidance == 1:
        raise ValueError("--negative_prompt needs --guidance; at 1 there is none to lead away")
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
    arguments, numbers = with_settings(arguments)
    check(arguments)
    conditions = read_conditions(arguments)

    # JAX starts only now, so that --help and mistakes answer at once.
    import numpy as np
    from tqdm import tqdm

    from ldm_jax.drawings import write_drawings
    from ldm_jax.pipeline import IMAGES_PER_PROMPT, Pipeline, versions

    choices = {
        name: getattr(arguments, name)
        for name in ("weights", "tokenizer", "prediction", "original_config")
        if getattr(arguments, name) is not None
    }
    strength = arguments.strength
    if strength is None:
        strength = 0.75 if arguments.init_image and not arguments.mask else 1.0
    sampling = cfg.Sampling(
        sampler=arguments.sampler or "ddim", steps=_or(arguments.steps, 50),
        guidance_scale=arguments.guidance, eta=arguments.eta, spacing=arguments.spacing,
        seed=_or(arguments.seed, 0), height=arguments.height, width=arguments.width,
        strength=strength, batch_size=arguments.batch_size, tile=arguments.tile,
    )  # fmt: skip
    pipeline = Pipeline(
        arguments.model, dtype=arguments.dtype, clip_skip=_or(arguments.clip_skip, 1),
        tile_textures=arguments.tileable, emphasis=not arguments.literal_prompts, **choices,
    )  # fmt: skip
    if max(arguments.num, len(conditions)) > IMAGES_PER_PROMPT:
        raise ValueError(
            f"--num={arguments.num} for {len(conditions)} prompts; at most {IMAGES_PER_PROMPT} of "
            "each have noise of their own"
        )
    pipeline.check_conditions(conditions)
    pipeline.check_conditions([arguments.negative_prompt])
    if numbers is None:
        numbers = [(p, j) for p in range(len(conditions)) for j in range(arguments.num)]
        wanted = [conditions[p] for p, _ in numbers]
    else:
        wanted = conditions
    index = np.array([p * IMAGES_PER_PROMPT + j for p, j in numbers], np.uint32)
    sampling, picture, paste = read_picture(arguments, pipeline, sampling, len(wanted))
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(wanted), unit="image", desc="sampling") as bar:
        images = pipeline.generate(
            wanted, index, sampling=sampling, negative=arguments.negative_prompt,
            picture=picture, progress=bar.update,
        )  # fmt: skip
    settings = asdict(pipeline.settle(sampling)) | {
        "model": str(arguments.model), "step": pipeline.origin.get("step"),
        "weights": pipeline.origin.get("weights"),
        "negative_prompt": arguments.negative_prompt, "dtype": pipeline.dtype,
    } | _said(arguments)  # fmt: skip
    wishes = [
        {"condition": condition, "prompt_number": p, "image_number": j}
        for condition, (p, j) in zip(wanted, numbers, strict=True)
    ]
    return write_drawings(
        arguments.out, [paste(image) for image in images], wishes, settings, versions()
    )


def read_picture(
    arguments: Arguments, pipeline: Any, sampling: cfg.Sampling, count: int
) -> tuple[cfg.Sampling, Any, Any]:
    """Settings with the picture's size, what `generate` starts from, and how to paste back."""
    import numpy as np

    from ldm_jax import masks
    from ldm_jax.pipeline import Picture

    noise = None
    if arguments.latents is not None:
        try:
            noise = np.load(arguments.latents, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"--latents={arguments.latents} is no .npy array: {error}") from error
        if not np.issubdtype(noise.dtype, np.floating) or not np.isfinite(noise).all():
            raise ValueError(f"--latents={arguments.latents} must hold finite floating numbers")
        noise = noise.astype(np.float32)
        if noise.ndim == 4 and len(noise) == 1:
            noise = np.repeat(noise, count, axis=0)
    if arguments.init_image is None:
        return sampling, Picture(noise=noise), lambda image: image
    image = masks.load_image(arguments.init_image)
    size = masks.size_for(image, pipeline.factor)
    # Cropped to its mask, a picture is painted at the size of training.
    if arguments.mask is not None and arguments.only_masked is not None:
        size = (pipeline.config.image_size,) * 2
    height, width = _or(sampling.height, size[0]), _or(sampling.width, size[1])
    sampling = replace(sampling, height=height, width=width)
    if arguments.mask is None:
        picture = Picture(masks.resize(image, height, width), None, noise)
        return sampling, picture, lambda image: image
    prepared = masks.prepare(
        image, masks.load_mask(arguments.mask), height, width, blur=arguments.mask_blur,
        invert=arguments.invert_mask, only_masked=arguments.only_masked,
    )  # fmt: skip
    return sampling, Picture(prepared.image, prepared.mask, noise), prepared.paste


def _said(arguments: Arguments) -> dict[str, Any]:
    """Further arguments that decide what is drawn, where they were given."""
    names = (
        "literal_prompts", "clip_skip", "tileable", "init_image", "mask", "mask_blur",
        "invert_mask", "only_masked", "latents", "tokenizer", "prediction", "original_config",
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
    arguments = tyro.cli(Arguments, description=__doc__)
    try:
        print(run(arguments))
    except (ValueError, OSError) as error:
        print(f"sample.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
