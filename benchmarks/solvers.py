"""Quality against steps of every solver, on DigitScenes, by what the pictures show.

    python -m benchmarks.solvers --demo=runs/demo [--prompts=64] [--out=docs/solvers.png]

`make demo` trains the model and the rater. For each solver and number of network calls: the share
of captions that are right in every digit and colour, and the distance of the latents from those of
DDIM with 1000 steps from the same noise (root mean square, in standard deviations of the latents).
Stochastic solvers do not follow the same path, so of them only the captions are told. Writes the
plot, and beside it the numbers as JSON. Needs matplotlib (extra `docs`).
"""

import argparse
import json
from pathlib import Path
from typing import get_args

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from tqdm import tqdm

from ldm_jax import config as cfg
from ldm_jax.data import digit_scenes
from ldm_jax.evaluation.rater import Rater, accuracy
from ldm_jax.generation.defaults import resolve, solver
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.sampling.solvers import SamplerName, make_solver

SHOWN: tuple[SamplerName, ...] = (
    "ddim", "plms", "heun", "lms", "dpm_solver_3", "dpmpp_2m", "unipc_3", "deis",
    "ddpm", "euler_a", "dpmpp_2m_sde", "dpmpp_sde", "dpmpp_3m_sde",
)  # fmt: skip
STEPS = (2, 4, 8, 16, 32)
REFERENCE_STEPS = 1000
GUIDANCE = 2.0
BATCH = 32


def main() -> None:
    """Draws, measures, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"))
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("docs/solvers.png"))
    parser.add_argument("--samplers", nargs="+", choices=get_args(SamplerName), default=SHOWN)
    arguments = parser.parse_args()
    pipeline = Pipeline(arguments.demo / "text2img")
    rater = Rater.load(arguments.demo / "rater.npz")
    prompts = digit_scenes.held_out_prompts(arguments.prompts)
    base = cfg.Sampling(guidance_scale=GUIDANCE, batch_size=BATCH)

    def draw(sampler: str, steps: int) -> np.ndarray:
        sampling = cfg.Sampling(
            sampler=sampler, steps=steps, guidance_scale=GUIDANCE, batch_size=BATCH
        )
        return pipeline.generate(prompts, sampling=sampling, decode=False)

    def right(latents: np.ndarray) -> float:
        return accuracy(rater, pipeline.decode(latents, base.tile), prompts)["all"]

    reference = draw("ddim", REFERENCE_STEPS)
    print(f"DDIM with {REFERENCE_STEPS} steps: {right(reference)} of the captions are right")
    found = []
    for name in tqdm(arguments.samplers, desc="solvers"):
        for steps in STEPS:
            latents = draw(name, steps)
            distance = None
            if not make_solver(name).stochastic:
                distance = float(np.sqrt(np.mean((latents - reference) ** 2)) / reference.std())
            calls = network_calls(pipeline, cfg.Sampling(sampler=name, steps=steps))
            found.append({"sampler": name, "steps": steps, "calls": calls,
                          "accuracy": right(latents), "distance": distance})  # fmt: skip
            tqdm.write(json.dumps(found[-1]))
    arguments.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    plot(found, arguments.out)


def network_calls(pipeline: Pipeline, sampling: cfg.Sampling) -> int:
    """How often drawing asks the network."""
    sampling, _ = resolve(pipeline.config, sampling)
    return solver(pipeline.model.process, sampling).evaluations(sampling.steps)


def plot(found: list[dict], path: Path) -> None:
    """Captions that are right, and distance from the reference, against network calls."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), constrained_layout=True)
    names = list(dict.fromkeys(row["sampler"] for row in found))
    for number, name in enumerate(names):
        rows = [row for row in found if row["sampler"] == name]
        style = {
            "color": plt.cm.tab20(number % 20), "marker": "o", "markersize": 3, "label": name,
            "linestyle": "--" if rows[0]["distance"] is None else "-",
        }  # fmt: skip
        calls = [row["calls"] for row in rows]
        left.plot(calls, [row["accuracy"] for row in rows], **style)
        if rows[0]["distance"] is not None:
            right.plot(calls, [row["distance"] for row in rows], **style)
    left.set(ylabel="share of captions that are right", xscale="log")
    right.set(ylabel=f"distance from DDIM, {REFERENCE_STEPS} steps", xscale="log", yscale="log")
    for axes in (left, right):
        axes.set_xlabel("network calls")
        axes.grid(alpha=0.3)
    left.legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
