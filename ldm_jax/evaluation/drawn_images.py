"""A model's drawings as a set of images that is scored while it is drawn."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.config.request import IMAGES_PER_PROMPT
from ldm_jax.evaluation.image_sets import Batch
from ldm_jax.evaluation.provenance import identity
from ldm_jax.generation.pipeline import Pipeline


class DrawnImages:
    """Pictures of a model, each drawn where it is asked for, and the same ones every time.

    Picture i has the condition i of `conditions`, which begin again after the last, and noise of
    its own: with captions or classes, what `sample.py` draws of its i-th prompt; without, the i-th
    of `--num`.

    Args:
        captions: of a data set, for models of captions.
        classes: for models of classes; all, in turn, where none is given.

    Raises:
        ConfigError: settings of the sampler that the model cannot have, or conditions that are
            missing, or none of captions and classes.
    """

    sorted_by_class = False

    def __init__(
        self,
        pipeline: Pipeline,
        sampling: cfg.Sampling,
        count: int,
        captions: Sequence[str] = (),
        classes: Sequence[int] = (),
    ) -> None:
        self.pipeline, self._count = pipeline, count
        self._resolved = pipeline.resolve_sampling(sampling)
        self.conditions = _conditions(pipeline.config, captions, classes)
        about: dict[str, Any] = {}
        if (kind := self._kind) is not None:
            digest = hashlib.sha256("\n".join(map(str, self.conditions)).encode()).hexdigest()
            about = {kind: len(self.conditions), f"{kind}_sha256": digest}
        request = cfg.Request(sampling=self._resolved.sampling, model=pipeline.choice)
        self.about: dict[str, Any] = {
            "kind": "drawn", "images": count, **about, "request": request.to_dict(),
            "uint8": "round((x + 1) * 127.5)", "origin": pipeline.origin, **identity(pipeline),
        }  # fmt: skip
        self.warnings: list[str] = []

    def __len__(self) -> int:
        return self._count

    @property
    def _kind(self) -> str | None:
        """What conditions are."""
        return {str: "captions", int: "classes"}.get(type(self.conditions[0]))

    def condition(self, row: int) -> str | int | None:
        """What picture `row` is drawn of."""
        return self.conditions[row % len(self.conditions)]

    def captions(self, rows: range) -> Sequence[str] | None:
        """As `ImageSet.captions`."""
        found = [self.condition(row) for row in rows]
        return found if all(isinstance(one, str) for one in found) else None

    def batches(self, rows: range) -> Iterator[Batch]:
        """As `ImageSet.batches`, of rows within one block of IMAGES_PER_PROMPT."""
        block, first = divmod(rows.start, IMAGES_PER_PROMPT)
        conditions = [self.condition(row) for row in rows]
        how: dict[str, int] = {"first_prompt": first, "first_image": block}
        if conditions[0] is None:
            conditions = [None]
            how = {"first_prompt": block, "first_image": first, "num": len(rows)}
        for drawn in self.pipeline.run(self.pipeline.plan(conditions, self._resolved, **how)):
            yield Batch(rows.start + drawn.rows, drawn.images)


def _conditions(
    model: cfg.Model, captions: Sequence[str], classes: Sequence[int]
) -> list[str | int | None]:
    if model.needs_files:
        raise cfg.ConfigError(
            f"the model is conditioned on {', '.join(model.inputs)}; draw its pictures with "
            "sample.py, and score them with --samples=FOLDER"
        )
    has_classes = cfg.find(model.conditioners, cfg.ClassConditioner)
    if classes and has_classes is None:
        raise cfg.ConfigError("classes are given, but the model draws none; leave them out")
    if "caption" in model.inputs:
        if not captions:
            raise cfg.ConfigError(
                "the model draws captions, and there are none: name a data set that has them with "
                "--config=FILE or --images=FOLDER"
            )
        return [*captions]
    if has_classes is not None:
        return [*(classes or range(has_classes.num_classes))]
    return [None]
