"""`sample.py --interactive`: prompts and options line by line, with one model."""

import io
import json
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

import sample as program
from ldm_jax.cli import sample, sample_interactive
from ldm_jax.cli.sample_arguments import parse
from ldm_jax.cli.sample_interactive import Session
from ldm_jax.config import ConfigError, Request
from ldm_jax.images.sample_writer import SampleWriter

LINES = """?
a red three alone

a mauve three alone
--seed=8 --guidance=3

--first_image=0

quit
a blue one alone
"""


@pytest.fixture(scope="module")
def session(trained_text2img, tmp_path_factory):
    """The folder that LINES were drawn into, what was said, and the model that drew them."""
    out, opened, said = tmp_path_factory.mktemp("session") / "out", [], io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        whole = sample.open_pipeline

        def opening(*arguments, **more):
            opened.append(whole(*arguments, **more))
            return opened[0]

        patch.setattr(sample, "open_pipeline", opening)
        patch.setattr(sys, "stdin", io.StringIO(LINES))
        patch.setattr(sys, "stdout", said)
        patch.setattr(sys, "stderr", said)
        words = [f"--model={trained_text2img}", "--steps=2", "--guidance=2", "--seed=7"]
        assert program.main([*words, f"--out={out}", "--interactive"]) == 0, said.getvalue()
    return out, said.getvalue(), opened[0]


def test_lines_are_drawn_with_numbers_that_go_on(session):
    out, said, _ = session
    help_lines = sample_interactive.help_text().splitlines()
    lines = said.splitlines()
    assert lines[: len(help_lines)] == help_lines
    lines = lines[len(help_lines) :]
    shown = [line.removeprefix(f"{out}/") for line in lines if line.startswith(str(out))]
    names = ["0000_0000.png", "0000_0001.png", "0000_0002.png", "0000_0000_2.png"]
    assert shown == [*names, "grid.png"]
    assert "does not know 'mauve'" in lines[4] and lines[5].startswith("--seed=8 --guidance=3 from")
    assert "1 picture in " in lines[1]
    listed = json.loads((out / "manifest.json").read_text())["images"]
    assert sorted(entry["file"] for entry in listed) == sorted(names)
    assert [entry["request"]["seed"] for entry in listed].count(7) == 2


def test_the_second_picture_compiles_nothing(session):
    assert {f._cache_size() for f in session[2].programs.compiled.values()} == {1}


def test_each_picture_is_drawn_again_from_itself_and_by_its_number(session, tmp_path):
    out, _, pipeline = session
    picture = out / "0000_0001.png"
    sample.draw(parse([f"--from_png={picture}", f"--out={tmp_path / 'a'}"]))
    assert (tmp_path / "a" / picture.name).read_bytes() == picture.read_bytes()
    with Image.open(picture) as found:
        written = json.loads(found.text["ldm_jax"])["request"]
    assert (written["first_image"], written["seed"], written["batch_size"]) == (1, 7, 1)


@pytest.fixture
def counting():
    """A session whose pictures are not drawn, and what it was asked to draw."""
    drawn = []

    @dataclass(frozen=True)
    class Resolved:
        request: Request

    def resolve(request):
        if request.sampling.height == 17:
            raise ConfigError("height is 17; it must be a multiple of 2")
        return Resolved(request)

    def draw(resolved):
        drawn.append(resolved.request)
        return ["a.png"]

    return Session(parse(["--model=x", "--interactive"]).request, resolve, draw), drawn


def test_options_stay_and_what_is_refused_changes_nothing(counting):
    session, drawn = counting
    session.take('a cat, "quoted" and a dog\'s')
    session.take("--num=3 --steps=20")
    for line, complaint in (
        ("--height=17", "--height is 17"),
        ("a cat --steps=3", "--steps=3 is within a prompt"),
        ("--model=y", "--model cannot be changed"),
        ("--out=y", "--out cannot be changed"),
        ('--prompt="a', "quotes in"),
        ("--stps=3", "--stps is no option"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            session.take(line)
    session.take("")
    session.take("--classes 3 1")
    session.take('--prompt="a -- b"')
    assert [(r.conditions, r.num, r.first_image) for r in drawn] == [
        (['a cat, "quoted" and a dog\'s'], 1, 0),
        (['a cat, "quoted" and a dog\'s'], 3, 1),
        ([3, 1], 3, 4),
        (["a -- b"], 3, 7),
    ]
    assert drawn[1].sampling.steps == 20 and drawn[3].sampling.height is None


def test_what_a_session_cannot_be_combined_with():
    for words in (["--benchmark"], ["--invert=a.png"], ["--prompts=a.txt"]):
        with pytest.raises((ConfigError, ValueError), match="does not exist|leave out"):
            parse(["--model=x", "--interactive", *words])


def test_a_grid_of_pictures_of_two_sizes_has_those_of_the_first(tmp_path):
    request = parse(["--model=x", "--steps=2", "--guidance=2", "--height=8", "--width=8"]).request
    with SampleWriter(tmp_path / "out", request, None, origin={}, versions={}) as writer:
        writer.write(np.zeros((8, 8, 3), np.uint8), 0, 0)
        writer.turn_to(request.changed(first_image=1, height=16))
        path = writer.write(np.zeros((16, 8, 3), np.uint8), 0, 0)
    assert path.name == "0000_0001.png" and (tmp_path / "out" / "grid.png").exists()


def test_prompts_come_from_lines_alone():
    for words in (["--prompt=a cat"], ["--classes", "3"]):
        with pytest.raises(ConfigError, match="draws what is typed; leave out --(prompt|classes)"):
            parse(["--model=x", "--interactive", *words])
