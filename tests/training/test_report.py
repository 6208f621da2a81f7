"""What runs tell of themselves, and what their time went to."""

import json

import pytest
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.training import report
from ldm_jax.training.time_budget import PARTS, TimeBudget, speed, told_times, trained_share


def timed(everything, **parts):
    spent = dict.fromkeys(PARTS, 0.0) | parts
    return {f"time/{part}": value for part, value in spent.items()} | {"time/all": everything}


def test_the_rest_of_the_time_trained():
    record = timed(200.0, compile=20.0, data=10.0)
    assert trained_share(record) == pytest.approx(0.85)
    assert told_times(record) == "85% of the time trained; compile 10%, data 5%"
    budget = TimeBudget()
    with budget.spending("checkpoints"):
        pass
    budget.add("data", 3.0)
    assert budget.record()["time/data"] == 3.0 and 0 < budget.record()["time/checkpoints"] < 1


def test_the_time_of_a_second_run_in_a_process_begins_where_the_first_ended():
    first = TimeBudget()
    first.end()
    second = TimeBudget().record()
    assert second["time/start"] <= second["time/all"] < first.record()["time/all"]


def test_speed_is_of_all_devices_and_of_each():
    found = speed(steps=5, batch_size=16, seconds=2.0, model_flops=4e12, devices=4)
    assert found == {
        "images_per_second": 40.0, "images_per_second_per_device": 10.0, "step_seconds": 0.4,
        "tflops_per_device": 2.5,
    }  # fmt: skip


@pytest.fixture
def workdir(tmp_path):
    """A run of two processes, one after the other."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(cfg.to_json(cfg.load("digit_scenes_autoencoder")))
    lines = [
        {"step": 20, "loss": 1.0, "images_per_second": 50.0} | timed(60.0, compile=30.0),
        {"step": 40, "loss": 0.5, "images_per_second": 60.0} | timed(100.0, compile=30.0),
        {"step": 40, "validation_loss": 0.7},
        {"step": 60, "loss": 0.4, "images_per_second": 70.0, "gradient_norm/unet/conv_in": 0.1,
         "update_norm/unet/conv_in": 0.01} | timed(60.0, start=10.0),
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_times_of_a_run_that_went_on_are_added_up(workdir):
    run = report.read(workdir)
    assert run.seconds == timed(160.0, compile=30.0, start=10.0)
    assert run.cells() | {"images": "", "run": ""} == {
        "run": "", "steps": "60", "images": "", "images/s": "60", "hours": "0.044",
        "trained": "75%", "start": "6%", "compile": "19%", "data": "0%", "validation": "0%",
        "checkpoints": "0%",
    }  # fmt: skip


def test_a_table_and_a_picture_of_several_runs(workdir, tmp_path, capsys):
    out = tmp_path / "report.png"
    assert report.main([str(workdir), str(workdir), f"--out={out}"]) == 0
    assert capsys.readouterr().out.count("| 75% |") == 2
    with Image.open(out) as picture:
        assert picture.size == (report.WIDTH, report.HEIGHT + report.BELOW)


def test_what_is_no_run_is_refused(workdir, tmp_path, capsys):
    (workdir / "metrics.jsonl").write_text("")
    for path, complaint in ((tmp_path, "is no work directory"), (workdir, "has no metrics yet")):
        assert report.main([str(path)]) == 2
        assert complaint in capsys.readouterr().err
    (workdir / "metrics.jsonl").write_text("{broken\n")
    assert report.main([str(workdir)]) == 2
    assert "metrics.jsonl is damaged" in capsys.readouterr().err
