"""Pictures of classes that a model draws itself before it learns a subject, so that it does not
forget what it knew (Ruiz 2022, section 3.2)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.core.stores import as_path
from ldm_jax.data.concepts import concept_folders
from ldm_jax.data.folders import find_images
from ldm_jax.data.sources import DataError
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.images.grid import save_png

STEPS = 50
"""Of the pictures, as DreamBooth's scripts have it; guidance is the model's usual one."""
AT_ONCE = 8


def missing_class_images(source: cfg.DreamBooth) -> dict[str, tuple[Path, int]]:
    """For each of `class_prompts` the folder of its pictures and how many of these are missing."""
    root = as_path(source.class_path)
    folders = {prompt: folder for folder, (_, prompt) in concept_folders(root).items()}
    missing = {}
    for prompt in source.class_prompts:
        folder = folders.get(prompt, root / f"1_{prompt}")
        try:
            there = len(find_images(folder).names)
        except DataError:
            there = 0
        if there < source.class_images:
            missing[prompt] = folder, source.class_images - there
    return missing


def draw_class_images(
    pipeline: Pipeline,
    source: cfg.DreamBooth,
    sides: tuple[int, int],
    seed: int,
    progress: Callable[[int], None],
) -> None:
    """Draws what is missing of the pictures of classes, by the model as it is.

    A picture is a function of the seed and its number; those that are there already are kept, so
    that an interrupted start goes on. `progress` is told the number of pictures of each batch.

    Raises:
        cfg.ConfigError, ValueError, OSError: the model cannot draw them, or they cannot be written.
    """
    sampling = cfg.Sampling(
        steps=STEPS, seed=seed, height=sides[0], width=sides[1],
        batch_size=AT_ONCE,
    )  # fmt: skip
    for prompt, (folder, count) in missing_class_images(source).items():
        folder.mkdir(parents=True, exist_ok=True)
        first = source.class_images - count
        batches = pipeline.draw([prompt], sampling=sampling, num=count, first_image=first)
        for batch in batches:
            for row, image in zip(batch.rows.tolist(), batch.images, strict=True):
                number = _free(folder, first + row)
                save_png(folder / f"drawn_{number:06d}.png", np.asarray(image))
            progress(len(batch.rows))


def _free(folder: Path, number: int) -> int:
    """The first number from this one on that no file has."""
    while (folder / f"drawn_{number:06d}.png").exists():
        number += 1
    return number
