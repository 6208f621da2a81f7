"""A run scores its own drawings, and keeps the checkpoint that is best by a score."""

import errno
import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
from tiny_extractors import read_tiny

from ldm_jax import config as cfg
from ldm_jax.config.serialization import from_json, to_json
from ldm_jax.evaluation.feature_shards import FeatureShards
from ldm_jax.evaluation.features import extractors
from ldm_jax.evaluation.training_scores import TrainingScores
from ldm_jax.images.grid import save_png
from ldm_jax.training.curves import BELOW, HEIGHT, WIDTH, draw_curves
from ldm_jax.training.metrics import read_metrics
from ldm_jax.workdir.checkpoints import Criterion
from ldm_jax.workdir.layout import METRICS

SCORES = cfg.DrawnScores(
    every=1, evaluator="adm", scores=("fid", "precision_recall"), num=10, best_by="fid"
)


def scored(run, **changes):
    loop = replace(run.loop, steps=2, checkpoint_every=1, keep=1, sample_every=0, validate_every=2)
    return replace(run, loop=loop, evaluation=replace(SCORES, **changes))


@pytest.fixture(scope="module")
def trained(pictures, trained_autoencoder, tmp_path_factory):
    """The work directory of a run of two steps, each of which is scored."""
    workdir = tmp_path_factory.mktemp("scored") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractors, "read_extractor", read_tiny)
        tiny.fit(
            scored(tiny.diffusion_run(pictures)), workdir, first_stage=trained_autoencoder
        )  # fmt: skip
    return workdir


def test_each_measurement_is_a_metric_and_a_report(trained):
    records = [one for one in read_metrics(trained / METRICS) if "adm/fid" in one]
    assert [one["step"] for one in records] == [1, 2]
    for one in records:
        report = json.loads((trained / "scores" / f"{one['step']:08}.json").read_text())
        assert report["scores"]["fid"]["value"] == pytest.approx(one["adm/fid"])
        assert report["samples"]["step"] == one["step"] and report["samples"]["images"] == 10
        assert report["reference"]["kind"] == "data"
        assert {"adm/precision", "adm/recall"} <= one.keys()


def test_curves_of_scores_stand_below_the_others():
    losses = [{"step": step, "loss": 1.0, "validation_loss/level_0": 1.0} for step in (1, 2)]
    scores = [one | {"adm/fid": 1.0, "adm/sfid": 2.0, "adm/recall": 0.5} for one in losses]
    assert draw_curves(losses).shape == (HEIGHT, WIDTH, 3)
    assert draw_curves(scores).shape == (HEIGHT + 2 * BELOW, WIDTH, 3)


def test_the_best_checkpoint_is_kept(trained):
    fids = tiny.losses(trained, "adm/fid")
    best = min(fids, key=lambda step: (fids[step], -step))
    kept = {int(path.name) for path in (trained / "checkpoints").iterdir() if path.name.isdigit()}
    assert kept == {best, 2}


def test_a_full_disk_costs_a_measurement_and_not_the_run(
    pictures, trained_autoencoder, tmp_path, monkeypatch, capsys
):
    def full(*_):
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(extractors, "read_extractor", read_tiny)
    monkeypatch.setattr(FeatureShards, "write", full)
    run = scored(tiny.diffusion_run(pictures))
    state = tiny.fit(run, tmp_path / "run", first_stage=trained_autoencoder)
    assert int(state.step) == 2 and "could not be scored: " in capsys.readouterr().err
    records = [one for one in read_metrics(tmp_path / "run" / METRICS) if "adm/fid" in one]
    assert [one["adm/fid"] for one in records] == [None, None]


def test_criteria():
    values = {1: 0.5, 2: 0.7, 3: np.nan, 4: 0.7}
    assert Criterion("fid").best(values) == 1
    assert Criterion("recall", higher_is_better=True).best(values) == 4
    assert Criterion("fid").best({1: np.nan}) is None
    assert Criterion("fid").value({"fid": 2.0}) == 2 and np.isnan(Criterion("fid").value(None))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"scores": ("kid",)}, "adm has no score 'kid'"),
        ({"best_by": "beauty"}, "evaluation.best_by is 'beauty'; it must be one of fid, precision"),
        ({"num": 2, "scores": ("precision_recall",)}, "needs 4 images or more"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_training(
    pictures, tmp_path, monkeypatch, changes, problem
):
    monkeypatch.setattr(extractors, "read_extractor", read_tiny)
    with pytest.raises(ValueError, match=problem):
        TrainingScores(scored(tiny.diffusion_run(pictures), **changes), tmp_path)


def test_a_folder_to_compare_with_is_fitted_to_the_size_of_training(
    tmp_path, monkeypatch, pictures
):
    """Whatever trains, so that latents can be trained on and their images be compared with."""
    monkeypatch.setattr(extractors, "read_extractor", read_tiny)
    folder = tmp_path / "large"
    folder.mkdir()
    for number in range(8):
        save_png(folder / f"{number}.png", np.zeros((40, 60, 3), np.uint8))
    run = scored(tiny.diffusion_run(pictures), reference=str(folder), reference_num=4)
    images = TrainingScores(run, tmp_path / "run")._images
    (batch,) = images.batches(range(len(images)))
    assert batch.images.shape == (4, *run.data.sides, 3)


def test_weights_that_are_missing_are_named_before_training(pictures, tmp_path, monkeypatch):
    monkeypatch.delenv("LDM_JAX_INCEPTION", raising=False)
    with pytest.raises(ValueError, match="LDM_JAX_INCEPTION"):
        TrainingScores(scored(tiny.diffusion_run(pictures)), tmp_path)


def test_scores_are_part_of_the_config(pictures):
    run = scored(tiny.diffusion_run(pictures))
    assert from_json(to_json(run)) == run
    with pytest.raises(cfg.ConfigError, match="a multiple of loop.checkpoint_every, 2"):
        replace(run, loop=replace(run.loop, checkpoint_every=2))
