"""Scores of a set of images against a reference, from features that are computed once, and a report
that says how each number was made."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from ldm_jax.evaluation.evaluators import Features, Score, described
from ldm_jax.evaluation.feature_shards import FeatureSet, FeatureShards, Resampled, fill
from ldm_jax.evaluation.image_sets import Batch, ImageSet
from ldm_jax.evaluation.provenance import surroundings
from ldm_jax.evaluation.reference_files import ReferenceFile
from ldm_jax.evaluation.scores.moments import Moments

SIDES = "sides"
"""The layer that holds each image's height and width."""
FEW = 10_000
"""Images below which a Fréchet distance says more of their number than of them."""
WAITING = 2
"""Batches whose features are computed while the next one is drawn or read."""


@runtime_checkable
class Extractor(Protocol):
    """A network of features; see `features.extractors`."""

    name: str

    def describe(self) -> dict[str, Any]:
        """All that features depend on but the images."""
        ...

    def features(self, images: UInt8[np.ndarray, "n h w 3"]) -> dict[str, np.ndarray]:
        """[n, d] in float32 for each of its layers."""
        ...


@runtime_checkable
class CaptionedExtractor(Protocol):
    """Numbers about images and what they were to show; see `features.captioned`."""

    name: str

    def describe(self) -> dict[str, Any]:
        """All that the numbers depend on but images and captions."""
        ...

    def captioned_features(
        self, images: UInt8[np.ndarray, "n h w 3"], captions: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """[n, d] in float32 for each of its layers."""
        ...


@dataclass(frozen=True)
class Processes:
    """Which files of features this process computes."""

    index: int = 0
    count: int = 1


class Reference:
    """What samples are compared with: features of images, statistics of a file, or both."""

    def __init__(self, features: FeatureSet | None, file: ReferenceFile | None) -> None:
        self._features, self._file = features, file

    def __len__(self) -> int:
        return 0 if self._features is None else len(self._features)

    def layer(self, name: str) -> Float32[np.ndarray, "n d"]:
        """As `Features.layer`."""
        if self._features is None:
            raise ValueError(
                f"{self._file.path} holds statistics alone, and this score needs the reference's "
                "images; name a folder or a data set, or leave the score out"
            )
        return self._features.layer(name)

    def moments(self, name: str) -> Moments:
        """As `Features.moments`; those of the file come first."""
        tap = name.rpartition("/")[2]
        if self._file is not None and tap in self._file.moments:
            return self._file.moments[tap]
        if self._features is None:
            raise ValueError(
                f"{self._file.path} has no statistics of {tap} (it has those of "
                f"{', '.join(self._file.moments)}); leave the score out"
            )
        return self._features.moments(name)


def extract(
    images: ImageSet,
    extractors: Sequence[Extractor | CaptionedExtractor],
    folder: Path,
    processes: Processes,
    progress: Callable[[int], None] = lambda images: None,
) -> tuple[FeatureShards, int]:
    """The features of a set, in `folder`, and how many files other processes have still to write.

    Features of a batch are computed while the next one is drawn.
    """
    shards = open_shards(images, extractors, folder)
    with computing(images, extractors, progress) as features_of:
        left = fill(
            shards, features_of, process_index=processes.index, process_count=processes.count
        )
    return shards, left


def open_shards(
    images: ImageSet, extractors: Sequence[Extractor | CaptionedExtractor], folder: Path
) -> FeatureShards:
    """The files in `folder` of a set's features, of which some may be missing still."""
    identity = {"images": images.about, "extractors": [one.describe() for one in extractors]}
    return FeatureShards(folder, len(images), identity)


@contextmanager
def computing(
    images: ImageSet,
    extractors: Sequence[Extractor | CaptionedExtractor],
    progress: Callable[[int], None] = lambda images: None,
) -> Iterator[Callable[[range], dict[str, np.ndarray]]]:
    """What computes the features of some rows of a set, in a thread of its own while the next ones
    are drawn. Rows that the set leaves out are not a number."""
    with ThreadPoolExecutor(1) as worker:

        def features_of(rows: range) -> dict[str, np.ndarray]:
            found: dict[str, np.ndarray] = {}
            waiting: list[tuple[Batch, Future]] = []

            def take() -> None:
                batch, features = waiting.pop(0)
                for name, values in features.result().items():
                    whole = found.setdefault(
                        name, np.full((len(rows), values.shape[1]), np.nan, np.float32)
                    )
                    whole[batch.rows - rows.start] = values
                progress(len(batch.rows))

            captions = None
            if any(isinstance(one, CaptionedExtractor) for one in extractors):
                captions = _captions(images, rows)
            for batch in images.batches(rows):
                own = captions and [captions[row - rows.start] for row in batch.rows]
                waiting.append((batch, worker.submit(_features, extractors, batch.images, own)))
                if len(waiting) > WAITING:
                    take()
            while waiting:
                take()
            return found

        yield features_of


def _features(
    extractors: Sequence[Extractor | CaptionedExtractor],
    images: np.ndarray,
    captions: Sequence[str] | None,
) -> dict[str, np.ndarray]:
    found = {SIDES: np.tile(np.float32(images.shape[1:3]), (len(images), 1))}
    for one in extractors:
        if isinstance(one, CaptionedExtractor):
            own = one.captioned_features(images, captions or ())
        else:
            own = one.features(images)
        found |= {f"{one.name}/{tap}": values for tap, values in own.items()}
    return found


def _captions(images: ImageSet, rows: range) -> Sequence[str]:
    found = images.captions(rows)
    if found is None:
        raise ValueError(
            "the score is of images with their captions, and these have none; draw them here with "
            "--model, or put them in a folder with metadata.jsonl"
        )
    return found


def scores_of(
    samples: FeatureSet,
    reference: Features,
    scores: Mapping[str, Score],
    *,
    runs: int = 1,
    bootstrap: int = 0,
) -> dict[str, Any]:
    """Each score as a report has it.

    Of several `runs`, successive blocks of the samples, the mean, standard deviation (over
    count - 1), minimum and each value. With `bootstrap`, the standard deviation over so many sets
    that are drawn with replacement; their own mean is no estimate, as repeated images add to the
    bias of a Fréchet distance.
    """
    found: dict[str, Any] = {}
    for score in scores.values():
        blocks = [
            score.compute(block, reference, score.layer) for block in samples.runs(runs)
        ]  # fmt: skip
        generator = np.random.default_rng(0)
        again = [
            score.compute(Resampled(samples, generator), reference, score.layer)
            for _ in range(bootstrap)
        ]
        for own, entry in described(blocks[0]).items():
            if runs > 1:
                values = [block[own].value for block in blocks]
                entry = {
                    "value": float(np.mean(values)), "std": float(np.std(values, ddof=1)),
                    "minimum": min(values), "values": values,
                }  # fmt: skip
            if bootstrap:
                drawn = [one[own].value for one in again]
                entry["bootstrap_std"] = float(np.std(drawn, ddof=1)) if bootstrap > 1 else 0.0
            found[own] = entry
    return found


class Scorer:
    """An evaluator with its networks and a reference, which scores any number of sets.

    Raises:
        ValueError: statistics of the reference that were made in another way.
    """

    def __init__(
        self,
        evaluator: str,
        scores: Mapping[str, Score],
        extractors: Sequence[Extractor | CaptionedExtractor],
        file: ReferenceFile | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        self.evaluator, self.scores, self._told = evaluator, scores, [*warnings]
        self.extractors, self._file = extractors, file
        self._about: dict[str, Any] | None = None
        self._compared: FeatureSet | None = None
        if file is not None:
            _check_reference(file, extractors)
            self._about = {
                "kind": "statistics", "path": str(file.path), "provenance": file.provenance
            }  # fmt: skip

    def compare_with(self, images: ImageSet, shards: FeatureShards) -> None:
        """Takes images, whose features have been extracted, as the reference."""
        self._compared = FeatureSet(shards)
        self._about = images.about if self._about is None else self._about | {"set": images.about}

    def report(
        self, samples: ImageSet, shards: FeatureShards, *, runs: int = 1, bootstrap: int = 0
    ) -> dict[str, Any]:
        """All scores of a set whose features have been extracted, and what decided them, as JSON.

        Raises:
            ValueError: a score needs of the reference what it has not, or more images.
        """
        features = FeatureSet(shards)
        reference = Reference(self._compared, self._file)
        found = scores_of(features, reference, self.scores, runs=runs, bootstrap=bootstrap)
        return {
            "evaluator": self.evaluator, "scores": found, "runs": runs, "bootstrap": bootstrap,
            "samples": samples.about, "reference": self._about,
            "extractors": [one.describe() for one in self.extractors],
            "warnings": [*self._told, *samples.warnings, *self._warnings(samples, features)],
            "surroundings": surroundings(),
        }  # fmt: skip

    def _warnings(self, samples: ImageSet, features: FeatureSet) -> Iterator[str]:
        """What a reader of the numbers must know, a sentence each."""
        distances = [name for name in ("fid", "sfid") if name in self.scores]
        if distances and len(features) < FEW:
            yield (
                f"{len(features)} images are too few for {' and '.join(distances)} that others can "
                "be compared with: papers use 50,000, and fewer make it larger"
            )
        if "inception_score" in self.scores and self.evaluator == "adm" and samples.sorted_by_class:
            yield (
                "the samples stand sorted by class, and ADM's Inception score is of blocks in "
                "their order, which this ruins; shuffle them"
            )
        for one in self.extractors:
            if not one.describe()["weights_known"]:
                yield (
                    f"the weights of {one.name} are not the published ones; nobody else's numbers "
                    "can be compared with these"
                )
        own = sizes_of(features)
        if self._compared is not None and own != (other := sizes_of(self._compared)):
            yield f"the samples are {_told(own)} pixels, the reference {_told(other)}"
        elif self._file is not None and self._file.provenance is None:
            yield (
                f"{self._file.path} does not say how it was made: check that its images are "
                f"{_told(own)} pixels and that it is {self.evaluator}'s"
            )


def sizes_of(features: FeatureSet) -> list[tuple[int, int]]:
    """The different heights and widths of a set's images."""
    return sorted({(int(h), int(w)) for h, w in np.unique(features.layer(SIDES), axis=0)})


def _check_reference(file: ReferenceFile, extractors: Sequence[Any]) -> None:
    """Refuses statistics that say that they were made in another way."""
    if file.provenance is None:
        return
    known = {one.name: one.describe() for one in extractors}
    for theirs in file.provenance.get("extractors", []):
        ours = known.get(theirs["extractor"])
        if ours is None:
            raise ValueError(
                f"{file.path} has statistics as {theirs['extractor']} computes them, not as "
                f"{', '.join(known)}; name the evaluator they were made for"
            )
        if ours["weights_sha256"] != theirs["weights_sha256"]:
            raise ValueError(
                f"{file.path} was made with other weights (SHA-256 "
                f"{theirs['weights_sha256'][:12]}…, here {ours['weights_sha256'][:12]}…)"
            )


def _told(sizes: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{width} x {height}" for height, width in sizes)
