"""Features are computed once for every image, by whichever process; reports say what was done."""

import numpy as np
import pytest
from tiny_extractors import TinyExtractor

from ldm_jax.core.reading import FileFormatError
from ldm_jax.evaluation import feature_shards, scoring
from ldm_jax.evaluation.evaluators import EVALUATORS, chosen, usual_scores
from ldm_jax.evaluation.feature_shards import FeatureSet, FeatureShards
from ldm_jax.evaluation.image_sets import open_images
from ldm_jax.evaluation.reference_files import ReferenceFile, read_reference, write_reference
from ldm_jax.evaluation.scores.frechet import frechet_distance
from ldm_jax.evaluation.scores.moments import moments_of
from ldm_jax.evaluation.scoring import Processes, Scorer, extract

COUNT = 150


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(feature_shards, "SHARD", 32)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    path = tmp_path_factory.mktemp("samples") / "s.npz"
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 12, 3), np.uint8)
    np.savez(path, images)
    return path


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    path = tmp_path_factory.mktemp("real") / "r.npz"
    images = np.random.default_rng(1).integers(40, 256, (100, 6, 12, 3), np.uint8)
    np.savez(path, images)
    return path


def extracted(path, folder, processes=Processes(), extractor=None):  # noqa: B008
    extractor = extractor or TinyExtractor("adm")
    return extract(open_images(path), [extractor], folder, processes)


def test_processes_share_the_images(samples, tmp_path):
    whole, left = extracted(samples, tmp_path / "one")
    assert left == 0
    for index in (1, 2, 0):
        shared, left = extracted(samples, tmp_path / "three", Processes(index, 3))
    assert left == 0
    for layer in ("adm/2048", "sides"):
        np.testing.assert_array_equal(
            FeatureSet(shared).layer(layer), FeatureSet(whole).layer(layer)
        )


def test_an_interrupted_command_goes_on(samples, tmp_path):
    class Interrupted(TinyExtractor):
        def features(self, images):
            if sum(self.seen) >= 64:
                raise KeyboardInterrupt
            return super().features(images)

    with pytest.raises(KeyboardInterrupt):
        extracted(samples, tmp_path, extractor=Interrupted("adm"))
    extractor = TinyExtractor("adm")
    shards, left = extracted(samples, tmp_path, extractor=extractor)
    assert left == 0 and sum(extractor.seen) == COUNT - 64
    images = np.load(samples)["arr_0"]
    np.testing.assert_array_equal(
        FeatureSet(shards).layer("adm/2048"), TinyExtractor("adm").features(images)["2048"]
    )


def test_features_of_something_else_are_refused(samples, real, tmp_path):
    extracted(samples, tmp_path)
    with pytest.raises(FileFormatError, match="something else .*count: 150, now 100"):
        extracted(real, tmp_path)
    other = TinyExtractor("adm", weights_sha256="1" * 64)
    with pytest.raises(FileFormatError, match="something else .*extractors"):
        extracted(samples, tmp_path, extractor=other)


def test_a_folder_of_something_else_is_refused(samples, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileFormatError, match="holds files of something else"):
        extracted(samples, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_damaged_features_are_named(samples, tmp_path):
    shards, _ = extracted(samples, tmp_path)
    shards.path(1).write_bytes(b"no archive")
    with pytest.raises(FileFormatError, match="00001-of-00005.npz: .*delete it"):
        FeatureSet(shards).layer("adm/2048")


def test_rows_of_a_set(samples, tmp_path):
    shards, _ = extracted(samples, tmp_path)
    features = FeatureSet(shards)
    whole = features.layer("adm/2048")
    first, second, third = features.runs(3)
    np.testing.assert_array_equal(second.layer("adm/2048"), whole[50:100])
    np.testing.assert_allclose(third.moments("adm/2048").mean, whole[100:].mean(0), rtol=1e-6)


def report_of(samples, real, tmp_path, names=("fid", "inception_score", "precision_recall"), **how):
    scores = {name: EVALUATORS["adm"][name] for name in names}
    scorer = Scorer("adm", scores, [TinyExtractor("adm")])
    own, _ = extracted(samples, tmp_path / "own")
    other, _ = extracted(real, tmp_path / "other")
    scorer.compare_with(open_images(real), other)
    return scorer.report(open_images(samples), own, **how)


def test_a_report_has_the_scores_and_what_decided_them(samples, real, tmp_path):
    report = report_of(samples, real, tmp_path)
    features = [TinyExtractor("adm").features(np.load(f)["arr_0"])["2048"] for f in (samples, real)]
    expected = frechet_distance(*map(moments_of, features))
    assert report["scores"]["fid"]["value"] == pytest.approx(expected, rel=1e-9)
    assert {"inception_score", "precision", "recall"} <= report["scores"].keys()
    assert report["samples"]["images"] == COUNT and report["reference"]["path"] == str(real)
    assert report["extractors"][0]["weights_sha256"] == "0" * 64
    warnings = " ".join(report["warnings"])
    assert "too few" in warnings and "not the published ones" in warnings


def test_runs_and_bootstrap_say_how_certain_a_score_is(samples, real, tmp_path):
    entry = report_of(samples, real, tmp_path, ["fid"], runs=3, bootstrap=4)["scores"]["fid"]
    assert len(entry["values"]) == 3 and entry["minimum"] == min(entry["values"])
    assert entry["value"] == pytest.approx(np.mean(entry["values"]))
    assert entry["std"] == pytest.approx(np.std(entry["values"], ddof=1))
    assert 0 < entry["bootstrap_std"] < entry["value"]


def test_statistics_serve_where_no_images_are(samples, real, tmp_path):
    whole = report_of(samples, real, tmp_path, ["fid", "sfid"])
    other = FeatureSet(extracted(real, tmp_path / "other")[0])
    file = tmp_path / "r.npz"
    described = TinyExtractor("adm").describe()
    moments = {tap: other.moments(f"adm/{tap}") for tap in ("2048", "spatial")}
    write_reference(file, moments, {"images": 100, "extractors": [described]})
    scores = {name: EVALUATORS["adm"][name] for name in ("fid", "sfid")}
    scorer = Scorer("adm", scores, [TinyExtractor("adm")], read_reference(file))
    own, _ = extracted(samples, tmp_path / "own")
    report = scorer.report(open_images(samples), own)
    for name in scores:
        again = report["scores"][name]["value"]
        assert again == pytest.approx(whole["scores"][name]["value"], rel=1e-9)
    with pytest.raises(ValueError, match="as adm computes them, not as clean-fid"):
        Scorer("clean-fid", scores, [TinyExtractor("clean-fid")], read_reference(file))
    with pytest.raises(ValueError, match="made with other weights"):
        Scorer("adm", scores, [TinyExtractor("adm", weights_sha256="1" * 64)], read_reference(file))
    with pytest.raises(ValueError, match="statistics alone"):
        scoring.Reference(None, ReferenceFile(file, {}, None)).layer("adm/2048")


def test_what_each_evaluator_usually_computes():
    assert usual_scores("torch-fidelity") == ("fid", "inception_score", "kid")
    assert usual_scores("adm") == ("fid", "sfid", "inception_score", "precision_recall")
    found, problems = chosen("torch-fidelity", (), 64, 2000, True)
    assert [*found] == ["fid", "inception_score"]
    assert problems == ["kid is left out: it needs 1000 images or more, and there are 64"]
    found, problems = chosen("adm", (), 5000, None, False)
    assert "precision_recall" not in found and "statistics alone" in problems[0]


def test_a_small_reference_limits_what_compares_images_alone():
    names = ("fid", "inception_score", "fid_infinity")
    assert [*chosen("adm", names, 5000, 3, True)[0]] == [*names]
    with pytest.raises(ValueError, match="precision_recall needs 4 images or more"):
        chosen("adm", ("precision_recall",), 5000, 3, True)
    with pytest.raises(ValueError, match="fid needs 2 images or more to compare with"):
        chosen("adm", ("fid",), 5000, 1, True)


@pytest.mark.parametrize(
    ("evaluator", "name", "images", "problem"),
    [
        ("pytorch-fid", "kid", 5000, "has no score 'kid', only fid.*torch-fidelity, clean-fid has"),
        ("adm", "beauty", 5000, "has no score 'beauty'"),
        ("torch-fidelity", "kid", 999, "kid needs 1000 images or more, and there are 999"),
    ],
)
def test_scores_that_cannot_be_are_refused(evaluator, name, images, problem):
    with pytest.raises(ValueError, match=problem):
        chosen(evaluator, (name,), images, 5000, True)


def test_parts_need_their_folder(tmp_path):
    with pytest.raises(FileFormatError):
        next(FeatureShards(tmp_path, 3, {}).parts("adm/2048"))
