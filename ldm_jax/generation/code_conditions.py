"""What pictures of a transformer over codes are to show, beside classes: class maps and depth from
files, and coordinates."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.config.checks import require
from ldm_jax.data.class_maps import read_class_map
from ldm_jax.data.coordinates import whole_coordinates
from ldm_jax.data.depth_maps import read_depth_map, to_unit_range


@dataclass(frozen=True, eq=False)
class CodeCondition:
    """What all pictures of a drawing share."""

    inputs: Mapping[str, np.ndarray]
    """By name, of one picture; {} for models of classes and unconditional ones."""
    drawn: tuple[int, int]
    """Height and width in pixels of what is drawn: whole codes."""
    shown: tuple[int, int]
    """Height and width of the part at top and left that is kept."""


def read_condition(
    config: cfg.CodeModel,
    class_map: Path | None = None,
    depth: Path | None = None,
    height: int | None = None,
    width: int | None = None,
) -> CodeCondition:
    """What the files say, for pictures of their size, or those of `height` and `width` pixels, by
    default the training images'.

    A file's picture is continued at right and bottom by its edge to whole codes.

    Raises:
        cfg.ConfigError: a file that the model needs is not named, one that it cannot take is, or
            a size that it cannot draw.
        FileFormatError: a file that cannot be read, or that has another form.
    """
    kinds = {cfg.ClassMapPrefix: "class_map", cfg.DepthPrefix: "depth"}
    wanted = kinds.get(type(config.condition))
    files = {"class_map": class_map, "depth": depth}
    for name, path in files.items():
        if name == wanted:
            require(path is not None, f"--{name}", None, "a file: this model is conditioned on it")
        else:
            require(path is None, f"--{name}", path and str(path),
                    "left out: this model is not conditioned on it")  # fmt: skip
    if wanted is None:
        return _of_size(config, (height or config.sides[0], width or config.sides[1]))
    for name, side in (("--height", height), ("--width", width)):
        require(side is None, name, side, f"left out: pictures have the size of --{wanted}")
    path, condition = files[wanted], config.condition
    if isinstance(condition, cfg.ClassMapPrefix):
        found = read_class_map(path, condition.maps).astype(np.int16)
    else:
        found = to_unit_range(read_depth_map(path))
    return _padded(config, wanted, found)


def _of_size(config: cfg.CodeModel, sides: tuple[int, int]) -> CodeCondition:
    factor = config.autoencoder.factor
    cfg.require_divisible("the size", sides, factor, "the first stage's factor")
    _check_size(config, sides)
    inputs = {}
    if isinstance(config.condition, cfg.CoordinatePrefix):
        inputs["coordinates"] = whole_coordinates(sides, factor, config.condition.size)
    return CodeCondition(inputs, sides, sides)


def _padded(config: cfg.CodeModel, name: str, found: np.ndarray) -> CodeCondition:
    sides = found.shape
    _check_size(config, sides)
    more = [(0, -side % config.autoencoder.factor) for side in sides]
    padded = np.pad(found, more, mode="edge")
    return CodeCondition({name: padded}, padded.shape, sides)


def _check_size(config: cfg.CodeModel, sides: tuple[int, int]) -> None:
    require(
        all(side >= least for side, least in zip(sides, config.sides, strict=True)),
        "the size", sides, "at least {} x {}, that of the training images".format(*config.sides),
    )  # fmt: skip
