"""The programs that scores are named after: which scores each has, and how it computes them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from ldm_jax.evaluation.scores.frechet import frechet_distance, frechet_distance_at_infinity
from ldm_jax.evaluation.scores.inception_score import blocks, equal_parts, inception_score
from ldm_jax.evaluation.scores.kernel_distance import SUBSET_SIZE, cmmd, kernel_distance
from ldm_jax.evaluation.scores.moments import Moments
from ldm_jax.evaluation.scores.neighbourhoods import neighbourhoods

ADM_BLOCK = 5000
"""Images of one Inception score of ADM's."""
FIDELITY_SEED = 2020
"""Of torch-fidelity's random choices."""


class Value(NamedTuple):
    """A score."""

    value: float
    spread: float | None = None
    """Standard deviation over the parts of the images that it is a mean of, where it is one."""
    standard_error: float | None = None
    """Of a mean over images."""


@runtime_checkable
class Features(Protocol):
    """Features of a set of images; a reference may have nothing but their moments."""

    def __len__(self) -> int: ...

    def layer(self, name: str) -> Float32[np.ndarray, "n d"]:
        """All features of a layer. Raises ValueError where there are moments alone."""
        ...

    def moments(self, name: str) -> Moments:
        """Their mean and covariance. Raises ValueError where the reference lacks them."""
        ...


Needs = Literal["nothing", "statistics", "images"]


@dataclass(frozen=True)
class Score:
    """One score, or several that are computed together."""

    mode: str
    """Of `features.extractors.MODES`."""
    tap: str
    compute: Callable[[Features, Features, str], Mapping[str, Value]]
    """Of samples, reference and the layer's name."""
    compares_with: Needs = "statistics"
    """What it needs of the reference."""
    fewest: int = 2
    """Images of either set that it takes."""

    @property
    def layer(self) -> str:
        """Name of the features among those of other modes."""
        return layer_of(self.mode, self.tap)


def layer_of(mode: str, tap: str) -> str:
    """Name of the features of a mode among those of others."""
    return f"{mode}/{tap}"


def _fid(name: str, samples: Features, reference: Features, layer: str) -> dict[str, Value]:
    return {name: Value(frechet_distance(samples.moments(layer), reference.moments(layer)))}


def _fid_infinity(samples: Features, reference: Features, layer: str) -> dict[str, Value]:
    found = frechet_distance_at_infinity(samples.layer(layer), reference.moments(layer))
    return {"fid_infinity": Value(found.value)}


def _shuffled_score(samples: Features, _: Features, layer: str) -> dict[str, Value]:
    logits = samples.layer(layer)
    order = np.random.RandomState(FIDELITY_SEED).permutation(len(logits))
    found = inception_score(logits[order], equal_parts(len(logits), 10))
    return {"inception_score": Value(found.mean, found.std)}


def _score_in_order(samples: Features, _: Features, layer: str) -> dict[str, Value]:
    logits = samples.layer(layer)
    found = inception_score(logits, blocks(len(logits), ADM_BLOCK))
    return {"inception_score": Value(found.mean, found.std)}


def _fidelity_kid(samples: Features, reference: Features, layer: str) -> dict[str, Value]:
    chooser = np.random.RandomState(FIDELITY_SEED)
    found = kernel_distance(samples.layer(layer), reference.layer(layer), chooser)
    return {"kid": Value(found.mean, found.std)}


def _clean_kid(samples: Features, reference: Features, layer: str) -> dict[str, Value]:
    generated, real = samples.layer(layer), reference.layer(layer)
    size = min(SUBSET_SIZE, len(generated), len(real))
    # clean-fid itself seeds nothing.
    chooser = np.random.RandomState(0)
    found = kernel_distance(generated, real, chooser, subset_size=size, real_first=True)
    return {"kid": Value(found.mean, found.std)}


def _precision_recall(samples: Features, reference: Features, layer: str) -> dict[str, Value]:
    found = neighbourhoods(samples.layer(layer), reference.layer(layer), 3)
    return {"precision": Value(found.precision), "recall": Value(found.recall)}


def _density_coverage(samples: Features, reference: Features, layer: str) -> dict[str, Value]:
    found = neighbourhoods(samples.layer(layer), reference.layer(layer), 5, edge=False)
    return {name: Value(value) for name, value in found._asdict().items()}


def _cmmd(samples: Features, reference: Features, layer: str) -> dict[str, Value]:
    return {"cmmd": Value(cmmd(samples.layer(layer), reference.layer(layer)))}


def _clip_score(scale: float, samples: Features, _: Features, layer: str) -> dict[str, Value]:
    return {"clip_score": _mean_of(scale * np.maximum(samples.layer(layer), 0))}


def _mean(name: str) -> Callable[[Features, Features, str], dict[str, Value]]:
    return lambda samples, _, layer: {name: _mean_of(samples.layer(layer))}


def _mean_of(values: Float32[np.ndarray, "n 1"]) -> Value:
    exact = values.astype(np.float64)
    error = float(exact.std(ddof=1) / np.sqrt(len(exact))) if len(exact) > 1 else None
    return Value(float(exact.mean()), standard_error=error)


EVALUATORS: dict[str, dict[str, Score]] = {
    "adm": {
        "fid": Score("adm", "2048", partial(_fid, "fid")),
        "sfid": Score("adm", "spatial", partial(_fid, "sfid")),
        "inception_score": Score("adm", "logits_unbiased", _score_in_order, "nothing"),
        "precision_recall": Score("adm", "2048", _precision_recall, "images", 4),
        "fid_infinity": Score("adm", "2048", _fid_infinity, fewest=150),
    },
    "torch-fidelity": {
        "fid": Score("torch-fidelity", "2048", partial(_fid, "fid")),
        "inception_score": Score(
            "torch-fidelity", "logits_unbiased", _shuffled_score, "nothing", 10
        ),
        "kid": Score("torch-fidelity", "2048", _fidelity_kid, "images", SUBSET_SIZE),
        "precision_recall": Score(
            "torch-fidelity-vgg16", "fc2_relu", _precision_recall, "images", 4
        ),
        "fid_infinity": Score("torch-fidelity", "2048", _fid_infinity, fewest=150),
    },
    "pytorch-fid": {
        "fid": Score("pytorch-fid", "2048", partial(_fid, "fid")),
        "fid_infinity": Score("pytorch-fid", "2048", _fid_infinity, fewest=150),
    },
    "clean-fid": {
        "fid": Score("clean-fid", "2048", partial(_fid, "fid")),
        "kid": Score("clean-fid", "2048", _clean_kid, "images"),
        "fid_infinity": Score("clean-fid", "2048", _fid_infinity, fewest=150),
    },
    "dgm-eval": {
        "fd_dinov2": Score("dinov2", "class_token", partial(_fid, "fd_dinov2"), "images"),
    },
    "cmmd": {
        "cmmd": Score("clip", "embedding", _cmmd, "images"),
    },
    "clipscore": {
        "clip_score": Score("clipscore", "cosine", partial(_clip_score, 2.5), "nothing"),
    },
    "torchmetrics": {
        "clip_score": Score("torchmetrics", "cosine", partial(_clip_score, 100.0), "nothing"),
    },
    "digit-scenes": {
        "caption_right": Score("digit-scenes", "right", _mean("caption_right"), "nothing"),
        "places_right": Score("digit-scenes", "places", _mean("places_right"), "nothing"),
    },
    "ldm-jax": {
        "fd_vgg": Score("ldm-jax", "relu5_3", partial(_fid, "fd_vgg")),
        "density_coverage": Score("ldm-jax", "relu5_3", _density_coverage, "images", 6),
    },
    "prdc": {
        "density_coverage": Score(
            "torch-fidelity-vgg16", "fc2_relu", _density_coverage, "images", 6
        ),
    },
}
"""Evaluator → score → how. Within one evaluator, numbers can stand in one table."""


_OUTPUTS = {
    "precision_recall": ("precision", "recall"),
    "density_coverage": ("precision", "recall", "density", "coverage"),
}
"""Scores that are several numbers."""
HIGHER_IS_BETTER = {
    "inception_score", "precision", "recall", "density", "coverage", "clip_score", "caption_right",
    "places_right",
}  # fmt: skip


def outputs_of(scores: Iterable[str]) -> list[str]:
    """The names of the numbers that scores consist of."""
    return [one for name in scores for one in _OUTPUTS.get(name, (name,))]


def usual_scores(evaluator: str) -> tuple[str, ...]:
    """Those that need one network alone, without the extrapolation, which is slow."""
    scores = EVALUATORS[evaluator]
    first = next(iter(scores.values())).mode
    return tuple(n for n, s in scores.items() if s.mode == first and n != "fid_infinity")


def compares(evaluator: str, names: Sequence[str]) -> bool:
    """Whether any of the scores that are asked for, or of the usual ones, is of a reference."""
    known = EVALUATORS[evaluator]
    asked = [known[name] for name in names or usual_scores(evaluator) if name in known]
    return not asked or any(one.compares_with != "nothing" for one in asked)


def chosen(
    evaluator: str, names: Sequence[str], images: int, reference: int | None, has_images: bool
) -> tuple[dict[str, Score], list[str]]:
    """The scores that are asked for, or without `names` the usual ones that can be, and why others
    cannot.

    Args:
        images: of the samples, in each run.
        reference: images of the reference; None where nobody knows.
        has_images: whether the reference is more than statistics.

    Raises:
        ValueError: one that is asked for cannot be, or the evaluator does not have it.
    """
    known = EVALUATORS[evaluator]
    for name in names:
        if name not in known:
            having = [e for e, scores in EVALUATORS.items() if name in scores]
            other = f"; {', '.join(having)} has it" if having else ""
            raise ValueError(f"{evaluator} has no score {name!r}, only {', '.join(known)}{other}")
    found: dict[str, Score] = {}
    problems: list[str] = []
    for name in names or usual_scores(evaluator):
        score, problem = known[name], ""
        fewest = images
        if score.compares_with == "images" and reference is not None:
            fewest = min(images, reference)
        if score.compares_with == "images" and not has_images:
            problem = "needs the reference's images, and there are statistics alone"
        elif score.compares_with == "statistics" and (reference or 2) < 2:
            problem = f"needs 2 images or more to compare with, and there are {reference}"
        elif fewest < score.fewest:
            problem = f"needs {score.fewest} images or more, and there are {fewest}"
        if problem and names:
            raise ValueError(f"{name} {problem}; leave it out, or give what it needs")
        if problem:
            problems.append(f"{name} is left out: it {problem}")
        else:
            found[name] = score
    if not found:
        raise ValueError("no score can be computed: " + "; ".join(problems))
    return found, problems


def described(values: Mapping[str, Value]) -> dict[str, Any]:
    """As a report has them."""
    return {
        name: {part: value for part, value in found._asdict().items() if value is not None}
        for name, found in values.items()
    }
