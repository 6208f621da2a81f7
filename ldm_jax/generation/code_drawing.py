"""Pictures drawn code by code from a transformer over codes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from ldm_jax import code_model
from ldm_jax import config as cfg
from ldm_jax.config.checks import require, require_divisible
from ldm_jax.convert.taming import ImportedCodes


@dataclass(frozen=True)
class CodePicture:
    """A picture to be drawn. It depends on these, the seed and the settings, and on no other
    picture that is drawn with it."""

    number: int
    label: int | None
    """The class; None for models without."""


def check_pictures(
    config: cfg.CodeModel, pictures: Sequence[CodePicture], sides: tuple[int, int]
) -> None:
    """Raises ConfigError for what the model cannot draw: classes that it has not or needs, or
    another size. `sides` are height and width in pixels."""
    classes = 0 if config.condition is None else config.condition.num_classes
    for one in pictures:
        if one.label is None:
            require(not classes, "--classes", None, f"given: numbers from 0 to {classes - 1}")
        else:
            require(classes > 0, "--classes", one.label, "left out: this model has no classes")
            require(0 <= one.label < classes, "--classes", one.label, f"from 0 to {classes - 1}")
    require_divisible("the size", sides, config.autoencoder.factor, "the first stage's factor")
    require(
        all(side >= least for side, least in zip(sides, config.sides, strict=True)),
        "the size", sides, "at least {} x {}, that of the training images".format(*config.sides),
    )  # fmt: skip


def draw_pictures(
    model: ImportedCodes,
    pictures: Sequence[CodePicture],
    sampling: cfg.CodeSampling,
    seed: int,
    sides: tuple[int, int] | None = None,
    batch_size: int = 16,
    dtype: str = "float32",
) -> Iterator[tuple[CodePicture, UInt8[np.ndarray, "h w 3"]]]:
    """The pictures in their order; in programs of `batch_size` rows, of which none depends on
    another.

    Args:
        model: as `convert.code_models.load_code_model` gives it.
        pictures: which.
        sampling: how codes are drawn.
        seed: of all random numbers.
        sides: height and width in pixels; None: those of training images. Larger pictures are
            drawn in windows of these.
        batch_size: pictures at once.
        dtype: what networks compute in.

    Raises:
        ConfigError: as `check_pictures`.
    """
    config = model.config
    sides = config.sides if sides is None else sides
    check_pictures(config, pictures, sides)
    bundle = code_model.build(config, dtype)
    factor = config.autoencoder.factor
    grid = sides[0] // factor, sides[1] // factor
    program = jax.jit(partial(_drawn, bundle, grid))
    params, frozen = jax.device_put((model.params, model.frozen))
    choice = code_model.choice_of(sampling, config)
    for first in range(0, len(pictures), batch_size):
        batch = pictures[first : first + batch_size]
        full = [batch[min(i, len(batch) - 1)] for i in range(min(batch_size, len(pictures)))]
        numbers = jnp.asarray([one.number for one in full], jnp.uint32)
        labels = jnp.asarray([one.label or 0 for one in full], jnp.int32)
        drawn = np.asarray(program(params, frozen, jnp.uint32(seed), numbers, labels, choice))
        yield from zip(batch, drawn, strict=False)


def _drawn(
    bundle: code_model.CodeModel,
    grid: tuple[int, int],
    params: Any,
    frozen: Any,
    seed: Any,
    numbers: Any,
    labels: Any,
    choice: code_model.Choice,
) -> Any:
    prefix = bundle.prefix({"label": labels}, labels.shape[0])
    codes = bundle.draw(params, prefix, seed, numbers, choice, grid)
    return bundle.images(frozen, codes)
