"""The whole path in one command: data, both training stages, sampling, and a score for it."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ldm_jax import config as cfg
from ldm_jax.cli.train import make_stage
from ldm_jax.config.command_line import LineParser, check_given
from ldm_jax.core.files import check_writable, write_atomically
from ldm_jax.core.kept_memory import keep_freed_memory
from ldm_jax.core.reading import read_json
from ldm_jax.core.signals import at_end
from ldm_jax.core.stores import as_path
from ldm_jax.data import digit_scenes, digit_scenes_builder
from ldm_jax.data.sources import open_source
from ldm_jax.evaluation.first_stage_quality import reconstruct
from ldm_jax.evaluation.rater import Rater, accuracy, train_rater
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.images.grid import grid, save_png
from ldm_jax.training.loop import fit

CONFIGS = Path(__file__).parents[2] / "configs"
PROMPTS = 384
SHOWN = 24
REAL_SCENES = 512
SAMPLING = cfg.Sampling(steps=25, guidance_scale=2.0, batch_size=64)


class Clock:
    """Seconds of each part; parts that were finished before keep the seconds they took then."""

    def __init__(self, report: Path) -> None:
        self.seconds: dict[str, float] = {}
        if report.exists():
            before = read_json(report).get("seconds")
            self.seconds = dict(before) if isinstance(before, dict) else {}

    @contextmanager
    def part(self, name: str, done: Callable[[], bool]) -> Iterator[None]:
        """Times what runs inside, unless it was done already, and says which."""
        before, start = done(), time.perf_counter()
        print(f"--- {name}: {'already there' if before else 'starts'}", flush=True)
        yield
        if not before or name not in self.seconds:
            self.seconds[name] = round(time.perf_counter() - start, 1)


def finished(workdir: Path, steps: int) -> bool:
    """Whether the run in `workdir` has its last checkpoint."""
    return (workdir / "checkpoints" / str(steps)).is_dir()


def train(clock: Clock, name: str, config: str, out: Path, first_stage: Path | None = None) -> Path:
    """Trains the shipped config `config` in `out / name`, or goes on with it."""
    run, workdir = cfg.load(CONFIGS / config), out / name
    with clock.part(name, lambda: finished(workdir, run.loop.steps)):
        if not finished(workdir, run.loop.steps):
            model = first_stage and str(first_stage)
            fit(run, workdir, lambda mesh: make_stage(run, workdir, mesh, model))
    return workdir


def main(arguments: list[str]) -> None:
    """Runs what is missing and writes OUT/report.json and OUT/samples.png."""
    parser = LineParser(prog="demo.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=as_path, default=Path("runs/demo"))
    check_given(arguments, ("out",))
    out = parser.parse_args(arguments).out
    check_writable(out, f"--out={out}")
    out.mkdir(parents=True, exist_ok=True)
    report = out / "report.json"
    clock = Clock(report)
    start = time.perf_counter()
    keep_freed_memory()

    data = cfg.load(CONFIGS / "digit_scenes_demo.py").data
    scenes, *_ = cfg.sources_in(data.source)
    dataset = digit_scenes_builder.builder(scenes.data_dir, data.image_size)
    with clock.part("dataset", lambda: digit_scenes_builder.is_built(dataset)):
        open_source(data, "train")

    with clock.part("rater", (out / "rater.npz").exists):
        if not (out / "rater.npz").exists():
            train_rater().save(out / "rater.npz")
        rater = Rater.load(out / "rater.npz")
    images, captions = digit_scenes.pictures("test", REAL_SCENES, data.image_size)
    of_real = accuracy(rater, images, captions)

    autoencoder = train(clock, "autoencoder", "digit_scenes_autoencoder.py", out)
    reconstructions, measured = reconstruct(autoencoder, images)
    of_reconstructions = accuracy(rater, reconstructions, captions)
    decibels = float(measured.rows["psnr"].mean())

    text2img = train(clock, "text2img", "digit_scenes_demo.py", out, autoencoder)
    prompts = digit_scenes.held_out_prompts(PROMPTS)
    with (
        clock.part("sampling", lambda: False),
        tqdm(total=PROMPTS, unit="image", desc="sampling") as bar,
        at_end(bar.close),
    ):
        samples = Pipeline(text2img).generate(prompts, sampling=SAMPLING, progress=bar.update)
    of_samples = accuracy(rater, samples, prompts)

    labels = [f"{prompt}" for prompt in prompts[:SHOWN]]
    save_png(out / "samples.png", grid(samples[:SHOWN], 6, labels=labels, scale=8))
    np.savez_compressed(out / "samples.npz", images=samples, prompts=np.array(prompts))
    numbers = {
        "reconstruction_psnr": decibels,
        "reconstruction_accuracy": of_reconstructions,
        "caption_accuracy": of_samples,
        "rater_accuracy": of_real,
        "prompts": PROMPTS,
        "seconds": clock.seconds,
    }
    write_atomically(report, (json.dumps(numbers, indent=2) + "\n").encode())
    show(numbers, time.perf_counter() - start)
    print(f"report    {report}\npictures  {out / 'samples.png'}")


def show(numbers: dict, seconds: float) -> None:
    """Prints the report as a table."""
    print("\naccuracy of                      " + "".join(f"{k:>9}" for k in KINDS))
    for title, key in ROWS:
        print(f"{title:33}" + "".join(f"{numbers[key][k]:9.3f}" for k in KINDS))
    print(f"reconstruction PSNR {numbers['reconstruction_psnr']:.2f} dB")
    parts = ", ".join(f"{name} {s:.0f} s" for name, s in numbers["seconds"].items())
    print(f"time: {parts}; this run {seconds:.0f} s\n")


KINDS = ("single", "double", "triple", "all")
ROWS = (
    ("rater on real test scenes", "rater_accuracy"),
    ("rater on their reconstructions", "reconstruction_accuracy"),
    ("captions of held-out prompts", "caption_accuracy"),
)
