"""Scores of what a model draws while it is trained."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np

from ldm_jax import config as cfg
from ldm_jax.config.conditioning import WITHOUT_PICTURES
from ldm_jax.core.command import Failed, say
from ldm_jax.core.distributed import wait_for_all
from ldm_jax.core.files import write_atomically
from ldm_jax.core.sharding import local_rows, replicated, to_global
from ldm_jax.core.stores import as_path
from ldm_jax.data.example_order import mixed_rows
from ldm_jax.data.loader import TASK_SEED, examples_at
from ldm_jax.data.sources import open_source
from ldm_jax.data.stored_pictures import caption_at
from ldm_jax.evaluation.evaluators import HIGHER_IS_BETTER, chosen, compares, outputs_of
from ldm_jax.evaluation.feature_shards import SHARD, Features
from ldm_jax.evaluation.image_sets import (
    Batch,
    DataImages,
    ImageSet,
    Spread,
    has_images,
    open_images,
)
from ldm_jax.evaluation.network_files import read_extractors
from ldm_jax.evaluation.reference_files import is_reference, read_reference
from ldm_jax.evaluation.scoring import (
    CaptionedExtractor,
    Extractor,
    Processes,
    Scorer,
    computing,
    extract,
    open_shards,
)
from ldm_jax.evaluation.shared_rows import gathered, own_rows, told_by_first
from ldm_jax.training.stage import Stage
from ldm_jax.workdir.checkpoints import Criterion

FOLDER = "scores"
"""Below the work directory: the report of each measurement, and the reference's features."""
FEATURE_BATCH = 50


class TrainingScores:
    """A judge of the loop, `training.evaluator.Judge`, of a run with `evaluation`.

    Picture i has the condition of a training image, the same in each measurement, noise of number
    i, and the steps and guidance of the pictures that are shown. All processes draw, each computes
    the features of some drawings, and process 0 has all of them and scores.

    Raises:
        ValueError, OSError: scores that cannot be, or files of networks that are missing.
    """

    def __init__(self, run: cfg.DiffusionRun, workdir: Path) -> None:
        self._run, self._how, self._folder = run, run.evaluation, workdir / FOLDER
        self.every = self._how.every
        self._draw: Callable[..., Any] | None = None
        self._compares = False
        file, images = self._reference()
        count = None if images is None else len(images)
        scores, problems = chosen(
            self._how.evaluator, self._how.scores, self._how.num, count,
            images is not None or file is None,
        )  # fmt: skip
        if file is not None and all(one.compares_with != "images" for one in scores.values()):
            images = None
        self._images = images
        self.criterion = self._criterion(outputs_of(scores))
        extractors = read_extractors(scores, self._how.files, FEATURE_BATCH)
        self._scorer = Scorer(self._how.evaluator, scores, extractors, file, problems)

    def measure(
        self, step: int, stage: Stage, mesh: jax.sharding.Mesh, params: Any, frozen: Any
    ) -> dict[str, float]:
        """As `Judge.measure`; writes WORKDIR/scores/STEP.json."""
        if self._draw is None:
            self._draw = jax.jit(stage.draw, out_shardings=replicated(mesh))
        draw = partial(self._draw, params, frozen)
        samples = _Drawings(self._run, stage, mesh, draw, self._how.num)
        samples.about |= {"step": step}
        self._share_reference()
        values = np.full(len(self._names), np.nan)
        parts = _features_of(samples, self._scorer.extractors)
        if jax.process_index() == 0:
            try:
                values = self._score(step, samples, parts)
            except OSError as error:  # a full disk, which must not end the run
                say(f"the drawings of step {step} could not be scored: {error}; training goes on")
        # What process 0 computes the others compute with it.
        for _ in parts:
            pass
        values = told_by_first(values)
        prefix = self._how.evaluator
        return {f"{prefix}/{name}": float(v) for name, v in zip(self._names, values, strict=True)}

    def _share_reference(self) -> None:
        """Computes the features that drawings are compared with where they are not kept yet, each
        process some files of them."""
        if self._images is None:
            return
        what = self._images, self._scorer.extractors, self._reference_folder
        # What cannot be written here process 0 tries when it scores, and says why.
        with contextlib.suppress(OSError):
            if jax.process_index() == 0:
                open_shards(*what)
        wait_for_all("the reference's folder")
        with contextlib.suppress(OSError):
            extract(*what, Processes(jax.process_index(), jax.process_count()))
        wait_for_all("the reference's features")

    @cached_property
    def _reference_folder(self) -> Path:
        named = [self._images.about, *(one.describe() for one in self._scorer.extractors)]
        digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
        return self._folder / f"reference_{digest[:12]}"

    def _score(self, step: int, samples: "_Drawings", parts: Iterator[Features]) -> Any:
        """In process 0."""
        extractors = self._scorer.extractors
        if self._images is not None and not self._compares:
            shards, _ = extract(self._images, extractors, self._reference_folder, Processes())
            self._scorer.compare_with(self._images, shards)
            self._compares = True
        with TemporaryDirectory() as folder:
            shards = open_shards(samples, extractors, Path(folder))
            for number, features in enumerate(parts):
                shards.write(number, features)
            report = self._scorer.report(samples, shards)
        self._folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps(report, indent=2) + "\n"
        write_atomically(self._folder / f"{step:08}.json", content.encode())
        return np.array([report["scores"][name]["value"] for name in self._names])

    @cached_property
    def _names(self) -> list[str]:
        return outputs_of(self._scorer.scores)

    def _criterion(self, names: Sequence[str]) -> Criterion | None:
        best = self._how.best_by
        if not best:
            return None
        if best not in names:
            raise cfg.ConfigError(
                f"evaluation.best_by is {best!r}; it must be one of {', '.join(names)}"
            )
        return Criterion(f"{self._how.evaluator}/{best}", best in HIGHER_IS_BETTER)

    def _reference(self) -> tuple[Any, ImageSet | None]:
        if not compares(self._how.evaluator, self._how.scores):
            return None, None
        most = self._how.reference_num or None
        path, data = as_path(self._how.reference), self._run.data
        if self._how.reference and is_reference(path):
            return read_reference(path), open_images(path) if has_images(path) else None
        if self._how.reference and not path.is_dir():
            images = open_images(path)
            return None, images if most is None else Spread(images, most)
        if self._how.reference:
            folder = cfg.ImageFolder(path=str(path), validation_fraction=0.0)
            data = replace(data, source=folder)
        source = open_source(data, "train")
        if not source.has_images:
            raise cfg.ConfigError(
                "evaluation.reference is missing: the data are latents, so name a folder of the "
                "images, or their statistics"
            )
        return None, DataImages(source, data, "train", most)


def _features_of(
    samples: "_Drawings", extractors: Sequence[Extractor | CaptionedExtractor]
) -> Iterator[Features]:
    """The features of drawings, file by file, which all processes compute together."""
    with computing(samples, extractors) as features_of:
        for start in range(0, len(samples), SHARD):
            rows = range(start, min(start + SHARD, len(samples)))
            try:
                found = gathered(features_of(rows), rows)
            except OSError as error:  # the others would wait for this process
                raise Failed(f"pictures to score could not be drawn: {error}") from error
            yield found


class _Drawings:
    """What `draw` draws for the conditions of a stage's training images, as a set of images."""

    sorted_by_class = False

    def __init__(
        self,
        run: cfg.DiffusionRun,
        stage: Stage,
        mesh: jax.sharding.Mesh,
        draw: Callable[[Any], Any],
        count: int,
    ) -> None:
        self._run, self._stage, self._mesh = run, stage, mesh
        self._draw, self._count = draw, count
        self._own = local_rows(mesh, run.data.batch_size)
        averaged = run.optim.ema_decay is not None
        self.about = {
            "kind": "drawn in training", "images": count, "weights": "ema" if averaged else "raw",
            "seed": run.loop.seed, "guidance_scale": run.loop.sample_guidance,
            "fingerprint": stage.train.fingerprint, "dtype": run.loop.dtype,
            "uint8": "round((x + 1) * 127.5)",
        }  # fmt: skip
        self.warnings: list[str] = []

    def __len__(self) -> int:
        return self._count

    def batches(self, rows: range) -> Iterator[Batch]:
        """As `ImageSet.batches`, of those of `rows` that are this process's own; all processes come
        here."""
        own = own_rows(rows, jax.process_index(), jax.process_count())
        drawn: list[tuple[int, np.ndarray]] = []
        size = self._run.data.batch_size
        for start in range(rows.start, rows.stop, size):
            stop = min(start + size, rows.stop)
            batch = to_global(self._mesh, self._batch(start, stop))
            images = jax.device_get(self._draw(batch))[0]
            drawn += [(row, images[row - start]) for row in own if start <= row < stop]
            while len(drawn) >= FEATURE_BATCH or (drawn and stop == rows.stop):
                some, drawn = drawn[:FEATURE_BATCH], drawn[FEATURE_BATCH:]
                numbers, pictures = zip(*some, strict=True)
                yield Batch(np.array(numbers), np.stack(pictures))

    def captions(self, rows: range) -> Sequence[str] | None:
        """As `ImageSet.captions`."""
        train = self._stage.train
        if not train.has_captions:
            return None
        return [caption_at(train, self._example(row)) for row in rows]

    def _example(self, row: int) -> int:
        """The training example whose condition a picture has."""
        return self._order[row % len(self._order)]

    @cached_property
    def _order(self) -> list[int]:
        return mixed_rows(len(self._stage.train))

    def _batch(self, start: int, stop: int) -> dict[str, Any]:
        """This process's rows of a batch, which is filled up with the last picture."""
        numbers = [min(start + row, stop - 1) for row in self._own]
        train = self._stage.train
        examples = examples_at(train, self._run.data, map(self._example, numbers))
        inputs = [
            self._stage.inputs(example, number, TASK_SEED)
            for example, number in zip(examples, numbers, strict=True)
        ]
        batch: dict[str, Any] = {"index": np.array(numbers, np.uint32)}
        batch["inputs"] = {name: np.stack([one[name] for one in inputs]) for name in inputs[0]}
        if self._sees_pictures:
            batch["image"] = np.stack([example["image"] for example in examples])
        return batch

    @property
    def _sees_pictures(self) -> bool:
        """Whether conditions are made from the images, as a picture with a hole is."""
        names = {name for conditioner in self._run.conditioners for name in conditioner.inputs}
        return not WITHOUT_PICTURES.issuperset(names)
