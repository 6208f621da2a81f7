"""The inputs of an example, or of a drawing, as pictures for people to look at."""

from collections.abc import Mapping, Sequence
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.data.layout_tokens import boxes_of_tokens
from ldm_jax.images.condition_views import (
    Picture,
    view_of_boxes,
    view_of_class_map,
    view_of_depth,
    view_of_low_res,
    view_of_mask,
)


def views_of(
    inputs: Mapping[str, Any],
    image: Picture | None,
    conditioners: Sequence[cfg.Reader],
    sides: tuple[int, int],
) -> list[Picture]:
    """A view of each of an example's `inputs` that can be seen, all of the size of its image,
    whose height and width are `sides`."""
    views = []
    for conditioner in conditioners:
        match conditioner:
            case cfg.InpaintingConditioner():
                views.append(view_of_mask(image, inputs["mask"]))
            case cfg.LowResConditioner():
                low_res = inputs["low_res"]
                views.append(view_of_low_res(low_res, sides[0] // low_res.shape[0]))
            case cfg.ClassMapConditioner():
                views.append(view_of_class_map(inputs["class_map"]))
            case cfg.LayoutConditioner(tokens=how, class_names=names):
                boxes, classes = boxes_of_tokens(inputs["boxes"], how)
                numbers = classes.tolist()
                words = [names[number] if names else str(number) for number in numbers]
                views.append(view_of_boxes(boxes, words, sides, numbers))
            case cfg.EditConditioner():
                views.append(inputs["edit_image"])
            case cfg.DepthConditioner() | cfg.DepthPrefix():
                depth = inputs["depth"]
                views.append(view_of_depth(depth, sides[0] // depth.shape[0]))
    if "hint" in inputs:
        views.append(inputs["hint"])
    return views
