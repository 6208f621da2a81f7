"""Metrics files without duplicates."""

import json
import math
import resource

import numpy as np
import pytest
from PIL import Image

from ldm_jax.core.stores import Unreachable
from ldm_jax.training import metrics


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def write(workdir, steps, rewind=None):
    with metrics.MetricWriter(workdir) as writer:
        if rewind is not None:
            writer.rewind(rewind)
        for step in steps:
            writer.scalars(step, {"loss": float(step)})


def test_values_are_lines_and_tensorboard_events(tmp_path):
    with metrics.MetricWriter(tmp_path) as writer:
        writer.scalars(20, {"loss": 0.5, "broken": math.inf})
        writer.scalars(20, {"validation_loss": 0.25})
        writer.image(20, "samples", np.zeros((4, 8, 3), np.uint8))
    assert lines(tmp_path) == [
        {"step": 20, "loss": 0.5, "broken": None},
        {"step": 20, "validation_loss": 0.25},
    ]
    assert [p.name[:6] for p in (tmp_path / "tensorboard").iterdir()] == ["events"]
    with Image.open(tmp_path / "samples" / "step_0000020_samples.png") as picture:
        assert picture.size == (8, 4)


def test_a_resumed_run_leaves_no_duplicates_and_no_half_line(tmp_path):
    write(tmp_path, [20, 40, 60])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 80, "lo')
    (tmp_path / "samples").mkdir()
    for step in (40, 60):
        (tmp_path / "samples" / f"step_{step:07d}_held_out.png").touch()
    write(tmp_path, [60, 80], rewind=40)
    assert [line["step"] for line in lines(tmp_path)] == [20, 40, 60, 80]
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["step_0000040_held_out.png"]


def test_a_run_from_the_start_leaves_nothing_of_the_one_before(tmp_path):
    write(tmp_path, [20, 40])
    write(tmp_path, [20])
    assert [line["step"] for line in lines(tmp_path)] == [20]


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"loss": 1}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        write(tmp_path, [2], rewind=1)


def test_metrics_that_cannot_be_written_stop_no_run(tmp_path, capfd):
    """Neither a scalar nor a picture, and the writer never waits."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with metrics.MetricWriter(tmp_path) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
        try:
            for step in range(1, 200):
                writer.scalars(step, {"loss": 0.5})
                writer.image(step, "samples", picture)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capfd.readouterr().err
    assert said.count("\n") == 2 and f"pictures cannot be written to {tmp_path}: " in said
    assert (
        f"metrics cannot be written to {tmp_path}: a file would be larger than is allowed" in said
    )
    write(tmp_path, [2], rewind=1)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_a_store_that_refuses_the_last_metrics_stops_no_run(tmp_path, monkeypatch, capsys):
    text = "gs://bucket/run/metrics.jsonl: the store does not do pipe_file: Forbidden"

    def copy(self, now=False):
        if now:  # at the end
            raise Unreachable(text)

    monkeypatch.setattr(metrics.GrowingFiles, "copy", copy)
    write(tmp_path, [20])
    assert f"{text}; the run goes on without them" in capsys.readouterr().err
