"""Open Clip Art as a captioned folder."""

import json

import numpy as np
import pytest
from PIL import Image

from ldm_jax.data import clipart


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("recreation/games/cards/simple/simple_h_q.png", "simple playing card, queen of hearts"),
        ("recreation/games/cards/white/white_joker.png", None),
        ("shapes/arrows/arrow-down-seagreen_benj_01.png", "sea green arrow pointing down"),
        ("shapes/jigsaw/jigsaw_blue_16.png", "blue jigsaw piece"),
        ("signs_and_symbols/flags/africa/cape_verde.png", "flag of cape verde"),
        ("signs_and_symbols/flags/signalflag_7.png", None),
        ("food/fruit/apple_bw.png", "clip art of apple in outline"),
        ("food/orange_juice_ganson.png", None),
        ("office/paper2.png", None),
    ],
)
def test_captions_are_made_of_names(name, caption):
    assert clipart.caption_of(name) == caption


def test_a_folder_is_written_once_per_picture(tmp_path, capsys):
    for name, grey in (("apple", 0), ("pear", 50), ("same_as_pear", 50)):
        path = tmp_path / "source" / "food" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 16, 3), grey, np.uint8)).save(path)
    words = [f"--source={tmp_path / 'source'}", f"--out={tmp_path / 'out'}"]
    assert clipart.main(words) == 0
    lines = (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["text"] for row in rows] == ["clip art of apple", "clip art of pear"]
    with Image.open(tmp_path / "out" / rows[1]["file_name"]) as picture:
        assert picture.size == (clipart.SIZE, clipart.SIZE)
        assert picture.getpixel((0, 0)) == (255, 255, 255)
    (tmp_path / "empty").mkdir()
    assert clipart.main([f"--source={tmp_path / 'empty'}", words[1] + "2"]) == 2
    assert "install Debian's openclipart-png" in capsys.readouterr().err
