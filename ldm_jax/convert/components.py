"""The components of a CompVis single file: which conditioners there are, and where all is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import bundle, compvis, names, shapes

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Kind:
    """One of the conditioners that CompVis' files have."""

    mark: str
    """A name that it alone has below its prefix."""
    prefix: str
    condition: Callable[[Tensors], cfg.Condition]
    places: Callable[..., dict[str, compvis.Place]]


def _text(encoder: Callable[[Tensors], Any], tokenizer: str) -> Callable[[Tensors], cfg.Condition]:
    return lambda tensors: cfg.TextCondition(encoder(tensors), tokenizer=tokenizer)


def _class_token(tensors: Tensors) -> cfg.Condition:
    count, width = tensors["embedding.weight"].shape
    return cfg.ClassCondition(count - 1, context_dim=width)


CLIP = Kind(
    "text_model.embeddings.token_embedding.weight", compvis.CLIP, _text(shapes.clip, "clip"),
    compvis.clip_places,
)  # fmt: skip
OPEN_CLIP = Kind(
    "token_embedding.weight", compvis.OPEN_CLIP, _text(shapes.open_clip, "clip"),
    compvis.open_clip_places,
)  # fmt: skip
BERT = Kind("token_emb.weight", compvis.CLIP, _text(shapes.bert, "bert"), compvis.bert_places)
CLASSES = Kind("embedding.weight", compvis.CONDITIONER, _class_token, compvis.clip_places)
KINDS = (CLIP, OPEN_CLIP, BERT, CLASSES)


def places_of(config: cfg.Model, kind: Kind | None) -> dict[str, dict[str, compvis.Place]]:
    """Where the parameters of each component are, by diffusers name."""
    listed = {
        name: [leaf.name for leaf in names.leaves(tree)]
        for name, tree in bundle.shapes(config).items()
    }
    places = {
        "unet": compvis.unet_places(listed["unet"], config.unet),
        "autoencoder": compvis.autoencoder_places(listed["autoencoder"], config.autoencoder),
    }
    if kind is not None:
        places["conditioner"] = kind.places(listed["conditioner"])
    return places
