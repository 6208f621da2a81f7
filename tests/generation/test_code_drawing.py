"""`python -m ldm_jax.cli.sample_codes`: what it writes, and that it can be drawn again."""

import json

import numpy as np
import pytest
import tiny
import tiny_codes
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.cli.sample_codes_task import CHUNK, Arguments, run
from ldm_jax.config.command_line import overridden
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.loading import load
from ldm_jax.formats.safetensors_file import write_safetensors


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    config = tiny_codes.config()
    path = tmp_path_factory.mktemp("taming") / "model.safetensors"
    write_safetensors(path, tiny_codes.taming_tensors(config, *tiny_codes.params_of(config)))
    return path


def arguments(*words):
    return overridden(Arguments(), words, "sample_codes")


def pixels(path):
    return np.asarray(Image.open(path))


def test_each_picture_says_how_it_is_drawn_again(file, tmp_path):
    made = arguments(
        f"--model={file}", "--heads=2", "--num_classes=5", "--classes", "3", "1", "--num=3",
        "--seed=5", "--sampling.top_k=6", "--batch_size=4", f"--out={tmp_path / 'out'}",
    )  # fmt: skip
    grid = run(made)
    names = sorted(path.name for path in grid.parent.iterdir())
    assert names == [f"{c:04d}_{n:04d}.png" for c in (1, 3) for n in range(3)] + ["grid.png"]
    picture = grid.parent / "0001_0002.png"
    assert pixels(picture).shape == (8, 8, 3)
    said = json.loads(Image.open(picture).text[CHUNK])["arguments"]
    assert said["classes"] == [1] and said["first_image"] == 2 and said["num"] == 1
    sampling = cfg.CodeSampling(**said.pop("sampling"))
    again = Arguments(
        **said | {"classes": tuple(said["classes"]), "sampling": sampling, "out": tmp_path / "two"}
    )
    run(again)
    # Another batch size compiles another program, whose sums round otherwise.
    difference = pixels(tmp_path / "two/0001_0002.png").astype(int) - pixels(picture)
    assert np.abs(difference).max() <= 1


def test_what_cannot_be_drawn_is_refused(file, tmp_path):
    model = (f"--model={file}", "--heads=2", f"--out={tmp_path / 'out'}")
    with pytest.raises(cfg.ConfigError, match="--classes is 5; it must be from 0 to 4"):
        run(arguments(*model, "--num_classes=5", "--classes", "5"))
    with pytest.raises(cfg.ConfigError, match="--classes is None; it must be given"):
        run(arguments(*model, "--num_classes=5"))
    with pytest.raises(cfg.ConfigError, match="this model has no classes"):
        run(arguments(*model, "--classes", "1"))
    with pytest.raises(cfg.ConfigError, match=r"the size is \(6, 8\).*at least 8 x 8"):
        run(arguments(*model, "--height=6"))
    with pytest.raises(cfg.ConfigError, match="--model=MODEL is missing"):
        run(arguments(f"--out={tmp_path / 'out'}"))
    assert not (tmp_path / "out").exists()


def test_a_class_map_from_a_file_is_drawn_in_its_own_size(tmp_path):
    config = tiny_codes.of_class_maps()
    path = tmp_path / "model.safetensors"
    tensors = tiny_codes.taming_tensors(config, *tiny_codes.params_of(config))
    for name in tensors:  # so that tokens far back matter
        if ".ln" in name and name.endswith("weight"):
            tensors[name] += 3
    write_safetensors(path, tensors)
    random = np.random.default_rng(0)
    for name, sides in (("one", (9, 8)), ("two", (9, 8)), ("small", (6, 8))):
        numbers = random.integers(0, 11, sides).astype(np.uint8)
        Image.fromarray(numbers).save(tmp_path / f"{name}.png")
    model = (f"--model={path}", "--heads=2", "--num=2")

    def drawn(name, out):
        run(arguments(*model, f"--class_map={tmp_path / name}.png", f"--out={tmp_path / out}"))
        return [pixels(tmp_path / out / f"000{n}.png") for n in range(2)]

    first, again, other = drawn("one", "a"), drawn("one", "b"), drawn("two", "c")
    assert first[0].shape == (9, 8, 3)
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any() and (first[0] != other[0]).any()
    said = json.loads(Image.open(tmp_path / "a/0001.png").text[CHUNK])["arguments"]
    assert said["class_map"] == str(tmp_path / "one.png")
    with pytest.raises(cfg.ConfigError, match=r"the size is \(6, 8\)"):
        drawn("small", "d")
    for words, said in (
        (("--height=8",), "--height is 8; it must be left out: pictures have the size of"),
        (("--depth=x.png",), "--depth is 'x.png'; it must be left out"),
        (("--classes", "1"), "this model has no classes"),
    ):
        file = f"--class_map={tmp_path / 'one.png'}"
        with pytest.raises(cfg.ConfigError, match=said):
            run(arguments(*model, file, *words, f"--out={tmp_path / 'd'}"))
    with pytest.raises(cfg.ConfigError, match="--class_map is None; it must be a file"):
        run(arguments(*model, f"--out={tmp_path / 'd'}"))
    assert not (tmp_path / "d").exists()


def test_models_of_other_kinds_are_told_apart(trained_text2img, tmp_path):
    with pytest.raises(ConvertError, match=r"holds a DiffusionRun, .* sample.py"):
        run(arguments(f"--model={trained_text2img}", f"--out={tmp_path / 'out'}"))
    codes = cfg.CodeTransformerRun(tiny.data(tmp_path), cfg.CodeTransformer())
    (tmp_path / "config.json").write_text(cfg.to_json(codes))
    with pytest.raises(ConvertError, match=r"draw from it with python -m\s+ldm_jax.cli"):
        load(tmp_path)
