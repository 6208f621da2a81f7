"""Deterministic sampling benchmarks: a fixed set of samples, timed and hashed, and run again.

A record is RECORD.json, which says what was drawn, with what, how fast, and the SHA-256 of every
result, and RECORD.npz with the results themselves, so that a later run can say how far off it is.
"""

import contextlib
import io
import json
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from ldm_jax import config as cfg
from ldm_jax.core.files import write_atomically
from ldm_jax.core.reading import FileFormatError, open_file, read_json
from ldm_jax.evaluation.provenance import identity, sha256_of, surroundings
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.generation.resolve import ResolvedRequest, resolve_request
from ldm_jax.generation.used_files import other_files
from ldm_jax.images.adapter_text import checked_hashes

FORMAT = 2
_REQUIRED = ("format", "dtype", "parameters_sha256", "cases")
SAMPLERS = ("ddim", "dpmpp_2m", "euler_a")
STEPS = 20
CAPTIONS = ("a red three above a blue seven", "a green one alone")


class RecordError(ValueError):
    """A file that is no record, or a record of another model."""


@dataclass(frozen=True)
class Record:
    """What `benchmark` wrote."""

    path: Path
    content: dict[str, Any]
    requests: tuple[cfg.Request, ...]
    """Of each case."""


@dataclass(frozen=True)
class Result:
    """What one case draws."""

    latents: Float32[np.ndarray, "n zh zw z"]
    images: UInt8[np.ndarray, "n h w c"]
    seconds: float
    """Of a whole drawing, compiled before."""
    compile_seconds: float
    """What the first drawing took longer."""

    def digests(self) -> dict[str, str]:
        """SHA-256 of latents and images."""
        return {name: sha256_of(getattr(self, name)) for name in ("latents", "images")}


def usual_requests(model: cfg.Model, request: cfg.Request) -> list[cfg.Request]:
    """What a benchmark draws: `request`, with two captions, two classes or two pictures, a few
    samplers and `STEPS` where it says none."""
    if request.conditions == [None]:
        classes = cfg.find(model.conditioners, cfg.ClassConditioner)
        if "caption" in model.inputs:
            request = replace(request, prompt=CAPTIONS)
        elif classes is not None:
            request = replace(request, classes=(0, 1 % classes.num_classes))
        else:
            request = replace(request, num=max(request.num, 2))
    if request.sampling.visited is None:
        request = request.changed(steps=STEPS)
    sampler = request.sampling.sampler
    return [request.changed(sampler=name) for name in ([sampler] if sampler else SAMPLERS)]


def benchmark(pipeline: Pipeline, path: Path, requests: Sequence[cfg.Request]) -> Iterator[str]:
    """Draws each of `requests` and writes the record `path`; yields a line each.

    Drawings are timed the second time, so without compilation. All that can be refused is refused
    before the first.
    """
    cases, arrays = [], {}
    for number, resolved in enumerate([resolve_request(pipeline, request) for request in requests]):
        result = _draw(pipeline, resolved)
        rate = len(result.images) / result.seconds
        cases.append(
            {
                "request": resolved.request.to_dict(), "hashes": [*resolved.hashes],
                "sha256": result.digests(),
                "seconds": result.seconds, "compile_seconds": result.compile_seconds,
                "images_per_second": rate,
            }
        )  # fmt: skip
        arrays |= {f"{number}/latents": result.latents, f"{number}/images": result.images}
        yield f"{_title(resolved.request)}: {result.seconds:.3f} s, {rate:.3f} images/s"
    record = {"format": FORMAT} | surroundings() | identity(pipeline) | {"cases": cases}
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomically(_arrays(path), content.getvalue())
    write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())


def read(path: Path) -> Record:
    """The record in `path`.

    Raises:
        RecordError, FileFormatError: there is none, or its arrays are missing.
    """
    if path.suffix == ".npz":
        raise RecordError(
            f"{path} has a record's arrays; name the record itself, {path.with_suffix('.json')}"
        )
    content = read_json(path)
    missing = [name for name in _REQUIRED if name not in content]
    if missing:
        raise RecordError(
            f"{path} is not a record that --benchmark wrote: it has no {', '.join(missing)}"
        )
    if content["format"] != FORMAT:
        raise RecordError(f"{path} is a record of format {content['format']}; this is {FORMAT}")
    try:
        for case in content["cases"]:
            if not {"latents", "images"} == case["sha256"].keys() or not case["seconds"] > 0:
                raise TypeError("a case has no digests or seconds")
            if not isinstance(case.get("hashes", []), list):
                raise TypeError("its hashes are no list")
        requests = tuple(cfg.Request.from_dict(case["request"]) for case in content["cases"])
        if not requests:
            raise TypeError("it has no cases")
    except (TypeError, KeyError, AttributeError, cfg.ConfigError) as error:
        raise RecordError(f"{path} is a damaged record: {error}") from error
    if not _arrays(path).is_file():
        raise RecordError(f"{_arrays(path)} is missing; it belongs to {path.name}")
    return Record(path, content, requests)


def verify(pipeline: Pipeline, record: Record) -> Iterator[tuple[bool, str]]:
    """Draws a record again; yields for each case whether it is bit-equal, and a line that says so.

    First it names what is different here: files of adapters, versions, devices, dtype.

    Raises:
        RecordError: the pipeline's parameters are not those of the record, or its arrays are
            damaged.
    """
    path, content = record.path, record.content
    here = {"format": FORMAT} | surroundings() | identity(pipeline)
    results = _results(path, content["cases"])
    if here["parameters_sha256"] != content["parameters_sha256"]:
        with contextlib.suppress(ValueError):  # of a model that cannot even draw it
            requests = [resolve_request(pipeline, request) for request in record.requests]
            yield from ((True, line) for line in _other_files(content["cases"], requests))
        raise RecordError(
            f"{path} is of other parameters (SHA-256 {content['parameters_sha256'][:12]}…, here "
            f"{here['parameters_sha256'][:12]}…); name the model that it was made with, and the "
            "same adapters"
        )
    requests = [resolve_request(pipeline, request) for request in record.requests]
    yield from ((True, line) for line in _other_files(content["cases"], requests))
    for name, value in here.items():
        if content.get(name) != value:
            yield True, f"{name} was {content.get(name)!r}, is {value!r}"
    for case, recorded, resolved in zip(content["cases"], results, requests, strict=True):
        result = _draw(pipeline, resolved)
        equal = result.digests() == case["sha256"]
        how = "bit-equal" if equal else _distance(result, recorded)
        speed = f"{case['seconds'] / result.seconds:.2f} x its speed"
        yield equal, f"{_title(resolved.request)}: {how}, {speed}"


def _other_files(cases: Sequence[dict[str, Any]], resolved: Sequence[ResolvedRequest]) -> list[str]:
    """A line for each file of an adapter, hypernetwork, embedding or ControlNet that is another
    than that of the record."""
    lines: dict[str, None] = {}
    for case, one in zip(cases, resolved, strict=True):
        for written, here in zip(case.get("hashes", ()), one.hashes, strict=False):
            lines |= dict.fromkeys(other_files(checked_hashes(written), [here]))
    return [*lines]


def _results(path: Path, cases: Sequence[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
    """Latents and images of each case; RecordError where they are not those that were hashed."""
    file = _arrays(path)
    try:
        with open_file(file) as opened, np.load(opened, allow_pickle=False) as arrays:
            found = [
                {name: arrays[f"{number}/{name}"] for name in case["sha256"]}
                for number, case in enumerate(cases)
            ]
    except FileFormatError:
        raise
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError) as error:
        raise RecordError(f"{file} is damaged ({error}); it belongs to {path.name}") from error
    for number, (case, results) in enumerate(zip(cases, found, strict=True)):
        for name, expected in case["sha256"].items():
            if sha256_of(results[name]) != expected:
                raise RecordError(
                    f"{name} of case {number} in {file} are not those whose SHA-256 {path.name} "
                    "tells; one of the files is damaged"
                )
    return found


def _draw(pipeline: Pipeline, resolved: ResolvedRequest) -> Result:
    seconds = []
    count = len(resolved.plan.index)
    for _ in range(2):
        began = time.perf_counter()
        rows: list[Any] = [None] * count
        for batch in pipeline.run(resolved.plan, decode=False):
            for row, one in zip(batch.rows, batch.images, strict=True):
                rows[row] = one
        latents = np.stack(rows)
        images = pipeline.decode(latents, resolved.request.sampling.tile)
        seconds.append(time.perf_counter() - began)
    return Result(latents, images, seconds[1], max(seconds[0] - seconds[1], 0.0))


def _distance(result: Result, recorded: dict[str, np.ndarray]) -> str:
    """How far a result is from what was recorded, in words."""
    if result.latents.shape != recorded["latents"].shape:
        return f"of shape {result.latents.shape} instead of {recorded['latents'].shape}"
    error = np.abs(result.latents.astype(np.float64) - recorded["latents"])
    grey = np.abs(result.images.astype(np.int64) - recorded["images"])
    return (
        f"latents differ by at most {error.max():.3g} (root mean square "
        f"{np.sqrt(np.mean(error**2)):.3g}), pixels by at most {grey.max()} grey levels in "
        f"{np.mean(grey > 0):.2%} of their values"
    )


def _title(request: cfg.Request) -> str:
    sampling = request.sampling
    return f"{sampling.sampler}, {sampling.steps} steps, seed {sampling.seed}"


def _arrays(path: Path) -> Path:
    return path.with_suffix(".npz")
