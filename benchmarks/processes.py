"""Trains and draws the same with 1, 2 and 4 processes, over which each axis of the mesh reaches in
turn, and says how far curves and parameters are from those of one process, and whether the
pictures are the same:

    python -m benchmarks.processes --out=runs/processes [--steps=20]

The processes are on this machine, one CPU device each, and train a small text-to-image model of
DigitScenes' pixels. --within says how each process is begun, and --host where process 0 is found,
for instance in two network namespaces n0 and n1 that are joined by a pair of virtual cards:

    python -m benchmarks.processes --out=runs/namespaces --counts 1 2 --host=10.77.0.1 \
        --within "ip netns exec n0" "ip netns exec n1"
"""

from pathlib import Path

import jax
import numpy as np
import tyro

from benchmarks.together import log_of, start, start_train
from ldm_jax import config as cfg
from ldm_jax.training.curves import read_metrics
from ldm_jax.workdir.checkpoints import Checkpoints

AXES = ("data", "fsdp", "tensor")
LONGEST = 1800
"""Seconds that a run may take."""
CONFIG = """from ldm_jax import config


def get_config():
    return config.from_json({run!r})
"""
PROMPTS = ("a red three", "a green seven above a blue one", "a yellow zero")


def main(
    out: Path, steps: int = 20, counts: tuple[int, ...] = (1, 2, 4), data_dir: str = "data",
    host: str = "localhost", within: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """`counts`: numbers of processes; the first one is what the others are compared with."""
    out.mkdir(parents=True, exist_ok=True)
    config = out / "config.py"
    config.write_text(CONFIG.format(run=cfg.to_json(_run(steps, data_dir))))
    expected = None
    print("| processes | mesh | loss | gradient norm | parameters |")
    print("|---|---|---|---|---|")
    for count in counts:
        for axis in AXES[: 1 if count == 1 else None]:
            mesh = [f"--config={config}"] + [
                f"--mesh.{name}={count if name == axis else 1}" for name in AXES
            ]
            workdir = out / f"{axis}_{count}"
            _train(workdir, count, tuple(mesh), host, within)
            expected = expected or workdir
            curves = [_apart(*(_curve(one, name) for one in (workdir, expected)))
                      for name in ("loss", "gradient_norm")]  # fmt: skip
            params = max(np.abs(a - b).max() for a, b in zip(
                *(_params(one) for one in (workdir, expected)), strict=True))  # fmt: skip
            apart = " | ".join(f"{one:.1e}" for one in (*curves, params))
            print(f"| {count} | {axis} {count} | {apart} |", flush=True)
    for count in counts:
        _draw(out / f"drawn_{count}", count, expected)
        same = _same_files(out / f"drawn_{count}", out / f"drawn_{counts[0]}")
        print(f"\nsample.py with {count} processes: {'the same' if same else 'other'} files")


def _run(steps: int, data_dir: str) -> cfg.DiffusionRun:
    encoder = cfg.TextTransformer(
        vocab_size=64, max_length=16, width=64, layers=1, num_heads=4, pooled_dim=64
    )
    return cfg.DiffusionRun(
        data=cfg.Data(cfg.DigitScenes(data_dir=data_dir), image_size=16, batch_size=16),
        unet=cfg.UNet(
            block_out_channels=(32, 64), layers_per_block=1, attention=(False, True),
            num_heads=(4, 4), norm_num_groups=8, patch_size=2,
        ),
        conditioners=(cfg.TextConditioner(encoder=encoder, dropout=0.1),),
        diffusion=cfg.Diffusion(cfg.Discrete(schedule="cosine"), prediction="v"),
        optim=cfg.Optim(learning_rate=1e-3),
        space="pixels",
        loop=cfg.Loop(
            steps=steps, log_every=1, checkpoint_every=steps, sample_every=0, validate_every=steps,
            validation_batches=1,
        ),
    )  # fmt: skip


def _train(
    workdir: Path, count: int, options: tuple[str, ...], host: str, within: tuple[str, ...]
) -> None:
    _wait(start_train(workdir, count, options, host, within), workdir)


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


def _same_files(one: Path, other: Path) -> bool:
    names = [sorted(path.name for path in folder.iterdir()) for folder in (one, other)]
    return names[0] == names[1] and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names[0]
    )


if __name__ == "__main__":
    tyro.cli(main)
