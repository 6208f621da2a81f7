"""Whether models of DigitScenes draw what they are conditioned on:
`python -m benchmarks.picture_tasks --model=runs/class_map [--out=class_map]`.

Held-out scenes are drawn from what the model is conditioned on, and read by the rater
(`ldm_jax.evaluation.rater`). Counted are digits, of which a scene has one to three, each at its
place: with a class map or boxes the right digit, in its colour where boxes have one; with a hole in
the picture over one of its digits the right digit and colour in the hole, as the caption says; from
a picture a quarter the size the right digit and colour, beside those of bicubic enlargement. A
class map is obeyed as far as strokes lie where it has them: intersection over union of all scenes.
Such a model also draws twelve scenes as one picture of three times four the size, as a whole and in
tiles of the size of training; seams are looked for where tiles meet: the mean step of brightness
there, beside the step in the same places of pictures drawn as a whole. OUT/scenes.png has
condition, drawing and true picture below each other, OUT/large.png the large pictures,
OUT/report.json the numbers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import UInt8
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax import convert
from ldm_jax import latent_diffusion as ldm
from ldm_jax.core.files import write_atomically
from ldm_jax.data import digit_scenes
from ldm_jax.data.input_views import views_of
from ldm_jax.data.inputs import InputMaker
from ldm_jax.data.loader import TASK_SEED, fit_example
from ldm_jax.data.tokenizer import read_tokenizer
from ldm_jax.evaluation.rater import Mark, train_rater
from ldm_jax.generation.tiles import TiledUNet
from ldm_jax.images.grid import grid, save_png
from ldm_jax.sampling.ancestral import DDIM
from ldm_jax.sampling.guidance import Guidance
from ldm_jax.sampling.levels import levels

BATCH, LARGE = 32, 16
SHOWN = 16
STROKE = 128
"""Brightness from which a drawn pixel is a stroke, as `digit_scenes` counts."""


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    model: Path
    """Work directory of a model that was trained on DigitScenes."""
    out: Path = Path("picture_tasks")
    scenes: int = 384
    """Held-out scenes."""
    steps: int = 25
    guidance: float = 2.0
    """Of models with something to guide away from."""
    seed: int = 0


def held_out(count: int, size: int, coloured: bool) -> list[dict[str, Any]]:
    """Scenes of the test split as the loader fits them; boxes are of coloured digits, or of digits
    of any colour."""
    data = cfg.Data(cfg.DigitScenes(), size, 1)
    found = []
    for index in range(count):
        scene = digit_scenes.example("test", index, size)
        example = {name: scene[name] for name in ("image", "caption", "label", "boxes", "classes")}
        example |= {"class_map": scene["class_map"].astype(np.int16), "name": f"test/{index}"}
        if coloured:
            example["classes"] = digit_scenes.coloured_classes(example["caption"])
        found.append(fit_example(example, data, None, index))
    return found


def with_hole(row: dict[str, np.ndarray], caption: str, number: int) -> dict[str, np.ndarray]:
    """The inputs of a scene with its digit of that number cut out, cell and all."""
    mask = np.zeros_like(row["mask"])
    scale = len(mask) // digit_scenes.CANVAS
    place = digit_scenes.places(digit_scenes.parse_caption(caption))[number]
    top, left, side = place.y * scale, place.x * scale, digit_scenes.CELL * scale
    mask[top : top + side, left : left + side] = 1
    return {**row, "mask": mask}


def draw(
    arguments: Arguments, bundle: Any, rows: Sequence[dict[str, Any]], examples: Sequence[Any],
    uncond: dict[str, Any],
) -> UInt8[np.ndarray, "n h w 3"]:  # fmt: skip
    """One picture for each row of inputs."""
    model = ldm.build(bundle.config)
    path = levels(model.process, arguments.steps, "trailing", "one")
    guidance = Guidance(scale=arguments.guidance if uncond else 1.0)

    @jax.jit
    def generate(params: Any, frozen: Any, inputs: Any, index: Any) -> Any:
        empty = {name: jnp.stack([value] * BATCH) for name, value in uncond.items()} or None
        return ldm.generate(
            model, params, frozen, inputs, empty, solver=DDIM(), levels=path, seed=arguments.seed,
            index=index, guidance=guidance, shape=model.latent_shape,
        )  # fmt: skip

    images = []
    for first in range(0, len(rows), BATCH):
        places = np.resize(np.arange(first, min(first + BATCH, len(rows))), BATCH)
        inputs = {name: np.stack([rows[i][name] for i in places]) for name in rows[0]}
        if "image" in model.config.inputs:
            inputs["image"] = np.stack([examples[i]["image"] for i in places])
        index = places.astype(np.uint32)
        images.append(np.asarray(generate(bundle.params, bundle.frozen, inputs, index)))
    return np.concatenate(images)[: len(rows)]


def draw_large(
    arguments: Arguments, bundle: Any, class_map: Any, tiled: bool
) -> UInt8[np.ndarray, "n h w 3"]:
    """LARGE pictures of one large class map, without guidance."""
    model = ldm.build(bundle.config)
    side = model.latent_shape[0]
    if tiled:
        model = replace(model, unet=TiledUNet(model.unet, side))
    generate = jax.jit(
        lambda params, frozen, inputs, index: ldm.generate(
            model, params, frozen, inputs, None, solver=DDIM(),
            levels=levels(model.process, arguments.steps, "trailing", "one"), seed=arguments.seed,
            index=index, guidance=Guidance(scale=1.0),
            shape=model.latent_shape_of(*class_map.shape),
        )
    )  # fmt: skip
    inputs = {"class_map": np.repeat(class_map[None], LARGE, axis=0)}
    return np.asarray(
        generate(bundle.params, bundle.frozen, inputs, np.arange(LARGE, dtype=np.uint32))
    )


def seams(whole: Any, tiled: Any, tile: int) -> dict[str, float]:
    """The mean step of brightness between the columns and rows where tiles meet, divided by that
    of pictures drawn as a whole; and the same of all other columns and rows."""
    steps = []
    for images in (whole, tiled):
        grey = images.astype(np.float32).mean(-1)
        across = np.abs(np.diff(grey, axis=2)).mean((0, 1))
        down = np.abs(np.diff(grey, axis=1)).mean((0, 2))
        meets = [np.arange(1, len(one) + 1) % (tile // 2) == tile // 4 for one in (across, down)]
        all_, where = np.concatenate([across, down]), np.concatenate(meets)
        steps.append((all_[where].mean(), all_[~where].mean()))
    (seam, other), (tiled_seam, tiled_other) = steps
    return {
        "where_tiles_meet": round(float(tiled_seam / seam), 3),
        "elsewhere": round(float(tiled_other / other), 3),
    }


def large(arguments: Arguments, bundle: Any) -> dict[str, Any]:
    """Draws and writes large.png; how the class map is obeyed, and the seam statistic."""
    size = bundle.config.sides[0]
    scenes = [digit_scenes.example("test", index, size) for index in range(1, 13)]
    class_map, truth = (
        np.concatenate([np.concatenate([s[name] for s in scenes[i : i + 4]], 1) for i in (0, 4, 8)])
        for name in ("class_map", "image")
    )
    drawn = [
        draw_large(arguments, bundle, class_map.astype(np.int16), tiled) for tiled in (False, True)
    ]
    sheet = np.stack([truth, *(images[0] for images in drawn)])
    save_png(arguments.out / "large.png", grid(sheet, 3, scale=max(1, 64 // size)), {})
    asked = [{"class_map": class_map}] * LARGE
    return {
        "iou": {
            how: round(stroke_iou(images, asked), 4)
            for how, images in zip(("whole", "tiles"), drawn, strict=True)
        },
        "steps_of_brightness_in_tiles": seams(*drawn, tile=size),
    }


def share_right(
    rater: Any, images: Any, captions: Sequence[str], holes: Sequence[int] | None, colours: bool
) -> dict[str, float]:
    """Of digits, or of those in holes, the share that is right, with its standard error."""
    right = []
    for row, (reading, caption) in enumerate(
        zip(rater.read(images, captions), captions, strict=True)
    ):
        things = digit_scenes.parse_caption(caption).things
        for number, (mark, thing) in enumerate(zip(reading.marks, things, strict=True)):
            if holes is not None and holes[row] != number:
                continue
            wanted = Mark(thing.digit, thing.colour if colours else mark.colour)
            right.append(mark == wanted)
    mean = float(np.mean(right))
    error = (mean * (1 - mean) / len(right)) ** 0.5
    return {"share": round(mean, 4), "standard_error": round(error, 4), "digits": len(right)}


def stroke_iou(images: Any, examples: Sequence[Any]) -> float:
    """Of pixels with a stroke in drawing or class map, the share that has one in both."""
    drawn = images.max(-1) >= STROKE
    asked = np.stack([example["class_map"] for example in examples]) > 0
    return float((drawn & asked).sum() / (drawn | asked).sum())


def bicubic(rows: Sequence[dict[str, Any]], size: int) -> UInt8[np.ndarray, "n h w 3"]:
    """The low-resolution pictures, enlarged."""
    kernel = Image.Resampling.BICUBIC
    pictures = [Image.fromarray(row["low_res"]).resize((size, size), kernel) for row in rows]
    return np.stack([np.asarray(picture) for picture in pictures])


def measure(arguments: Arguments) -> dict[str, Any]:
    """All numbers; writes the picture."""
    bundle = convert.load(arguments.model)
    model, (size, _) = bundle.config, bundle.config.sides
    text = cfg.find(model.conditioners, cfg.TextConditioner)
    tokenizer = None if text is None else read_tokenizer(bundle.tokenizer, text)
    inputs = InputMaker(model.conditioners, tokenizer, model.sides, model.autoencoder.factor)
    layout = cfg.find(model.conditioners, cfg.LayoutConditioner)
    coloured = layout is not None and layout.class_names == digit_scenes.COLOURED_DIGITS
    examples = held_out(arguments.scenes, size, coloured)
    captions = [example["caption"] for example in examples]
    rows = [dict(inputs(example, i, TASK_SEED)) for i, example in enumerate(examples)]
    holes = None
    if "mask" in model.inputs:
        counts = [len(example["classes"]) for example in examples]
        holes = [i % count for i, count in enumerate(counts)]
        rows = [with_hole(*one) for one in zip(rows, captions, holes, strict=True)]
    images = draw(arguments, bundle, rows, examples, inputs.uncond())
    truth = np.stack([example["image"] for example in examples])
    rater, colours = train_rater(), coloured or bool({"mask", "low_res"} & {*model.inputs})

    def score(images: Any) -> dict[str, float]:
        return share_right(rater, images, captions, holes, colours)

    report = {"drawn": score(images), "true_pictures": score(truth)}
    if "class_map" in model.inputs:
        report["iou"] = round(stroke_iou(images, examples), 4)
        report["iou_of_true_pictures"] = round(stroke_iou(truth, examples), 4)
    if "low_res" in model.inputs:
        report["bicubic"] = score(bicubic(rows, size))
    shown = [
        [*views_of(row, example["image"], model.conditioners, model.sides), image, example["image"]]
        for row, example, image in zip(rows[:SHOWN], examples, images, strict=False)
    ]
    sheet = np.stack(shown, axis=1).reshape(-1, size, size, 3)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if model.inputs == ("class_map",):
        report["large"] = large(arguments, bundle)
    save_png(arguments.out / "scenes.png", grid(sheet, SHOWN, scale=max(1, 64 // size)), {})
    return report | {
        "model": str(arguments.model),
        **vars(replace(arguments, model=None, out=None)),
    }


def main() -> None:
    """Measures, prints and writes."""
    arguments = tyro.cli(Arguments, description=__doc__)
    report = {k: v for k, v in measure(arguments).items() if v is not None}
    told = json.dumps(report, indent=1)
    write_atomically(arguments.out / "report.json", told.encode())
    print(told)


if __name__ == "__main__":
    main()
