"""What it costs to draw in parts, which can be watched and stopped, instead of as a whole.

    python -m benchmarks.parts --model=runs/demo/text2img --num=8
    python -m benchmarks.parts --model=FOLDER --size=256 --steps=4     as Stable Diffusion 1.5

FOLDER is one that `benchmarks.random_stable_diffusion` wrote. "parts" are those of `sample.py` and
the page, of about half a second; "steps" looks after every step.
"""

import dataclasses
from pathlib import Path

import tyro

from benchmarks.timing import in_turn, report
from ldm_jax import config as cfg
from ldm_jax.generation.pipeline import Pipeline


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compares drawing in parts with drawing as a whole."""

    model: Path
    num: int = 1
    size: int | None = None
    steps: int | None = None
    repeats: int = 7


def main(arguments: Arguments) -> None:
    """Prints medians, and the ratios to the whole."""
    pipeline = Pipeline(arguments.model)
    side = arguments.size
    sampling = cfg.Sampling(steps=arguments.steps, height=side, width=side)
    conditions = ["a red three alone"] if "caption" in pipeline.config.inputs else [None]
    plan = pipeline.plan(conditions, pipeline.resolve_sampling(sampling), num=arguments.num)

    def drawing(seconds: float | None):
        return lambda: [*pipeline.watch(plan, seconds=seconds)]

    found = in_turn(
        {"whole": drawing(None), "parts": drawing(0.5), "steps": drawing(0.0)}, arguments.repeats
    )
    for name in ("parts", "steps"):
        report(f"{arguments.model}, {arguments.num} images", found, name, "whole")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
