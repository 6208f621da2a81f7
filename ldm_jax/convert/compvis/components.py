"""The components of a CompVis single file: which conditioners there are, and where all is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model, state_dicts
from ldm_jax.convert.compvis import keys, shapes

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Kind:
    """One of the conditioners that CompVis' files have."""

    mark: str
    """A name that it alone has below its prefix."""
    prefix: str
    conditioner: Callable[[Tensors], cfg.Conditioner]
    places: Callable[..., dict[str, keys.Place]]


def _text(
    encoder: Callable[[Tensors], Any], tokenizer: str
) -> Callable[[Tensors], cfg.TextConditioner]:
    return lambda tensors: cfg.TextConditioner(encoder(tensors), tokenizer=tokenizer)


def _class_token(tensors: Tensors) -> cfg.ClassConditioner:
    count, width = tensors["embedding.weight"].shape
    return cfg.ClassConditioner(count - 1, context_dim=width)


CLIP = Kind(
    "text_model.embeddings.token_embedding.weight", keys.CLIP, _text(shapes.clip, "clip"),
    keys.same_places,
)  # fmt: skip
OPEN_CLIP = Kind(
    "token_embedding.weight", keys.OPEN_CLIP, _text(shapes.open_clip, "clip"),
    keys.open_clip_places,
)  # fmt: skip
BERT = Kind(
    "token_emb.weight",
    keys.CLIP,
    _text(shapes.bert, "bert"),
    keys.bert_places,
)
LAYOUT = Kind(BERT.mark, keys.CLIP, shapes.layout, keys.bert_places)
CLASSES = Kind("embedding.weight", keys.CONDITIONER, _class_token, keys.same_places)
CLASS_MAP = Kind(
    "channel_mapper.weight", keys.CONDITIONER, shapes.class_map, keys.same_places
)  # fmt: skip
_KINDS = (CLIP, OPEN_CLIP, BERT, CLASSES, CLASS_MAP)
Encoder = (
    cfg.TextConditioner | cfg.ClassConditioner | cfg.ClassMapConditioner | cfg.LayoutConditioner
)
"""A conditioner whose parameters CompVis' files have as the model's `cond_stage_model`."""


def kind_in(tensors: Mapping[str, np.ndarray], is_layout: bool) -> Kind | None:
    """The kind of the file's conditioner, None where it has none that is known; `is_layout` tells
    an encoder of boxes, which has the names of one of text."""
    kind = next((kind for kind in _KINDS if kind.prefix + kind.mark in tensors), None)
    return LAYOUT if kind is BERT and is_layout else kind


def places_of(config: cfg.Model, kind: Kind | None) -> dict[str, dict[str, keys.Place]]:
    """Where the parameters of each component are, by diffusers name."""
    listed = {
        name: [leaf.name for leaf in state_dicts.leaves(tree)]
        for name, tree in imported_model.shapes(config).items()
    }
    places = {
        "unet": keys.unet_places(listed["unet"], config.unet),
        "autoencoder": keys.autoencoder_places(listed["autoencoder"], config.autoencoder),
    }
    if kind is not None:
        name = encoder_of(config).name
        places[name] = kind.places(listed[name])
    return places


def encoder_of(config: cfg.Model) -> Encoder | None:
    """The model's conditioner of those that have parameters in CompVis' files."""
    classes = cfg.find(config.conditioners, cfg.ClassConditioner)
    token = classes if classes is not None and classes.context_dim is not None else None
    others = (cfg.TextConditioner, cfg.ClassMapConditioner, cfg.LayoutConditioner)
    return next(filter(None, (cfg.find(config.conditioners, one) for one in others)), token)
