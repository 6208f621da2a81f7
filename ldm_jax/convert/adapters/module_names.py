"""What other programs call the modules of a model.

Names whose levels are joined by `_` do not tell where a level ends, so they are never taken apart:
each module's name is put together in all spellings, and looked up.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.adapters.adapter import UNET
from ldm_jax.adapters.merging import WEIGHTS
from ldm_jax.adapters.weights import KERNEL_AXES
from ldm_jax.convert.compvis.keys import unet_places
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core import tree

PEFT = "base_model.model."
"""Before every name in PEFT's files."""
TEXT_MODEL = "text_model/"
"""The outermost level of CLIP's text encoder, which some files leave out."""


@dataclass(frozen=True)
class Place:
    """One module of a model."""

    component: str
    path: str
    """Its levels joined by `/`."""
    shape: tuple[int, ...]
    """Of its weight, as torch has it."""
    bias: int | None
    """How many numbers its bias has; None without one."""
    narrower: int | None = None
    """How many inputs it has of latents alone, where it has others as well."""

    @property
    def dotted(self) -> str:
        """Its name in the component, as in a state dict."""
        return self.path.replace("/", ".")

    @property
    def underscored(self) -> str:
        """Its name in the component, as LoRA files have it."""
        return self.path.replace("/", "_")


@dataclass(frozen=True)
class ModuleNames:
    """The modules of one model, by all that files may call them."""

    config: cfg.Model
    places: Mapping[str, Place]
    """By spelling."""
    text: str | None
    """The component that is the text encoder."""

    @classmethod
    def of(cls, config: cfg.Model, params: Mapping[str, Any]) -> "ModuleNames":
        """Those of a model and its parameters `{"unet", "conditioners"}`, of which only shapes are
        looked at."""
        part = cfg.find(config.conditioners, cfg.TextConditioner)
        text = None if part is None else part.name
        places: dict[str, Place] = {}
        for place in _places(UNET, params[UNET], config):
            places |= dict.fromkeys(_of_unet(place, config.unet), place)
        if text is not None:
            for place in _places(text, params["conditioners"].get(text, {}), config):
                places |= dict.fromkeys(_of_text(place), place)
        return cls(config, places, text)


def _places(component: str, params: Mapping[str, Any], config: cfg.Model) -> Iterator[Place]:
    flat = tree.flatten(params)
    for leaf, array in flat.items():
        path, _, name = leaf.rpartition("/")
        if name not in WEIGHTS:
            continue
        shape = tuple(array.shape)
        if name == "kernel":
            shape = tuple(shape[axis] for axis in np.argsort(KERNEL_AXES[len(shape)]))
        bias = flat.get(f"{path}/bias")
        of_latents = component == UNET and path == "conv_in" and config.unet.concat_channels
        narrower = config.unet.in_channels if of_latents else None
        yield Place(component, path, shape, None if bias is None else bias.shape[0], narrower)


def _of_unet(place: Place, config: cfg.UNet) -> list[str]:
    dotted, underscored = place.dotted, place.underscored
    names = [
        f"lora_unet_{underscored}", f"lycoris_{underscored}", f"lycoris_unet_{underscored}",
        f"unet.{dotted}", dotted, f"{PEFT}{dotted}",
    ]  # fmt: skip
    try:
        original = unet_places([f"{dotted}.weight"], config)[f"{dotted}.weight"]
    except ConvertError:
        return names
    if original.part is None:  # else its weight is a third of a tensor
        module = original.name.removesuffix(".weight")
        names += [f"lora_unet_{module.replace('.', '_')}", f"diffusion_model.{module}"]
    return names


def _of_text(place: Place) -> list[str]:
    names = []
    for path in dict.fromkeys((place.path, place.path.removeprefix(TEXT_MODEL))):
        dotted, underscored = path.replace("/", "."), path.replace("/", "_")
        names += [
            f"lora_te_{underscored}", f"lora_te1_{underscored}", f"lycoris_{underscored}",
            f"lycoris_te_{underscored}", f"text_encoder.{dotted}", f"{PEFT}{dotted}", dotted,
        ]  # fmt: skip
    return names
