"""Trains and draws the same with 1, 2 and 4 processes, over which each axis of the mesh reaches in
turn, and says how far curves, parameters and pictures are from those of one process:

    python -m benchmarks.processes --out=runs/processes [--steps=20]

The processes are on this machine, one CPU device each, and train DigitScenes' text-to-image model
on a first stage that is trained before. --within says how each process is begun, and --host where
process 0 is found, for instance in two network namespaces n0 and n1 that are joined by a pair of
virtual cards:

    python -m benchmarks.processes --out=runs/namespaces --counts 1 2 --host=10.77.0.1 \
        --within "ip netns exec n0" "ip netns exec n1"
"""

from pathlib import Path

import jax
import numpy as np
import tyro
from PIL import Image

from benchmarks.together import log_of, start, start_train
from ldm_jax.training.curves import read_metrics
from ldm_jax.workdir.checkpoints import Checkpoints

AXES = ("data", "fsdp", "tensor")
LONGEST = 1800
"""Seconds that a run may take."""
PROMPTS = ("a red three", "a green seven and a blue one", "a yellow zero")


def main(
    out: Path, steps: int = 20, counts: tuple[int, ...] = (1, 2, 4), data_dir: str = "data",
    host: str = "localhost", within: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """`counts`: numbers of processes; the first one is what the others are compared with."""
    usual = (
        f"--data.source.data_dir={data_dir}", "--loop.log_every=1", "--loop.validate_every=1000000",
    )  # fmt: skip
    first_stage = _train(
        out / "first_stage", 1,
        (*usual, "--config=digit_scenes_autoencoder", "--loop.steps=100"),
    )  # fmt: skip
    options = (
        *usual, "--config=digit_scenes_text2img", f"--first_stage={first_stage}",
        f"--loop.steps={steps}", f"--loop.sample_every={steps}", f"--loop.checkpoint_every={steps}",
    )  # fmt: skip
    expected = None
    print("| processes | mesh | loss | gradient norm | parameters | drawn while training |")
    print("|---|---|---|---|---|---|")
    for count in counts:
        for axis in AXES[: 1 if count == 1 else None]:
            mesh = [f"--mesh.{name}={count if name == axis else 1}" for name in AXES]
            workdir = out / f"{axis}_{count}"
            _train(workdir, count, (*options, *mesh), host, within)
            expected = expected or workdir
            curves = [_apart(*(_curve(one, name) for one in (workdir, expected)))
                      for name in ("loss", "gradient_norm")]  # fmt: skip
            params = max(np.abs(a - b).max() for a, b in zip(
                *(_params(one) for one in (workdir, expected)), strict=True))  # fmt: skip
            print(f"| {count} | {axis} {count} | {curves[0]:.1e} | {curves[1]:.1e} | {params:.1e} "
                  f"| {_pictures_apart(workdir, expected)} |", flush=True)  # fmt: skip
    for count in counts:
        _draw(out / f"drawn_{count}", count, expected)
        same = _same_files(out / f"drawn_{count}", out / f"drawn_{counts[0]}")
        print(f"\nsample.py with {count} processes: {'the same' if same else 'other'} files")


def _train(
    workdir: Path, count: int, options: tuple[str, ...], host: str = "localhost",
    within: tuple[str, ...] = (),
) -> Path:  # fmt: skip
    if not (workdir / "checkpoints").is_dir():
        _wait(start_train(workdir, count, options, host, within), workdir)
    return workdir


def _draw(folder: Path, count: int, model: Path) -> None:
    """With `sample.py` in so many processes, which share the batches."""
    command = ("sample.py", f"--model={model}", "--prompt", *PROMPTS, "--num=5", "--batch_size=4",
               "--steps=10", "--seed=3", f"--out={folder}")  # fmt: skip
    places = [(f"--num_processes={count}", f"--process_id={i}") for i in range(count)]
    started = [start((*command, *place), folder, i) for i, place in enumerate(places)]
    _wait(started, folder)


def _wait(started: list, folder: Path) -> None:
    statuses = [one.wait(LONGEST) for one in started]
    if any(statuses):
        raise SystemExit(f"ended with {statuses}; see {log_of(folder, 0)} and its like")


def _curve(workdir: Path, name: str) -> np.ndarray:
    records = read_metrics(workdir / "metrics.jsonl")
    return np.array([record[name] for record in records if name in record])


def _apart(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a share of what is expected."""
    return float(np.max(np.abs(found - expected) / np.abs(expected)))


def _params(workdir: Path) -> list[np.ndarray]:
    return jax.tree.leaves(Checkpoints.load_params(workdir, "raw")[1])


def _pictures_apart(workdir: Path, expected: Path) -> str:
    """How many values of the pictures of training differ, and by how many grey levels."""
    values, changed, largest = 0, 0, 0
    for path in sorted((expected / "samples").iterdir()):
        one, other = (np.asarray(Image.open(folder / "samples" / path.name), int)
                      for folder in (workdir, expected))  # fmt: skip
        values += one.size
        changed += int((one != other).sum())
        largest = max(largest, int(np.abs(one - other).max()))
    return f"{changed} of {values} values differ, by {largest} levels at most"


def _same_files(one: Path, other: Path) -> bool:
    names = [sorted(path.name for path in folder.iterdir()) for folder in (one, other)]
    return names[0] == names[1] and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names[0]
    )


if __name__ == "__main__":
    tyro.cli(main)
