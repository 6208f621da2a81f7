"""Sampling benchmarks: records that a later run is held against."""

import json

import jax
import numpy as np
import pytest
import small_tunings
from PIL import Image

from ldm_jax.cli import sample
from ldm_jax.cli.sample_arguments import parse
from ldm_jax.convert.file_hashes import short_hash
from ldm_jax.convert.hypernetworks.hypernetwork_files import write_hypernetwork
from ldm_jax.evaluation import repeatability

PROMPT = ("a red three alone",)


@pytest.fixture(scope="module")
def record(trained_text2img, tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark")
    words = ["--prompt", *PROMPT, "--sampler=ddim", "--steps=2", "--batch_size=2", "--num=2"]
    return sample.benchmark(parse([f"--model={trained_text2img}", f"--out={out}", *words]))


def verify(record, *words):
    return sample.verify(parse([f"--verify={record}", *words]))


def changed(record, tmp_path, change):
    content = json.loads(record.read_text())
    change(content)
    copy = tmp_path / "record.json"
    copy.write_text(json.dumps(content))
    copy.with_suffix(".npz").write_bytes(record.with_suffix(".npz").read_bytes())
    return copy


def test_a_record_says_what_was_drawn_with_what_and_how_fast(record):
    content = json.loads(record.read_text())
    assert content["platform"] == "cpu" and content["jax"] == jax.__version__
    (case,) = content["cases"]
    assert case["request"]["sampler"] == "ddim" and case["request"]["steps"] == 2
    assert case["request"]["prompt"] == [*PROMPT] and case["request"]["num"] == 2
    assert case["images_per_second"] == pytest.approx(2 / case["seconds"])
    with np.load(record.with_suffix(".npz")) as arrays:
        assert arrays["0/images"].shape == (2, 16, 16, 3)
        assert not np.array_equal(arrays["0/images"][0], arrays["0/images"][1])


def test_the_same_samples_are_bit_equal(record, capsys):
    assert verify(record)
    assert "bit-equal" in capsys.readouterr().out


def test_other_samples_are_measured(record, tmp_path, capsys):
    def other_seed(content):
        content["cases"][0]["request"]["seed"] = 1
        content["jax"] = "0.0.1"

    assert not verify(changed(record, tmp_path, other_seed))
    said = capsys.readouterr().out
    assert "jax was '0.0.1'" in said and "latents differ by at most" in said
    assert "grey levels" in said


def test_records_of_other_parameters_and_other_files_are_refused(record, tmp_path):
    def other(content):
        content["parameters_sha256"] = "0" * 64

    with pytest.raises(repeatability.RecordError, match="other parameters"):
        verify(changed(record, tmp_path, other))
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(repeatability.RecordError, match="not a record.*has no format, dtype"):
        repeatability.read(tmp_path / "no.json")
    with pytest.raises(ValueError, match="absent.json: does not exist"):
        repeatability.read(tmp_path / "absent.json")


@pytest.fixture(scope="module")
def tunings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tunings")
    small_tunings.write_all(folder)
    Image.new("RGB", (16, 16)).save(folder / "hint.png")
    return folder


def test_files_that_are_drawn_with_are_known_by_their_hashes(tunings, tmp_path, capsys):
    files = {
        "lora": {"style": tunings / "loras" / "style.safetensors"},
        "hypernetwork": {"hyper": tunings / "nets" / "hyper.pt"},
        "embeddings": {"zork": tunings / "words" / "zork.safetensors"},
        "control": {"net": tunings / "net"},
    }
    named = [f"--{kind}={path}" for kind, own in files.items() for path in own.values()]
    words = [*named, f"--model={tunings / 'model'}", f"--hint={tunings / 'hint.png'}",
             "--prompt", "a zork", "--sampler=ddim", "--steps=2", "--batch_size=1",
             f"--out={tmp_path}"]  # fmt: skip
    record = sample.benchmark(parse(words))
    (case,) = json.loads(record.read_text())["cases"]
    assert case["hashes"] == [
        {kind: {name: short_hash(path, kind) for name, path in own.items()}
         for kind, own in files.items()}
    ]  # fmt: skip
    write_hypernetwork(small_tunings.hypernetwork(1), tunings / "nets" / "hyper.pt", overwrite=True)
    capsys.readouterr()
    with pytest.raises(repeatability.RecordError, match="other parameters .* the same adapters"):
        verify(record)
    assert "'hyper' was another file when this was drawn" in capsys.readouterr().out


def test_the_arrays_of_a_record_are_not_the_record(record):
    with pytest.raises(repeatability.RecordError, match=r"name the record itself, .*record\.json"):
        repeatability.read(record.with_suffix(".npz"))


def test_damaged_arrays_are_noticed_before_anything_is_drawn(record, tmp_path):
    copy = changed(record, tmp_path, lambda content: None)
    arrays = bytearray(copy.with_suffix(".npz").read_bytes())
    arrays[len(arrays) // 2] ^= 1
    copy.with_suffix(".npz").write_bytes(arrays)
    with pytest.raises(repeatability.RecordError, match=r"record.npz is damaged .*CRC"):
        verify(copy)

    def other_digest(content):
        content["cases"][0]["sha256"]["images"] = "0" * 64

    copy = changed(record, tmp_path, other_digest)
    with pytest.raises(
        repeatability.RecordError, match="images of case 0 .* one of the files is damaged"
    ):
        verify(copy)


def test_options_that_a_record_decides_are_refused(record):
    with pytest.raises(ValueError, match="leave out --steps"):
        verify(record, "--steps=6")


def test_without_wishes_a_few_samplers_draw_two_captions(trained_text2img, tmp_path):
    few = [f"--model={trained_text2img}", f"--out={tmp_path}", "--steps=2", "--batch_size=2",
           "--seed=3"]  # fmt: skip
    content = json.loads(sample.benchmark(parse(few)).read_text())
    requests = [case["request"] for case in content["cases"]]
    assert [request["sampler"] for request in requests] == [*repeatability.SAMPLERS]
    for request in requests:
        assert request["prompt"] == [*repeatability.CAPTIONS] and request["seed"] == 3
