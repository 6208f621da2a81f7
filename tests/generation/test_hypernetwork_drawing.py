"""Drawing with hypernetworks that prompts name; the model stays what it was."""

import numpy as np
import pytest
import small_tunings
from small_tunings import hypernetwork

from ldm_jax import config as cfg
from ldm_jax.cli import sample
from ldm_jax.convert.hypernetworks.hypernetwork_files import write_hypernetwork
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.images.infotext import read_png
from ldm_jax.images.picture_text import read_written

SAMPLING = cfg.Sampling(steps=2, seed=1, guidance_scale=2.0, batch_size=2)
CAT = "a red cat"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hypernetworks")
    small_tunings.write_all(folder)
    other = hypernetwork(1, layer_structure=(1.0, 1.0), activation="relu")
    write_hypernetwork(other, folder / "nets" / "other.pt")
    return folder


@pytest.fixture(scope="module")
def pipeline(folder):
    return Pipeline(
        folder / "model", hypernetwork_dir=folder / "nets", lora_dir=folder / "loras",
        embeddings_dir=folder / "words",
    )  # fmt: skip


def draw(pipeline, *prompts, **how):
    return pipeline.generate(prompts, sampling=SAMPLING, **how)


def test_hypernetworks_in_prompts(folder, pipeline):
    """Each picture has its own; those of a choice of the model are the same, bit for bit."""
    base = draw(pipeline, CAT)[0]
    prompts = [f"{CAT}<hypernet:hyper:0.5>", CAT, f"<hypernet:other>{CAT}"]
    one, plain, other = draw(pipeline, *prompts)
    np.testing.assert_array_equal(plain, draw(pipeline, CAT, first_prompt=1)[0])
    assert (one != base).any() and (other != one).any() and (other != base).any()
    for chain, tags in (
        (("hyper.pt:0.5",), "<hypernet:hyper:0.5>"),
        (("other.pt", "hyper.pt:0.5"), "<hypernet:other:1><hypernet:hyper:0.5>"),
    ):
        named = tuple(f"{folder}/nets/{one}" for one in chain)
        expected = draw(Pipeline(folder / "model", hypernetwork=named), CAT)
        np.testing.assert_array_equal(draw(pipeline, f"{CAT}{tags}"), expected)
    np.testing.assert_array_equal(draw(pipeline, f"{CAT}<hypernet:hyper:0>")[0], base)


def test_replay_tells_of_another_file(folder, tmp_path, capsys):
    """Pictures carry the hashes of what they were drawn with; another file of the name is noted."""
    net = tmp_path / "hyper.pt"
    net.write_bytes((folder / "nets" / "hyper.pt").read_bytes())
    first, again = tmp_path / "first", tmp_path / "again"
    told = ["--prompt", f"a zork {CAT}", f"--embeddings_dir={folder / 'words'}", "--steps=2",
            f"--model={folder / 'model'}", f"--hypernetwork={net}", f"--out={first}"]  # fmt: skip
    assert sample.main(told) == 0
    picture = first / "0000_0000.png"
    written = read_written(picture)
    assert {*written.hashes} == {"hypernetwork", "embeddings"}
    assert "Hypernet hash: " in read_png(picture)["parameters"]
    assert "TI hashes: " in read_png(picture)["parameters"]
    capsys.readouterr()
    assert sample.main([f"--from_png={picture}", f"--out={again}"]) == 0
    assert "another file" not in capsys.readouterr().err
    assert picture.read_bytes() == (again / "0000_0000.png").read_bytes()
    write_hypernetwork(hypernetwork(3), net, overwrite=True)
    assert sample.main([f"--from_png={picture}", f"--out={again}", "--overwrite"]) == 0
    assert "note: 'hyper' was another file when this was drawn" in capsys.readouterr().err


def test_beside_adapters_and_words(folder, pipeline):
    prompt = "a zork <lora:style:0.5><hypernet:hyper>"
    chosen = Pipeline(
        folder / "model", lora=(f"{folder}/loras/style.safetensors:0.5",),
        hypernetwork=(f"{folder}/nets/hyper.pt",), embeddings_dir=folder / "words",
    )  # fmt: skip
    np.testing.assert_array_equal(draw(pipeline, prompt), draw(chosen, "a zork "))
    found = [draw(pipeline, text)[0] for text in ("a zork ", "a zork <lora:style:0.5>", prompt)]
    assert len({one.tobytes() for one in found}) == 3


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("<hypernet:hypre>", "no such hypernetwork in .*; perhaps you meant 'hyper'"),
        ("<hypernet:../nets/hyper>", "there is no such hypernetwork"),
        ("<hypernet:>", "names no hypernetwork; write <hypernet:NAME:0.8>"),
        ("<hypernet:hyper:x>", "'x' is no strength"),
        ("<hypernet:hyper:1:2>", "has 2 strengths"),
        ("<hypernet:hyper:inf>", "the strength inf is not within"),
    ],
)
def test_refused_tags(pipeline, prompt, message):
    with pytest.raises(cfg.ConfigError, match=message):
        draw(pipeline, prompt)


def test_other_refusals(folder, pipeline):
    with pytest.raises(cfg.ConfigError, match="<hypernet:hyper> in a prompt needs hypernet"):
        draw(Pipeline(folder / "model"), f"{CAT}<hypernet:hyper>")
    with pytest.raises(cfg.ConfigError, match="negative_prompt has <hypernet:hyper> in it"):
        draw(pipeline, CAT, negative="<hypernet:hyper>")
    with pytest.raises(cfg.ConfigError, match="hypernetwork_dir is .*, which is no folder"):
        Pipeline(folder / "model", hypernetwork_dir=folder / "nothing")
