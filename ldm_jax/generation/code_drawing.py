"""Pictures drawn code by code from a transformer over codes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from ldm_jax import code_model
from ldm_jax import config as cfg
from ldm_jax.config.checks import require
from ldm_jax.convert.imported_codes import ImportedCodes
from ldm_jax.generation.code_conditions import CodeCondition


@dataclass(frozen=True)
class CodePicture:
    """A picture to be drawn. It depends on these, the seed and the settings, and on no other
    picture that is drawn with it."""

    number: int
    label: int | None
    """The class; None for models without."""


def check_pictures(config: cfg.CodeModel, pictures: Sequence[CodePicture]) -> None:
    """Raises ConfigError for what the model cannot draw: classes that it has not, or needs."""
    condition = config.condition
    classes = condition.num_classes if isinstance(condition, cfg.ClassPrefix) else 0
    for one in pictures:
        if one.label is None:
            require(not classes, "--classes", None, f"given: numbers from 0 to {classes - 1}")
        else:
            require(classes > 0, "--classes", one.label, "left out: this model has no classes")
            require(0 <= one.label < classes, "--classes", one.label, f"from 0 to {classes - 1}")


def draw_pictures(
    model: ImportedCodes,
    pictures: Sequence[CodePicture],
    sampling: cfg.CodeSampling,
    seed: int,
    condition: CodeCondition,
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
        condition: as `read_condition` gives it, with the size. Pictures larger than the training
            images are drawn in windows of these.
        batch_size: pictures at once.
        dtype: what networks compute in.

    Raises:
        ConfigError: as `check_pictures`.
    """
    config = model.config
    check_pictures(config, pictures)
    bundle = code_model.build(config, dtype)
    factor = config.autoencoder.factor
    grid = condition.drawn[0] // factor, condition.drawn[1] // factor
    program = jax.jit(partial(_drawn, bundle, grid))
    params, frozen, shared = jax.device_put((model.params, model.frozen, dict(condition.inputs)))
    height, width = condition.shown
    choice = code_model.choice_of(sampling, config)
    for first in range(0, len(pictures), batch_size):
        batch = pictures[first : first + batch_size]
        full = [batch[min(i, len(batch) - 1)] for i in range(min(batch_size, len(pictures)))]
        numbers = jnp.asarray([one.number for one in full], jnp.uint32)
        labels = jnp.asarray([one.label or 0 for one in full], jnp.int32)
        drawn = program(params, frozen, jnp.uint32(seed), numbers, labels, shared, choice)
        yield from zip(batch, np.asarray(drawn)[:, :height, :width], strict=False)


def _drawn(
    bundle: code_model.CodeModel,
    grid: tuple[int, int],
    params: Any,
    frozen: Any,
    seed: Any,
    numbers: Any,
    labels: Any,
    shared: Mapping[str, Any],
    choice: code_model.Choice,
) -> Any:
    rows = labels.shape[0]
    if shared:  # encoded once for all pictures
        one = bundle.prefix(frozen, {name: value[None] for name, value in shared.items()}, 1)
        prefix = jnp.broadcast_to(one, (rows, one.shape[1]))
    else:
        prefix = bundle.prefix(frozen, {"label": labels}, rows)
    codes = bundle.draw(params, prefix, seed, numbers, choice, grid)
    return bundle.images(frozen, codes)
