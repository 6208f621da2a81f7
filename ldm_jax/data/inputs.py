"""Examples as the named inputs that a model's conditioners take, and what is unconditional."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int16, Int32, UInt8

from ldm_jax import config as cfg
from ldm_jax.config.conditioning import ENCODED_CAPTION
from ldm_jax.data.caption_tags import changed_tags
from ldm_jax.data.class_maps import read_class_map
from ldm_jax.data.coordinates import coordinate_tokens
from ldm_jax.data.degradation import degrade
from ldm_jax.data.depth_maps import read_depth_map, to_unit_range
from ldm_jax.data.edges import canny_edges
from ldm_jax.data.hole_masks import draw_mask
from ldm_jax.data.layout_tokens import box_map, empty_layout, layout_tokens
from ldm_jax.data.random_stream import RandomStream
from ldm_jax.data.sources import DataError, Example, Source
from ldm_jax.data.taught_words import TaughtWords
from ldm_jax.data.tokenizer import Tokenizer
from ldm_jax.images.picture_files import picture_sides

Inputs = Mapping[str, np.ndarray]
"""Arrays by the input's name: `caption` int32 [l], `caption_states` [l d] and `caption_pooled` [p]
where a text encoder has read it before, `label` int32 [], `mask` uint8 [h w 1],
`low_res` uint8 [zh zw 3], `noise_level` int32 [], `class_map` int16 [h w], `boxes` int32 [l]
(tokens), `box_map` int16 [h w], `edit_image` uint8 [h w 3], `edit_given` int32 [] (1, or 0 for
none), `size` int32 [6] (as `Crop.told`), `hint` uint8 [h w 3], `depth` float32 [zh zw],
`coordinates` int32 [zh zw] (tokens)."""


class InputMaker:
    """Makes the inputs of one example at a time; calling it is a pure function."""

    def __init__(
        self,
        conditioners: Sequence[cfg.Reader],
        tokenizer: Tokenizer | None,
        sides: tuple[int, int] = (1, 1),
        factor: int = 1,
        control: cfg.ControlNet | None = None,
        taught: TaughtWords | None = None,
    ) -> None:
        """Of images with these `sides`, whose latents are `factor` times smaller; with hints for
        `control`, and captions of the words that are `taught`."""
        self._control, self._taught = control, taught
        self._conditioners, self._tokenizer = tuple(conditioners), tokenizer
        self._sides, self._factor = sides, factor

    def __call__(self, example: Example, position: int, seed: int) -> Inputs:
        """The inputs of all conditioners, for an example as the loader has fitted it.

        What is random is drawn from the example's own streams of `seed`. The image itself, which
        some conditioners read, is no input: a batch has it already.
        """

        def stream(name: str) -> RandomStream:
            return RandomStream(seed, position, name)

        made: dict[str, np.ndarray] = {}
        sides = example["crop"].size if "crop" in example else self._sides
        for conditioner in self._conditioners:
            match conditioner:
                case cfg.TextConditioner(encoder=encoder, tags=tags):
                    caption = example["caption"]
                    if tags is not None:
                        caption = changed_tags(caption, tags, stream("caption_tags"))
                    if self._taught is not None:
                        caption = self._taught.caption(caption, stream("template"))
                    made["caption"] = self.tokens(caption, encoder.max_length)
                    made |= {name: example[name] for name in ENCODED_CAPTION if name in example}
                case cfg.ClassConditioner():
                    made["label"] = np.asarray(example["label"], np.int32)
                case cfg.InpaintingConditioner(masks=masks):
                    made["mask"] = draw_mask(sides, masks, stream("mask"))[..., None]
                case cfg.LowResConditioner(degradation=how, noise=noise):
                    made["low_res"] = degrade(
                        example["image"], self._factor, how, stream("degradation")
                    )
                    if noise is not None:
                        level = stream("noise_level").below(noise.trained_levels)
                        made["noise_level"] = np.asarray(level, np.int32)
                case cfg.ClassMapConditioner(maps=maps):
                    made["class_map"] = _class_map(example, maps)
                case cfg.LayoutConditioner(tokens=how):
                    made["boxes"] = layout_tokens(
                        example["boxes"], example["classes"], how, example["crop"],
                        stream("boxes"), example.get("flags"),
                    )  # fmt: skip
                    made |= box_maps(self._conditioners, made, sides)
                case cfg.EditConditioner():
                    made["edit_image"] = _edit_image(example)
                    made["edit_given"] = np.asarray(1, np.int32)
                case cfg.DepthConditioner():
                    depth = read_depth_map(example["depth"])
                    made["depth"] = example["crop"].depth_map(depth, self._factor)
                case cfg.SizeConditioner():
                    made["size"] = size_of(example)
                case cfg.DepthPrefix():
                    depth = to_unit_range(read_depth_map(example["depth"]))
                    made["depth"] = example["crop"].depth_map(depth, 1)
                case cfg.CoordinatePrefix(size=size):
                    made["coordinates"] = coordinate_tokens(example["crop"], self._factor, size)
        match self._control:
            case cfg.ControlNet(hint="canny", canny_low=low, canny_high=high):
                made["hint"] = canny_edges(example["image"], low, high)
            case cfg.ControlNet():
                made["hint"] = _edit_image(example)
        return made

    def tokens(self, caption: str, max_length: int) -> Int32[np.ndarray, " l"]:
        """Token numbers of a caption, with the words that are taught."""
        if self._taught is not None:
            return self._taught.tokens(caption)
        return self._tokenizer.encode([caption], max_length)[0]

    def of_drawing(self) -> Inputs:
        """The inputs of a drawing that nothing is asked of."""
        sized = cfg.find(self._conditioners, cfg.SizeConditioner) is not None
        return {**self.uncond(), **({"size": drawn_size(self._sides)} if sized else {})}

    def uncond(self) -> Inputs:
        """The inputs that stand for no condition, of those that have such."""
        made = {**empty_views(self._conditioners, self._sides)}
        for conditioner in self._conditioners:
            match conditioner:
                case cfg.TextConditioner(encoder=encoder):
                    made["caption"] = self._tokenizer.empty(encoder.max_length)
                case cfg.ClassConditioner(num_classes=count):
                    made["label"] = np.asarray(count, np.int32)
        return made


def empty_views(conditioners: Sequence[cfg.Reader], sides: tuple[int, int]) -> Inputs:
    """Of what is shown to a model: the inputs that stand for nothing in an image of these sides."""
    made: dict[str, np.ndarray] = {}
    for conditioner in conditioners:
        match conditioner:
            case cfg.ClassMapConditioner():
                made["class_map"] = np.full(sides, -1, np.int16)
            case cfg.LayoutConditioner(tokens=how):
                made["boxes"] = empty_layout(how)
            case cfg.EditConditioner():
                made["edit_given"] = np.asarray(0, np.int32)
    return made | box_maps(conditioners, made, sides)


def box_maps(
    conditioners: Sequence[cfg.Conditioner], inputs: Inputs, sides: tuple[int, int]
) -> Inputs:
    """The `box_map` of the `boxes` among `inputs`, for an image of these sides, where it is read;
    else nothing."""
    layout = cfg.find(conditioners, cfg.LayoutConditioner)
    if layout is None or layout.box_map_channels is None:
        return {}
    return {"box_map": box_map(inputs["boxes"], layout.tokens, sides)}


def check_source(conditioners: Sequence[cfg.Reader], source: Source, where: str) -> None:
    """Raises ConfigError unless the examples of `source`, which `where` names, have what
    `conditioners` read: classes, captions, boxes, class maps, pictures to edit, depth maps, or
    images themselves."""
    for conditioner in conditioners:
        match conditioner:
            case cfg.ClassConditioner(num_classes=wanted):
                count = len(source.class_names)
                if wanted != count:
                    raise cfg.ConfigError(
                        f"num_classes is {wanted}, but {where} has {count} classes, which are a "
                        "folder's subfolders; set num_classes of the class conditioner "
                        "(--conditioners.0.num_classes), or of the classifier, to what there are"
                    )
            case cfg.TextConditioner():
                if not source.has_captions:
                    raise cfg.ConfigError(
                        f"{where} has no captions; put them into metadata.jsonl or "
                        "metadata.csv, or a .txt "
                        "beside each image"
                    )
            case cfg.LayoutConditioner(tokens=how, class_names=names):
                there = source.box_classes
                _check_classes("boxes", there and len(there), how.num_classes, where)
                if names and names[: len(there)] != there:
                    raise cfg.ConfigError(
                        f"the boxes of {where} have the classes {_listed(there)}, but the layout "
                        f"conditioner {_listed(names)}; set data.source.box_classes to these, in "
                        "this order"
                    )
            case cfg.ClassMapConditioner(maps=maps):
                _check_classes("class maps", source.map_classes, maps.num_classes, where)
            case (
                cfg.InpaintingConditioner() | cfg.LowResConditioner() | cfg.CoordinatePrefix()
            ):  # fmt: skip
                if not source.has_images:
                    raise cfg.ConfigError(
                        f"{where} has encoded latents, but a {type(conditioner).__name__} needs "
                        "the images themselves; train on images, without --latents"
                    )
            case cfg.EditConditioner():
                _check_beside("pictures to edit", "edit_image", "edit_images", source, where)
            case cfg.DepthConditioner() | cfg.DepthPrefix():
                _check_beside("depth maps", "depth", "depth_maps", source, where)


def check_hints(control: cfg.ControlNet, source: Source, where: str) -> None:
    """Raises ConfigError unless the examples of `source`, which `where` names, have what the hints
    of `control` are made of."""
    if control.hint == "edit_images":
        _check_beside("pictures for hints", "edit_image", "edit_images", source, where)
    elif not source.has_images:
        raise cfg.ConfigError(
            f"{where} has encoded latents, but edges are found in the images themselves; train on "
            "images, without --latents"
        )


def _check_beside(what: str, name: str, setting: str, source: Source, where: str) -> None:
    if name not in source.beside:
        raise cfg.ConfigError(
            f"{where} has no {what}, which this config is conditioned on; name them with "
            f"data.source.{setting}"
        )


def size_of(example: Example) -> Int32[np.ndarray, " 6"]:
    """What a model may be told of the size and the crop of an example."""
    if "size" in example:
        return example["size"]
    file = example.get("file")
    whole = example["crop"].whole if file is None else picture_sides(file, example["name"])
    return example["crop"].told(whole)


def drawn_size(sides: tuple[int, int]) -> Int32[np.ndarray, " 6"]:
    """What a model is told of a drawing: a picture of this size that is not cropped."""
    return np.array([*sides, 0, 0, *sides], np.int32)


def _edit_image(example: Example) -> UInt8[np.ndarray, "h w 3"]:
    """What is shown of the picture to edit."""
    original = example["edit_image"]
    seen = example["crop"].alike(original)
    if seen is None:
        (h, w), (height, width) = original.shape[:2], example["crop"].whole
        raise DataError(
            f"{example['name']} has {height} x {width} pixels (height x width), but its picture to "
            f"edit {h} x {w}; both must have the same proportions"
        )
    return seen


def _class_map(example: Example, maps: cfg.ClassMaps) -> Int16[np.ndarray, "h w"]:
    """The classes of what is shown of an example."""
    found, crop = example["class_map"], example["crop"]
    if isinstance(found, Path):
        found = read_class_map(found, maps)
    return crop.class_map(found).astype(np.int16)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def _check_classes(what: str, there: int | None, wanted: int, where: str) -> None:
    if there is None:
        raise cfg.ConfigError(
            f"{where} has no {what}, which this config is conditioned on; name them with "
            f"data.source.{what.replace(' ', '_')}"
        )
    if there > wanted:
        raise cfg.ConfigError(
            f"the {what} of {where} have {there} classes, but num_classes is {wanted}; set it to "
            f"{there} or more"
        )
