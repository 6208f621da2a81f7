"""Whether a transformer over codes draws the class maps it is given:
`python -m benchmarks.code_tasks --model=runs/map_codes [--out=map_codes]`.

Held-out scenes of DigitScenes are drawn from their class maps and measured as
`benchmarks.picture_tasks` measures diffusion models: digits that are right where the map has them,
and how far strokes lie where it has them, beside the same of the first stage's reconstructions of
the true pictures, which no transformer over its codes can exceed by much. OUT/scenes.png has class
map, drawing and true picture below each other, OUT/report.json the numbers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import UInt8

from benchmarks.picture_tasks import BATCH, SHOWN, held_out, share_right, stroke_iou
from ldm_jax import code_model
from ldm_jax import config as cfg
from ldm_jax.convert.code_models import load_code_model
from ldm_jax.core.files import write_atomically
from ldm_jax.evaluation.rater import train_rater
from ldm_jax.images.condition_views import view_of_class_map
from ldm_jax.images.grid import grid, save_png


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    model: Path
    """Work directory of a transformer over codes, conditioned on class maps of DigitScenes."""
    out: Path = Path("code_tasks")
    scenes: int = 384
    """Held-out scenes."""
    seed: int = 0
    sampling: cfg.CodeSampling = field(default_factory=cfg.CodeSampling)


def drawings(
    arguments: Arguments, model: Any, examples: Sequence[Any]
) -> tuple[UInt8[np.ndarray, "n h w 3"], UInt8[np.ndarray, "n h w 3"]]:
    """A picture of each class map, and what the first stage gives back of each true picture."""
    bundle = code_model.build(model.config)
    choice = code_model.choice_of(arguments.sampling, model.config)

    @jax.jit
    def program(params: Any, frozen: Any, maps: Any, images: Any, index: Any) -> Any:
        prefix = bundle.prefix(frozen, {"class_map": maps}, BATCH)
        codes = bundle.draw(params, prefix, arguments.seed, index, choice)
        given_back = bundle.images(frozen, bundle.codes(frozen, images))
        return bundle.images(frozen, codes), given_back

    found = []
    for first in range(0, len(examples), BATCH):
        places = np.resize(np.arange(first, min(first + BATCH, len(examples))), BATCH)
        maps, images = (
            jnp.asarray(np.stack([examples[i][name] for i in places]))
            for name in ("class_map", "image")
        )
        index = places.astype(np.uint32)
        found.append(jax.device_get(program(model.params, model.frozen, maps, images, index)))
    drawn, given_back = (np.concatenate(part)[: len(examples)] for part in zip(*found, strict=True))
    return drawn, given_back


def measure(arguments: Arguments) -> dict[str, Any]:
    """All numbers; writes the picture."""
    model = load_code_model(arguments.model)
    size, _ = model.config.sides
    examples = held_out(arguments.scenes, size, coloured=False)
    captions = [example["caption"] for example in examples]
    truth = np.stack([example["image"] for example in examples])
    drawn, given_back = drawings(arguments, model, examples)
    rater, report = train_rater(), {}
    for name, images in (("drawn", drawn), ("first_stage", given_back), ("true", truth)):
        right = share_right(rater, images, captions, None, colours=False)
        report[name] = right | {"iou": round(stroke_iou(images, examples), 4)}
    maps = np.stack([view_of_class_map(example["class_map"]) for example in examples[:SHOWN]])
    sheet = np.concatenate([maps, drawn[:SHOWN], truth[:SHOWN]])
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_png(arguments.out / "scenes.png", grid(sheet, SHOWN, scale=max(1, 64 // size)), {})
    return report | {"model": str(arguments.model), "scenes": arguments.scenes}


def main() -> None:
    """Measures, prints and writes."""
    arguments = tyro.cli(Arguments, description=__doc__)
    told = json.dumps(measure(arguments), indent=1)
    write_atomically(arguments.out / "report.json", told.encode())
    print(told)


if __name__ == "__main__":
    main()
