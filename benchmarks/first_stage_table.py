"""Measures trained first stages on the images that their runs kept for validation, and shows them.

    python -m benchmarks.first_stage_table NAME=WORKDIR [NAME=WORKDIR ...] --out=FILE.png

Prints a row for each: PSNR, SSIM and codes of all those images (of 1024 at most), and the
discriminator's accuracy when it began and at the end. The picture has the originals in its first
row and what each first stage makes of them in the following ones; all must have been trained on the
same images.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert.parts import read_first_stage
from ldm_jax.data.loader import in_order
from ldm_jax.data.sources import open_source
from ldm_jax.evaluation.first_stage_quality import FirstStageProgram, Measurement, measure
from ldm_jax.images.grid import grid, save_png

IMAGES = 1024
READ = 5
"""Logged steps whose mean is the discriminator's accuracy at the beginning and at the end."""


def measured(workdir: Path, keep: int) -> Measurement:
    """The first stage of `workdir` on its validation images; `keep` of them are kept."""
    run = cfg.from_json((workdir / "config.json").read_text())
    source = open_source(run.data, "validation")
    examples = in_order(source, run.data, range(min(IMAGES, len(source))))
    program = FirstStageProgram(read_first_stage(workdir), run.data.batch_size)
    return measure(program, (example["image"] for example in examples), keep)


def accuracies(workdir: Path) -> tuple[float, float] | None:
    """The discriminator's accuracy at first and at last, or None if it never took part."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    found = [r["accuracy"] for r in map(json.loads, lines) if r.get("accuracy")]
    return (np.mean(found[:READ]), np.mean(found[-READ:])) if found else None


def row(name: str, report: dict[str, Any], discriminator: tuple[float, float] | None) -> str:
    """One line of a Markdown table."""
    usage = report["codebook_usage"]
    cells = [
        name, f"{report['psnr']['mean']:.2f}", f"{report['ssim']['mean']:.3f}",
        "" if report["kl"] is None else f"{report['kl']['mean']:.0f}",
        "" if usage is None else f"{100 * usage:.1f} %",
        "" if usage is None else f"{report['codebook_perplexity']:.0f}",
        "" if discriminator is None else "{:.2f} → {:.2f}".format(*discriminator),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the table and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=WORKDIR")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shown", type=int, nargs="+", default=list(range(8)),
                        help="numbers of the images in the picture")  # fmt: skip
    parser.add_argument("--scale", type=int, default=2, help="pixels of the picture for each")
    arguments = parser.parse_args()
    print(
        "| run | PSNR, dB | SSIM | KL, nats | codes used | perplexity | discriminator's accuracy |"
    )
    print("|---|---|---|---|---|---|---|")
    rows = []
    for name, workdir in (run.rsplit("=", 1) for run in arguments.runs):
        found = measured(Path(workdir), max(arguments.shown) + 1)
        print(row(name, found.report(), accuracies(Path(workdir))), flush=True)
        rows = rows or [found.images[arguments.shown]]
        rows.append(found.reconstructions[arguments.shown])
    picture = grid(np.concatenate(rows), len(arguments.shown), scale=arguments.scale)
    save_png(arguments.out, picture)


if __name__ == "__main__":
    main()
