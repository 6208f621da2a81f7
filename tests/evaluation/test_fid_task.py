"""The commands `fid`, `reference`, `sweep` and `table`, with a network that is quickly run."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_extractors import read_tiny

from ldm_jax import config as cfg
from ldm_jax.config import Sampling
from ldm_jax.config.serialization import from_json
from ldm_jax.convert.parts import read_first_stage
from ldm_jax.data.example_order import mixed_rows
from ldm_jax.data.sources import open_source
from ldm_jax.evaluation import __main__ as command
from ldm_jax.evaluation import fid_task
from ldm_jax.evaluation.features import extractors
from ldm_jax.evaluation.first_stage_quality import FirstStageProgram
from ldm_jax.evaluation.image_sets import DataImages, FolderImages
from ldm_jax.evaluation.rater import accuracy, train_rater
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.images.grid import save_png


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    monkeypatch.setattr(extractors, "read_extractor", read_tiny)


@pytest.fixture(scope="module")
def drawn(trained_text2img, tmp_path_factory):
    """The report of a model's drawings, and its folder."""
    out = tmp_path_factory.mktemp("fid")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractors, "read_extractor", read_tiny)
        assert command.main(words(trained_text2img, out)) == 0
    return out


def words(model, out, *more):
    return [
        "fid", f"--model={model}", f"--out={out}", "--num=12", "--steps=2", "--batch_size=8",
        f"--samples_npz={out}/samples.npz", *more,
    ]  # fmt: skip


def read(out):
    return json.loads((out / "scores.json").read_text())


def test_a_model_is_scored_against_what_it_was_trained_on(drawn, trained_text2img):
    report = read(drawn)
    assert report["evaluator"] == "torch-fidelity" and report["scores"]["fid"]["value"] > 0
    samples = report["samples"]
    assert samples["request"]["steps"] == 2 and samples["request"]["sampler"] == "ddim"
    assert samples["origin"]["weights"] == "ema" and len(samples["parameters_sha256"]) == 64
    assert report["reference"]["kind"] == "data" and report["reference"]["fingerprint"]
    assert any("kid is left out" in warning for warning in report["warnings"])


def test_reconstructions_are_scored(trained_autoencoder, tmp_path):
    options = ["--reconstructions", "--reference_num=20", "--num=20", f"--out={tmp_path}"]
    npz = tmp_path / "samples.npz"
    words = ["fid", f"--model={trained_autoencoder}", *options, f"--samples_npz={npz}"]
    assert command.main(words) == 0
    report = read(tmp_path)
    assert report["samples"]["kind"] == "reconstructed" and report["samples"]["images"] == 20
    data = from_json((trained_autoencoder / "config.json").read_text()).data
    images = DataImages(open_source(data, "train"), data, "train", 20)
    originals = np.concatenate([batch.images for batch in images.batches(range(20))])
    expected = FirstStageProgram(read_first_stage(trained_autoencoder), 20)(originals)
    np.testing.assert_array_equal(np.load(npz)["arr_0"], expected.reconstruction)


def test_what_is_scored_is_what_sample_py_draws(drawn, trained_text2img, pictures):
    images = np.load(drawn / "samples.npz")["arr_0"]
    pipeline = Pipeline(trained_text2img)
    data = from_json((trained_text2img / "config.json").read_text()).data
    every = list(open_source(data, "train").captions())
    captions = [every[i] for i in mixed_rows(len(every))[:12]]
    expected = pipeline.generate(captions, sampling=Sampling(steps=2, batch_size=8))
    np.testing.assert_array_equal(images, expected)


def test_classes_are_drawn_as_often_as_the_data_set_has_them(tmp_path):
    """Of a folder that is sorted by class, so also when few are drawn."""
    for name, count in (("a", 30), ("b", 90)):
        for number in range(count):
            (tmp_path / name).mkdir(exist_ok=True)
            save_png(tmp_path / name / f"{number}.png", np.zeros((2, 2, 3), np.uint8))
    source = cfg.ImageFolder(path=str(tmp_path), validation_fraction=0.0)
    run = cfg.load("image_folder_class", num_classes=2)
    model = run.model(cfg.load("image_folder_autoencoder").autoencoder)
    arguments = fid_task.Arguments(data=replace(run.data, source=source))
    captions, classes = fid_task.conditions_of(arguments, model)
    assert not captions and len(classes) == 120
    for start in range(0, 120, 40):
        assert 4 < classes[start : start + 40].count(0) < 16


def test_drawings_as_a_file_have_the_same_scores(drawn, trained_text2img, tmp_path, capsys):
    options = [
        "fid", f"--samples={drawn}/samples.npz", f"--out={tmp_path}",
        f"--config={trained_text2img.parent}/config.py", "--scores=fid",
    ]  # fmt: skip
    assert command.main(options) == 0
    assert read(tmp_path)["scores"]["fid"] == read(drawn)["scores"]["fid"]
    assert "fid" in capsys.readouterr().out


def test_a_report_is_computed_again(drawn, capsys):
    def there():
        return {path: path.stat().st_mtime_ns for path in drawn.rglob("*") if path.is_file()}

    before = there()
    assert command.main(["fid", f"--verify={drawn}/scores.json"]) == 0
    assert "measured again, all the same" in capsys.readouterr().out
    assert there() == before, "nothing that was there is touched"
    changed = read(drawn)
    changed["scores"]["fid"]["value"] += 1
    other = drawn / "changed" / "scores.json"
    other.parent.mkdir()
    other.write_text(json.dumps(changed))
    assert command.main(["fid", f"--verify={other}"]) == 1
    captured = capsys.readouterr()
    assert "scores.fid.value" in captured.out and "1 things differ" in captured.err


def test_statistics_of_a_data_set_serve_as_reference(drawn, trained_text2img, tmp_path, capsys):
    file = tmp_path / "reference.npz"
    assert command.main(["reference", f"--model={trained_text2img}", f"--out={file}"]) == 0
    assert not list(tmp_path.glob("*.features"))
    options = words(trained_text2img, tmp_path / "out", f"--reference={file}", "--scores=fid")
    assert command.main(options) == 0
    again = read(tmp_path / "out")
    assert again["scores"]["fid"]["value"] == pytest.approx(
        read(drawn)["scores"]["fid"]["value"], rel=1e-9
    )
    assert again["reference"]["provenance"]["images"] > 0
    other = words(trained_text2img, tmp_path / "other", f"--reference={file}", "--inception=other")
    assert command.main(other) == 2
    assert "made with other weights" in capsys.readouterr().err


def test_processes_share_the_work(trained_text2img, drawn, tmp_path, capsys, monkeypatch):
    from ldm_jax.evaluation import feature_shards

    monkeypatch.setattr(feature_shards, "SHARD", 8)
    options = words(trained_text2img, tmp_path, "--num_processes=2", "--scores=fid")
    assert command.main([*options, "--process_id=1"]) == 0
    assert "left to other processes" in capsys.readouterr().out
    assert command.main([*options, "--process_id=0"]) == 0
    assert read(tmp_path)["scores"]["fid"]["value"] == pytest.approx(
        read(drawn)["scores"]["fid"]["value"], rel=1e-9
    )


def test_drawings_are_rated(trained_text2img, pictures, tmp_path, monkeypatch, capsys):
    rater = train_rater(steps=1)
    rater.save(tmp_path / "rater.npz")
    options = [
        "fid", "--evaluator=digit-scenes", f"--rater={tmp_path}/rater.npz", "--num=12",
        f"--out={tmp_path}/out",
    ]  # fmt: skip
    assert command.main([*options, f"--samples={pictures}"]) == 0
    report = read(tmp_path / "out")
    images = FolderImages(pictures)
    first = next(images.batches(range(12)))
    expected = accuracy(rater, first.images, images.captions(range(12)))["all"]
    assert report["scores"]["caption_right"]["value"] == expected
    assert report["reference"] is None and len(report["extractors"][0]["weights_sha256"]) == 64


def test_a_sweep_writes_a_table_and_a_plot(trained_text2img, tmp_path, capsys):
    options = [
        "sweep", *words(trained_text2img, tmp_path, "--scores=fid")[1:-2],
        "--scores=fid", "--guidance_scale", "1", "2", "--steps=1",
    ]  # fmt: skip
    assert command.main(options) == 0
    rows = (tmp_path / "sweep.md").read_text().splitlines()
    assert rows[0] == "| guidance_scale | steps | fid |" and len(rows) == 6
    assert (tmp_path / "sweep.png").stat().st_size > 1000
    reports = sorted(tmp_path.glob("*/scores.json"))
    assert len(reports) == 4
    assert command.main(["fid", f"--verify={reports[-1]}"]) == 0
    capsys.readouterr()
    assert command.main(["table", *map(str, reports)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_numbers_that_cannot_be_compared_stand_in_no_table(drawn, tmp_path, capsys):
    report = read(drawn)
    for field, value in (("evaluator", "adm"), ("samples", {"images": 99}), ("reference", None)):
        (tmp_path / "other.json").write_text(json.dumps(report | {field: value}))
        assert command.main(["table", f"{drawn}/scores.json", f"{tmp_path}/other.json"]) == 2
        assert "cannot be compared" in capsys.readouterr().err
    (tmp_path / "other.json").write_text("{}")
    assert command.main(["table", f"{tmp_path}/other.json"]) == 2
    assert "no report of the task fid" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["fid"], "--samples is None; it must be given, or --model"),
        (["fid", "--samples={out}", "--model={model}"], "and not both"),
        (["fid", "--samples={out}/samples.npz"], "nothing to compare with"),
        (["fid", "--model={model}", "--scores=kid", "--num=12"], "kid needs 1000 images"),
        (["fid", "--model={model}", "--evaluator=cmmd"], "--clip=FOLDER is missing"),
        (
            ["fid", "--samples={out}/samples.npz", "--evaluator=digit-scenes", "--num=12"],
            "images with their captions, and these have none",
        ),
        (["fid", "--model={model}", "--evaluator=mine"], "evaluator"),
        (["fid", "--model={model}", "--bootstrap=1"], "--bootstrap is 1; it must be 0, or 2"),
        (["fid", "--model={model}", "--num=12", "--classes=1"], "classes are given"),
        (["fid", "--verify={out}/absent.json"], "absent.json"),
        (["fid", "--samples={out}", "--reconstructions"], "with --model and a data set"),
        (["fid", "--model={model}", "--reconstructions", "--steps=9"], "nothing is drawn"),
        (["sweep", "--steps=9", "--model={model}", "--reconstructions"], "a sweep draws"),
        (["sweep", "--model={model}"], "nothing varies"),
        (["sweep", "--guidance_scale=1", "--samples={out}"], "a sweep draws"),
        (["reference"], "no images are named"),
        ([], "the task is missing"),
        (["beauty"], "the task is 'beauty'; it must be one of fid, reference"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    drawn, trained_text2img, tmp_path, capsys, monkeypatch, options, problem
):
    monkeypatch.chdir(tmp_path)
    filled = [word.format(out=drawn, model=trained_text2img) for word in options]
    assert command.main(filled) == 2
    error = capsys.readouterr().err
    assert problem in error and "Traceback" not in error
