"""The help text of `sample.py`, and what it says of options that cannot be read.

After a change of an option, write the help text anew and read it:
    UPDATE_HELP=1 .venv-dev/bin/python -m pytest tests/cli/test_sample_arguments.py -n0
"""

import os
from itertools import chain
from pathlib import Path

import pytest

import sample as program
from ldm_jax.cli.sample_arguments import FIRST, MORE, Command, help_text, known_options, parse
from ldm_jax.config import WorkShare
from ldm_jax.config.request import settings

SNAPSHOT = Path(__file__).with_name("sample_help.txt")


def test_each_option_stands_under_one_heading():
    named = [*chain.from_iterable([*FIRST.values(), *MORE.values()])]
    assert sorted(named) == sorted(known_options())
    hidden = {"request", "share", "filled", "lines", "of_picture", "typed", "hashes"}
    own = (vars(Command()).keys() | vars(WorkShare()).keys()) - hidden
    assert {*known_options()} == own | {*settings()}


def test_the_help_text_is_the_one_that_was_read(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["--model=x", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    if os.environ.get("UPDATE_HELP"):
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text() == help_text() + "\n"
    assert max(map(len, text.splitlines())) <= 100
    first, _ = text.split("All other options")
    options = [*chain.from_iterable(FIRST.values())]
    lines = [line for line in first.splitlines() if line.startswith("  ") and "python" not in line]
    assert len(lines) == len(options), "an option that most people need has one line"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--guidence=2"], "--guidence is no option; perhaps you meant --guidance"),
        (["--negativ-prompt=a"], "--negativ-prompt is no option; perhaps you meant --negative_"),
        (["--no-tileble"], "--no-tileble is no option; perhaps you meant --no_tileable"),
        (["--qqqq=2"], "--qqqq is no option; --help lists all"),
        (["--prompt=a", "red", "cat"], "'red' belongs to no option; put a value of several words"),
        (["-n", "3"], "'-n' belongs to no option"),
        (["--steps=ab"], "--steps is 'ab'; it must be a whole number"),
        (["--steps"], "--steps has no value; it must be a whole number"),
        (["--tileable=3"], "--tileable is '3'; it is a switch: --tileable, or --tileable=False"),
        (["--clip-skip=0"], "--clip-skip is 0; it must be 1 or more"),
        (["--guidance=2000"], "--guidance is 2000.0; it must"),
        (["--guidance-scale=2000"], "--guidance-scale is 2000.0; it must"),
        (["--mask=a.png"], "--mask needs --init_image"),
        (["--guidance=1", "--negative_prompt=a"], "--negative_prompt needs guidance; with --guid"),
    ],
)
def test_an_option_that_cannot_be_is_named_as_it_was_typed(words, complaint, capsys):
    assert program.main(["--model=x", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sample.py: {complaint}")


def test_options_are_read_in_every_usual_spelling():
    words = ["--model", "m", "--prompt", "a b", "c", "--num=2", "--prompt=d", "--no-tileable",
             "--guidance", "-2", "--guidance-rescale=None", "--only_masked=0", "--video=False",
             "--init-image=a.png", "--mask", "b.png", "--invert_mask=true"]  # fmt: skip
    request = parse(words).request
    assert request.prompt == ("a b", "c", "d") and request.num == 2
    assert request.sampling.guidance_scale == -2.0 and request.sampling.guidance_rescale is None
    assert request.picture.invert_mask and request.picture.only_masked == 0
