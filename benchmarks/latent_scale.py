"""Whether latents need unit variance for drawing larger than in training: an experiment after
Rombach 2022, section 4.3.2 and appendix D.1.

    python -m benchmarks.latent_scale --first_stage=runs/demo/autoencoder --out=runs/latent_scale

Trains `configs/digit_scenes_class_map.py` once for each of `--deviations`, on the same first stage,
whose latents are scaled to that standard deviation (Stable Diffusion's have 5.5 before they are
scaled), and measures with `benchmarks.picture_tasks` how class maps are obeyed: at the size of
training, and on twelve scenes as one picture, drawn as a whole and in tiles.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import picture_tasks
from ldm_jax import config as cfg
from ldm_jax import convert
from ldm_jax.cli.train import make_stage
from ldm_jax.convert.native import write_native
from ldm_jax.convert.parts import read_first_stage
from ldm_jax.core.files import write_atomically
from ldm_jax.core.sharding import make_mesh
from ldm_jax.data.sources import open_source
from ldm_jax.training.latent_statistics import measure_latents
from ldm_jax.training.loop import fit

CONFIG = Path(__file__).parent.parent / "configs" / "digit_scenes_class_map.py"


@dataclass(frozen=True)
class Arguments:
    """What to train and where."""

    first_stage: Path
    """Work directory of an autoencoder."""
    out: Path = Path("runs/latent_scale")
    deviations: tuple[float, ...] = (1.0, 2.0, 5.5)
    """Standard deviations of the scaled latents."""


def scaled(first_stage: Path, scale: float, folder: Path) -> Path:
    """The first stage, written as one whose latents are multiplied by `scale`."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        found = convert.load(first_stage)
        write_native(replace(found, config=replace(found.config, latent_scale=scale)), folder)
    return folder


def one(arguments: Arguments, deviation: float, std: float) -> dict[str, Any]:
    """Trains one model, unless it is there, and measures it."""
    run, folder = cfg.load(CONFIG), arguments.out / f"deviation_{deviation:g}"
    first_stage = scaled(arguments.first_stage, deviation / std, folder / "first_stage")
    workdir = folder / "class_map"
    if not (workdir / "checkpoints" / str(run.loop.steps)).is_dir():
        fit(run, workdir, lambda mesh: make_stage(run, workdir, mesh, str(first_stage)))
    report = picture_tasks.measure(picture_tasks.Arguments(workdir, folder))
    return {
        "deviation": deviation,
        "digits_right": report["drawn"]["share"],
        "iou": report["iou"],
        "large": report["large"]["iou"],
    }


def main() -> int:
    """Prints one row for each deviation, and writes OUT/report.json."""
    arguments = tyro.cli(Arguments, description=__doc__)
    run, stage = cfg.load(CONFIG), read_first_stage(str(arguments.first_stage))
    mesh = make_mesh(cfg.Mesh())
    std = measure_latents(stage, run, open_source(run.data, "train"), mesh).std
    rows = [one(arguments, deviation, float(np.float32(std))) for deviation in arguments.deviations]
    print("| deviation | digits right | IoU | IoU, twelve scenes as a whole | in tiles |")
    print("|---|---|---|---|---|")
    for row in rows:
        large = row["large"]
        print(f"| {row['deviation']:g} | {row['digits_right']:.2f} | {row['iou']:.2f} "
              f"| {large['whole']:.2f} | {large['tiles']:.2f} |")  # fmt: skip
    write_atomically(arguments.out / "report.json", json.dumps(rows, indent=1).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
