"""Deterministic sampling benchmarks: a fixed set of samples, timed and hashed, and run again.

A record is RECORD.json, which says what was drawn, with what, how fast, and the SHA-256 of every
result, and RECORD.npz with the results themselves, so that a later run can say how far off it is.
"""

import hashlib
import io
import json
import os
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, UInt8

from ldm_jax import config as cfg
from ldm_jax.core.files import write_atomically
from ldm_jax.generation.pipeline import Pipeline, versions

FORMAT = 1
_REQUIRED = {"format", "model", "dtype", "parameters_sha256", "cases", "conditions"}
SAMPLERS = ("ddim", "dpmpp_2m", "euler_a")
STEPS = 20
CAPTIONS = ("a red three above a blue seven", "a green one alone")


class RecordError(ValueError):
    """A file that is no record, or a record of another model."""


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
        return {name: _sha256(getattr(self, name)) for name in ("latents", "images")}


def usual_conditions(model: cfg.Model) -> list[str | int | None]:
    """What a benchmark draws unless it is told: two captions, two classes, or two pictures."""
    match model.condition:
        case cfg.TextCondition():
            return [*CAPTIONS]
        case cfg.ClassCondition():
            return [0, 1 % model.condition.num_classes]
    return [None, None]


def benchmark(
    pipeline: Pipeline,
    path: Path,
    samplings: Sequence[cfg.Sampling],
    conditions: Sequence[str | int | None],
    model: str,
) -> Iterator[str]:
    """Draws `conditions` with each of `samplings` and writes the record `path`; yields a line each.

    `model` is what a later run opens. Drawings are timed the second time, so without compilation.
    """
    cases, arrays = [], {}
    for number, sampling in enumerate(samplings):
        settled = pipeline.settle(sampling)
        result = _draw(pipeline, settled, conditions)
        rate = len(conditions) / result.seconds
        cases.append(
            {
                "sampling": asdict(settled), "sha256": result.digests(),
                "seconds": result.seconds, "compile_seconds": result.compile_seconds,
                "images_per_second": rate,
            }
        )  # fmt: skip
        arrays |= {f"{number}/latents": result.latents, f"{number}/images": result.images}
        yield f"{_title(settled)}: {result.seconds:.3f} s, {rate:.3f} images/s"
    record = _circumstances(pipeline) | {
        "model": model, "conditions": list(conditions), "cases": cases,
    }  # fmt: skip
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomically(_arrays(path), content.getvalue())
    write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())


def read(path: Path) -> dict[str, Any]:
    """The record in `path`.

    Raises:
        RecordError: there is none, or its arrays are missing.
    """
    if not path.is_file():
        raise RecordError(f"{path} is no file; name the record.json that --benchmark wrote")
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise RecordError(f"{path} is not a record that --benchmark wrote ({error})") from error
    missing = _REQUIRED - set(record) if isinstance(record, dict) else _REQUIRED
    if missing:
        raise RecordError(
            f"{path} is not a record that --benchmark wrote: it has no {', '.join(sorted(missing))}"
        )
    if record["format"] != FORMAT:
        raise RecordError(f"{path} is a record of format {record['format']}; this is {FORMAT}")
    if not _arrays(path).is_file():
        raise RecordError(f"{_arrays(path)} is missing; it belongs to {path.name}")
    return record


def verify(pipeline: Pipeline, path: Path) -> Iterator[tuple[bool, str]]:
    """Draws a record again; yields for each case whether it is bit-equal, and a line that says so.

    First it names what is different here: versions, devices, dtype.

    Raises:
        RecordError: the pipeline's parameters are not those of the record, or its arrays are
            damaged.
    """
    record, here = read(path), _circumstances(pipeline)
    results = _results(path, record["cases"])
    if here["parameters_sha256"] != record["parameters_sha256"]:
        raise RecordError(
            f"{path} is of other parameters (SHA-256 {record['parameters_sha256'][:12]}…, here "
            f"{here['parameters_sha256'][:12]}…); name the model that it was made with"
        )
    for name, value in here.items():
        if record.get(name) != value:
            yield True, f"{name} was {record.get(name)!r}, is {value!r}"
    for case, recorded in zip(record["cases"], results, strict=True):
        lists = {k: tuple(v) for k, v in case["sampling"].items() if isinstance(v, list)}
        sampling = cfg.Sampling(**case["sampling"] | lists)
        result = _draw(pipeline, sampling, record["conditions"])
        equal = result.digests() == case["sha256"]
        how = "bit-equal" if equal else _distance(result, recorded)
        speed = f"{case['seconds'] / result.seconds:.2f} x its speed"
        yield equal, f"{_title(sampling)}: {how}, {speed}"


def _results(path: Path, cases: Sequence[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
    """Latents and images of each case; RecordError where they are not those that were hashed."""
    file = _arrays(path)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = [
                {name: arrays[f"{number}/{name}"] for name in case["sha256"]}
                for number, case in enumerate(cases)
            ]
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError) as error:
        raise RecordError(f"{file} is damaged ({error}); it belongs to {path.name}") from error
    for number, (case, results) in enumerate(zip(cases, found, strict=True)):
        for name, expected in case["sha256"].items():
            if _sha256(results[name]) != expected:
                raise RecordError(
                    f"{name} of case {number} in {file} are not those whose SHA-256 {path.name} "
                    "tells; one of the files is damaged"
                )
    return found


def usual_samplings(sampling: cfg.Sampling, sampler: str | None) -> list[cfg.Sampling]:
    """`sampling` with `sampler` alone, or with each of a fixed few where that is None."""
    if sampler is not None:
        return [replace(sampling, sampler=sampler)]
    return [replace(sampling, sampler=name) for name in SAMPLERS]


def _draw(
    pipeline: Pipeline, sampling: cfg.Sampling, conditions: Sequence[str | int | None]
) -> Result:
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        latents = pipeline.generate(conditions, sampling=sampling, decode=False)
        images = pipeline.decode(latents, sampling.tile)
        seconds.append(time.perf_counter() - began)
    return Result(latents, images, seconds[1], max(seconds[0] - seconds[1], 0.0))


def _circumstances(pipeline: Pipeline) -> dict[str, Any]:
    """What decides the bits of a drawing besides its settings."""
    return versions() | {
        "format": FORMAT,
        "dtype": pipeline.dtype,
        "platform": jax.default_backend(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "parameters_sha256": _sha256(*jax.tree.leaves((pipeline.params, pipeline.frozen))),
    }


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


def _sha256(*arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        digest.update(array.view(np.uint8) if array.ndim else array.tobytes())
    return digest.hexdigest()


def _title(sampling: cfg.Sampling) -> str:
    return f"{sampling.sampler}, {sampling.steps} steps, seed {sampling.seed}"


def _arrays(path: Path) -> Path:
    return path.with_suffix(".npz")
