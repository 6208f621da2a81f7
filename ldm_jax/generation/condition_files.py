"""Files that say what is to be seen, such as a small picture or boxes, as a model takes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int

from ldm_jax import config as cfg
from ldm_jax.config.request import FILES
from ldm_jax.core.reading import FileFormatError, parse_json, read_text, shown
from ldm_jax.data.annotations import boxes_of
from ldm_jax.data.class_maps import read_class_map
from ldm_jax.data.depth_maps import read_depth_map
from ldm_jax.data.layout_tokens import layout_tokens
from ldm_jax.data.resampling import resize
from ldm_jax.images import masks


@dataclass(frozen=True, eq=False)
class Shown:
    """What a model is shown for all pictures of a drawing."""

    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    """By name, of one picture."""
    sides: tuple[int, int] | None = None
    """Height and width of the pictures that they are for; None: any."""
    scalable: Mapping[str, np.ndarray] = field(default_factory=dict)
    """By name, of one picture: what is brought to the size of the pictures, whatever that is."""

    @property
    def usual_sides(self) -> tuple[int, int] | None:
        """Height and width of the first of `scalable`; None where there is none."""
        return next((array.shape[:2] for array in self.scalable.values()), None)

    def scaled(self, config: cfg.Model, sides: tuple[int, int]) -> "Shown":
        """With what is scalable among the inputs, for pictures of these `sides`."""
        inputs, factor = dict(self.inputs), config.autoencoder.factor
        if "edit_image" in self.scalable:
            inputs["edit_image"] = masks.resize(self.scalable["edit_image"], *sides)
        if "depth" in self.scalable:
            small = tuple(-(-side // factor) for side in sides)
            inputs["depth"] = resize(self.scalable["depth"][..., None], small, "cubic")[..., 0]
        return Shown(inputs, self.sides)

    def padded(self, config: cfg.Model, sides: tuple[int, int]) -> "Shown":
        """The same for pictures of larger `sides`, continued at right and bottom by its edge."""
        if self.sides is None or self.sides == sides:
            return self
        inputs, factor = dict(self.inputs), config.autoencoder.factor
        more = [new - old for new, old in zip(sides, self.sides, strict=True)]
        scales = {"low_res": factor, "depth": factor, "class_map": 1, "edit_image": 1}
        for name, scale in scales.items():
            if name in inputs:
                after = [(0, count // scale) for count in more]
                rest = [(0, 0)] * (inputs[name].ndim - 2)
                inputs[name] = np.pad(inputs[name], after + rest, mode="edge")
        return Shown(inputs, sides)


def read_shown(config: cfg.Model, files: cfg.ConditionFiles) -> Shown:
    """What `files` say, for the model of `config`.

    Raises:
        cfg.ConfigError: a file that the model needs is not named, or one that it cannot take is.
        ValueError: a file that cannot be read, or does not fit; says which and why.
    """
    _check_named(config, files)
    inputs: dict[str, np.ndarray] = {}
    scalable: dict[str, np.ndarray] = {}
    sides: dict[str, tuple[int, int]] = {}
    for conditioner in config.conditioners:
        match conditioner:
            case cfg.LowResConditioner(noise=noise):
                inputs["low_res"] = masks.load_image(files.low_res)
                height, width = inputs["low_res"].shape[:2]
                factor = config.autoencoder.factor
                sides["low_res"] = height * factor, width * factor
                if noise is not None:
                    inputs["noise_level"] = _noise_level(noise, files.noise_level)
            case cfg.ClassMapConditioner(maps=maps):
                inputs["class_map"] = read_class_map(files.class_map, maps).astype(np.int16)
                sides["class_map"] = inputs["class_map"].shape
            case cfg.LayoutConditioner():
                inputs["boxes"] = read_boxes(files.boxes, conditioner)
            case cfg.EditConditioner():
                scalable["edit_image"] = masks.load_image(files.edit_image)
                inputs["edit_given"] = np.asarray(1, np.int32)
            case cfg.DepthConditioner():
                scalable["depth"] = read_depth_map(files.depth)
    if len({*sides.values()}) > 1:
        told = " and ".join(f"{name} {h}x{w}" for name, (h, w) in sides.items())
        raise cfg.ConfigError(f"the files are for pictures of different sizes: {told}")
    return Shown(inputs, next(iter(sides.values()), None), scalable)


def _check_named(config: cfg.Model, files: cfg.ConditionFiles) -> None:
    for name in FILES:
        takes, given = name in config.inputs, getattr(files, name) is not None
        if takes and not given:
            raise cfg.ConfigError(f"{name} is missing: a file that this model is conditioned on")
        if given and not takes:
            others = [n for n in FILES if n in config.inputs]
            raise cfg.ConfigError(
                f"{name} is given, but this model is not conditioned on it"
                + (f" but on {' and '.join(others)}" if others else "; leave it out")
            )
    if files.noise_level is not None and "noise_level" not in config.inputs:
        raise cfg.ConfigError(
            "noise_level is given, but this model was not trained with noise on its low-resolution "
            "pictures; leave it out"
        )


def _noise_level(noise: cfg.NoiseAugmentation, level: int | None) -> Int[np.ndarray, ""]:
    level = noise.usual_level if level is None else level
    if level >= noise.trained_levels:
        raise cfg.ConfigError(
            f"noise_level is {level}; this model was trained on levels 0 to "
            f"{noise.trained_levels - 1}"
        )
    return np.asarray(level, np.int32)


# ------------------------------------------------------------------------------------- boxes


def read_boxes(path: Path, conditioner: cfg.LayoutConditioner) -> Int[np.ndarray, " l"]:
    """The tokens of the boxes in a JSON file, which has one entry as `metadata.jsonl` has lines
    (`data.annotations`); a class is one of the model's names or, where it has none, its number.

    Raises:
        FileFormatError: anything else; says which box and why.
    """
    found = [*boxes_of(path, "the file", parse_json(path, "the file", read_text(path)))]
    count = conditioner.tokens.num_classes
    names = conditioner.class_names or tuple(map(str, range(count)))
    for number, (_, called, _) in enumerate(found, start=1):
        if called not in names:
            some = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
            raise FileFormatError(
                path, f"box {number} has the class {shown(called)}; this model has {some}"
            )
    boxes = np.array([box for box, _, _ in found]).reshape(-1, 4)
    classes = np.array([names.index(called) for _, called, _ in found], np.int64)
    flags = np.array([flags for _, _, flags in found], np.int64)
    try:
        return layout_tokens(boxes, classes, conditioner.tokens, flags=flags)
    except ValueError as error:
        raise FileFormatError(path, str(error)) from error
