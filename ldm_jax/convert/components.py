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
    conditioner: Callable[[Tensors], cfg.Conditioner]
    places: Callable[..., dict[str, compvis.Place]]


def _text(
    encoder: Callable[[Tensors], Any], tokenizer: str
) -> Callable[[Tensors], cfg.TextConditioner]:
    return lambda tensors: cfg.TextConditioner(encoder(tensors), tokenizer=tokenizer)


def _class_token(tensors: Tensors) -> cfg.ClassConditioner:
    count, width = tensors["embedding.weight"].shape
    return cfg.ClassConditioner(count - 1, context_dim=width)


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
        name = encoder_of(config).name
        places[name] = kind.places(listed[name])
    return places


def encoder_of(config: cfg.Model) -> cfg.TextConditioner | cfg.ClassConditioner | None:
    """The conditioner whose parameters CompVis' files have as the model's `cond_stage_model`."""
    text = cfg.find(config.conditioners, cfg.TextConditioner)
    classes = cfg.find(config.conditioners, cfg.ClassConditioner)
    token = classes if classes is not None and classes.context_dim is not None else None
    return text or token
