"""Draws pictures with a trained model: `python sample.py --model=WORKDIR --prompt=CAPTION`."""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class Arguments:
    """Draws pictures with a trained model and says in each file how it was made."""

    model: Path
    """Work directory of a trained diffusion model."""
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
    num: int = 1
    """Pictures for each prompt or class."""
    sampler: Literal["ddim", "ddpm", "plms", "euler", "euler_a", "heun", "dpmpp_2m"] = "ddim"
    steps: int = 50
    """Solver steps."""
    guidance: float = 3.0
    """Scale of classifier-free guidance; 1 is none."""
    eta: float | None = None
    """Share of fresh noise of ddim (0, deterministic, by default) and euler_a (1)."""
    spacing: Literal["trailing", "leading", "linspace", "quad", "karras"] | None = None
    """Which noise levels the solver visits; each sampler has a default of its own."""
    seed: int = 0
    batch_size: int = 32
    """Pictures drawn at a time; smaller needs less memory."""
    weights: Literal["ema", "raw"] = "ema"
    """The parameter average, or the parameters as trained last."""
    overwrite: bool = False
    """Write into a folder that has files already."""


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


def run(arguments: Arguments) -> Path:
    """Draws and writes everything; returns the path of the grid."""
    if arguments.num < 1:
        raise ValueError(f"--num={arguments.num}: it must be 1 or more")
    conditions = read_conditions(arguments)
    if arguments.negative_prompt is not None and arguments.guidance == 1:
        raise ValueError("--negative_prompt needs --guidance; at 1 there is none to lead away")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out={arguments.out} is a file; name a folder")
    if arguments.out.exists() and any(arguments.out.iterdir()) and not arguments.overwrite:
        raise ValueError(f"--out={arguments.out} is not empty; choose another, or --overwrite")

    # JAX starts only now, so that --help and mistakes answer at once.
    import numpy as np
    from tqdm import tqdm

    from ldm_jax.pictures import grid, save_png
    from ldm_jax.pipeline import IMAGES_PER_PROMPT, Pipeline, Sampling, versions
    from ldm_jax.training.files import write_atomically

    sampling = Sampling(
        sampler=arguments.sampler, steps=arguments.steps, guidance_scale=arguments.guidance,
        eta=arguments.eta, spacing=arguments.spacing, seed=arguments.seed,
        batch_size=arguments.batch_size,
    ).settled()  # fmt: skip
    pipeline = Pipeline(arguments.model, weights=arguments.weights)
    if max(arguments.num, len(conditions)) > IMAGES_PER_PROMPT:
        raise ValueError(
            f"--num={arguments.num} for {len(conditions)} prompts; at most {IMAGES_PER_PROMPT} of "
            "each have noise of their own"
        )
    pipeline.check_conditions(conditions)
    pipeline.check_conditions([arguments.negative_prompt])
    arguments.out.mkdir(parents=True, exist_ok=True)
    numbers = [(p, j) for p in range(len(conditions)) for j in range(arguments.num)]
    index = np.array([p * IMAGES_PER_PROMPT + j for p, j in numbers], np.uint32)
    wanted = [conditions[p] for p, _ in numbers]
    with tqdm(total=len(wanted), unit="image", desc="sampling") as bar:
        images = pipeline.generate(
            wanted, index, sampling=sampling, negative=arguments.negative_prompt,
            progress=bar.update,
        )  # fmt: skip

    _remove_former(arguments.out)
    settings = asdict(sampling) | {
        "model": str(arguments.model), "step": pipeline.step, "weights": arguments.weights,
        "negative_prompt": arguments.negative_prompt,
    }  # fmt: skip
    files = []
    for image, condition, (p, j) in zip(images, wanted, numbers, strict=True):
        name = f"{p:04d}_{j:04d}.png"
        here = settings | {"condition": condition, "prompt_number": p, "image_number": j}
        save_png(arguments.out / name, image, {"ldm_jax": json.dumps(here)})
        digest = hashlib.sha256((arguments.out / name).read_bytes()).hexdigest()
        files.append({"file": name, "condition": condition, "image": j, "sha256": digest})
    manifest = {"settings": settings, "versions": versions(), "images": files}
    write_atomically(
        arguments.out / "manifest.json", (json.dumps(manifest, indent=2) + "\n").encode()
    )
    labels = None if wanted == [None] * len(wanted) else [str(c) for c in wanted]
    scale = max(1, 128 // images.shape[1])
    columns = min(8, arguments.num if arguments.num > 1 else len(wanted))
    save_png(arguments.out / "grid.png", grid(images, columns, labels=labels, scale=scale))
    return arguments.out / "grid.png"


def _remove_former(out: Path) -> None:
    """Deletes the pictures that a former manifest in `out` lists, and nothing else."""
    manifest = out / "manifest.json"
    if manifest.exists():
        for picture in json.loads(manifest.read_text())["images"]:
            (out / Path(picture["file"]).name).unlink(missing_ok=True)
        manifest.unlink()


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
