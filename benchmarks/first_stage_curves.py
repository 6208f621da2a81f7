"""Draws how runs of stage one went, from the metrics.jsonl of their work directories.

    python -m benchmarks.first_stage_curves NAME=WORKDIR [NAME=WORKDIR ...] --out=FILE.png

Runs whose names differ by what follows a comma ("KL, discriminator") share a colour; the second one
of them is dashed. Needs the extra `docs`.
"""

import argparse
import itertools
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

PANELS = {
    "validation_psnr": "PSNR of held-out images, dB",
    "nll": "L1 + L2 of the batch",
    "code_usage": "share of codes that a batch uses",
    "kl_per_image": "KL of an image, nats",
    "accuracy": "discriminator's accuracy",
    "adaptive_weight": "adaptive weight",
}
DISCRIMINATOR = ("accuracy", "adaptive_weight")
"""Zeros until the discriminator takes part, which are not drawn."""
LOGARITHMIC = ("nll", "kl_per_image", "adaptive_weight")


def series(workdir: Path, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    found = [(r["step"], r[name]) for r in map(json.loads, lines) if name in r]
    if name in DISCRIMINATOR:
        found = [(step, value) for step, value in found if value]
    return [step for step, _ in found], [value for _, value in found]


def main() -> None:
    """Writes the picture, one panel for each metric that any of the runs has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=WORKDIR")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    runs = {name: Path(path) for name, path in (run.rsplit("=", 1) for run in arguments.runs)}
    panels = [name for name in PANELS if any(series(path, name)[0] for path in runs.values())]
    figure, axes = plt.subplots(-(-len(panels) // 3), 3, figsize=(11, 2.9 * -(-len(panels) // 3)))
    colours, seen = {}, set()
    palette = itertools.cycle(plt.rcParams["axes.prop_cycle"].by_key()["color"])
    for label, path in runs.items():
        kind = label.split(",")[0]
        colour = colours.setdefault(kind, next(palette)) if kind not in colours else colours[kind]
        style = "--" if kind in seen else "-"
        seen.add(kind)
        for name, axis in zip(panels, axes.flat, strict=False):
            steps, values = series(path, name)
            if steps:
                axis.plot(steps, values, style, color=colour, label=label, linewidth=1.2)
    for name, axis in itertools.zip_longest(panels, axes.flat):
        if name is None:
            axis.set_axis_off()
            continue
        axis.set_title(PANELS[name], fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        if name in LOGARITHMIC:
            axis.set_yscale("log")
    handles = {}
    for axis in axes.flat:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="lower center", ncols=5, fontsize=8)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(arguments.out, dpi=90)


if __name__ == "__main__":
    main()
