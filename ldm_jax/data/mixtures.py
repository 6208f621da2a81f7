"""Several sources as one, each shown for its weight."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, chain

from ldm_jax import config as cfg
from ldm_jax.data.buckets import buckets_of
from ldm_jax.data.sources import (
    DataError,
    Example,
    Parts,
    Source,
    Split,
    check_alike,
    has_validation,
    open_source,
)


def single_sources(source: Source | None) -> tuple[Source, ...]:
    """The sources of a mixture; another one itself."""
    if isinstance(source, MixtureSource):
        return tuple(source.sources)
    return () if source is None else (source,)


class MixtureSource:
    """The examples of some sources, one source's after the other's; those are its `parts`.

    Of boxes, class maps and what lies beside images it has what all of them have.
    """

    def __init__(self, data: cfg.Data, split: Split) -> None:
        """Of `data`, whose source is a mixture. Raises DataError where the sources do not agree."""
        mixture = data.source
        if not mixture.sources:
            raise DataError("data.source.sources is empty; name the sources of the mixture")
        weights = mixture.weights or (None,) * len(mixture.sources)
        self.sources, chosen = [], []
        for one, weight in zip(mixture.sources, weights, strict=True):
            if split != "validation" or has_validation(one):
                self.sources.append(open_source(replace(data, source=one), split))
                chosen.append((one, weight))
        if any(buckets_of(one) is not None for one in self.sources):
            raise DataError(
                "data.source.sources has one with buckets, but the pictures of a mixture become "
                "one size; leave its buckets None"
            )
        first, *others = self.sources
        for other in others:
            check_alike(first, other)
        sizes = tuple(map(len, self.sources))
        shown = [
            float(size if weight is None else weight)
            for size, (_, weight) in zip(sizes, chosen, strict=True)
        ]
        self.parts = Parts(sizes, tuple(shown))
        self._ends = [*accumulate(sizes)]
        self._settings = [one for one, _ in chosen]
        self.class_names, self.has_captions = first.class_names, first.has_captions
        self.has_images = first.has_images
        boxes, maps = ({getattr(one, f"{kind}_classes") for one in self.sources}
                       for kind in ("box", "map"))  # fmt: skip
        self.box_classes = boxes.pop() if len(boxes) == 1 else None
        self.map_classes = None if None in maps else max(maps)
        self.beside = frozenset.intersection(*(one.beside for one in self.sources))
        identity = [[one.fingerprint for one in self.sources], sizes, shown]
        self.fingerprint = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        told = zip(self.sources, shown, strict=True)
        self.found = "; ".join(f"{w / sum(shown):.2%} of {one.found}" for one, w in told)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Example:
        """The example of its source, with the settings that it is to be fitted by."""
        index = range(len(self))[index]
        part = bisect_right(self._ends, index)
        example = self.sources[part][index - self._ends[part] + self.parts.sizes[part]]
        how = self._settings[part]
        return {**example, "fitting": how} if isinstance(how, cfg.FittedPictures) else example

    @property
    def broken(self) -> dict[str, str]:
        """As `Source.broken`."""
        return {name: why for one in self.sources for name, why in one.broken.items()}

    def captions(self) -> Iterator[str]:
        """Those that its sources give."""
        return chain.from_iterable(one.captions() for one in self.sources)

    def labels(self) -> Iterator[int]:
        """Those that its sources give."""
        return chain.from_iterable(one.labels() for one in self.sources)

    def names(self) -> Iterator[str]:
        """Those that its sources give."""
        return chain.from_iterable(one.names() for one in self.sources)
