"""The networks that scores need, read from the files that a user names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.core.stores import as_path
from ldm_jax.evaluation.evaluators import Score
from ldm_jax.evaluation.features import captioned, clip, extractors


def read_extractors(scores: Mapping[str, Score], files: cfg.FeatureFiles, batch: int) -> list[Any]:
    """An extractor for each network that `scores` are of, with the features that they need, which
    computes those of `batch` images at once.

    Raises:
        ConfigError: names the option that is missing.
        ConvertError, FileFormatError: a file cannot be read; why.
    """
    taps: dict[str, list[str]] = {}
    for score in scores.values():
        own = taps.setdefault(score.mode, [])
        if score.tap not in own:
            own.append(score.tap)
    return [_read(mode, tuple(own), files, batch) for mode, own in taps.items()]


def _read(mode: str, taps: tuple[str, ...], files: cfg.FeatureFiles, batch: int) -> Any:
    if mode == "digit-scenes":
        return captioned.read_scene_marks(as_path(files.rater) if files.rater else None)
    if mode == "dinov2":
        return clip.read_dinov2_extractor(_named(files.dinov2, "dinov2"), batch)
    if mode in ("clip", *captioned.PREFIXES):
        embedder = clip.read_clip_embedder(_named(files.clip, "clip"), batch)
        return embedder.pictures if mode == "clip" else captioned.Similarity(mode, embedder)
    named = files.vgg if "vgg16" in mode else files.inception
    weights = as_path(named) if named else None
    return extractors.read_extractor(mode, weights, taps=taps, batch_size=batch)


def _named(path: str, option: str) -> Path:
    if not path:
        raise cfg.ConfigError(f"--{option}=FOLDER is missing: the network that these scores are of")
    return as_path(path)
