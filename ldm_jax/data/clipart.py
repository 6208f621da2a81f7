"""Writes a thousand captioned pictures of Open Clip Art (public domain) as a folder to train from:

python -m ldm_jax.data.clipart --out=FOLDER
"""

if __name__ == "__main__":  # what is imported below takes seconds
    from ldm_jax.core import signals

    signals.stay("ldm_jax.data.clipart")

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ldm_jax.config.command_line import LineParser, check_given
from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.files import check_writable, write_atomically
from ldm_jax.images.grid import save_png
from ldm_jax.images.picture_files import read_picture

PROGRAM = "ldm_jax.data.clipart"
HELP = """Takes playing cards, flags, food, animals, icons, arrows and jigsaw pieces from Open Clip
Art's PNG files, lays them on white squares, and makes captions of their names. Debian has the files
in its package openclipart-png."""
INSTALLED = Path("/usr/share/openclipart/png")
SIZE = 128

SUITS = {"c": "clubs", "d": "diamonds", "h": "hearts", "s": "spades"}
RANKS = {"a": "ace", "j": "jack", "q": "queen", "k": "king"} | dict(
    zip(
        map(str, range(2, 11)),
        ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
        strict=True,
    )
)
NAMED = {"food": "clip art of", "animals": "clip art of", "signs_and_symbols/flags": "flag of",
         "plants": "clip art of", "buildings": "clip art of",
         "computer/icons/lemon-theme": "icon of"}  # fmt: skip
"""Folders whose files are called by what they show, and how their captions begin."""
_CONTRIBUTORS = re.compile(
    r"_\d\d$|_$|_r$|ganson|jarno|semaphore|signalflag|linda_kim|_(?!bw$)[a-z]{1,3}$|\d{3}"
)
"""Names that say more of who drew a picture than of what is on it."""


def caption_of(name: str) -> str | None:
    """The caption of the file `name`, a path below the folder of all; None where none is made."""
    folder, _, stem = name.removesuffix(".png").rpartition("/")
    if found := re.fullmatch(r"(white|simple|ornamental|bordered)_([cdhs])_(\w+)", stem):
        style, suit, rank = found.groups()
        return f"{style} playing card, {RANKS[rank]} of {SUITS[suit]}" if rank in RANKS else None
    if found := re.match(r"arrow-(up|down|left|right)-(\w+?)_ben", stem):
        return f"{found[2].replace('seagreen', 'sea green')} arrow pointing {found[1]}"
    if found := re.fullmatch(r"jigsaw_(red|green|blue)_\d+", stem):
        return f"{found[1]} jigsaw piece"
    begins = [words for start, words in NAMED.items() if f"{folder}/".startswith(f"{start}/")]
    if not begins or _CONTRIBUTORS.search(stem):
        return None
    words = re.sub(r"[\W\d_]+", " ", stem).strip().lower()
    coloured = " ".join(word for word in words.split() if word not in ("bw", "contour"))
    outline = "" if coloured == words else " in outline"
    return f"{begins[0]} {coloured}{outline}" if coloured else None


def pictures(source: Path) -> Iterator[tuple[str, str]]:
    """Path below `source` and caption of every picture that has one; no picture twice."""
    seen = set()
    for file in sorted(source.rglob("*.png")):
        name = file.relative_to(source).as_posix()
        caption = caption_of(name)
        digest = hashlib.sha256(file.read_bytes()).digest() if caption else None
        if caption and digest not in seen:
            seen.add(digest)
            yield name, caption


def write(source: Path, folder: Path) -> int:
    """Writes the pictures of `source` and `metadata.jsonl` into `folder`, which is made, and
    returns how many there are.

    Raises:
        ValueError: `source` has none.
    """
    check_writable(folder, f"--out={folder}")
    found = list(pictures(source))
    if not found:
        raise ValueError(
            f"{source} has no pictures of Open Clip Art; install Debian's openclipart-png, or name "
            "the folder of its PNG files with --source=FOLDER"
        )
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (name, caption) in enumerate(found):
        picture = Image.fromarray(read_picture(source / name))
        picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
        square = Image.new("RGB", (SIZE, SIZE), "white")
        square.paste(picture, tuple((SIZE - side) // 2 for side in picture.size))
        file = f"{number:04d}.png"
        save_png(folder / file, np.asarray(square))
        lines.append(json.dumps({"file_name": file, "text": caption}) + "\n")
    write_atomically(folder / "metadata.jsonl", "".join(lines).encode())
    return len(found)


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""

    def take(words: list[str]) -> None:
        parser = LineParser(prog=PROGRAM, description=HELP, allow_abbrev=False)
        parser.add_argument("--out", type=Path, required=True, help="the folder of pictures")
        parser.add_argument(
            "--source", type=Path, default=INSTALLED, help=f"Open Clip Art's PNGs ({INSTALLED})"
        )
        check_given(words, ("out", "source"))
        given = parser.parse_args(words)
        print(f"{write(given.source, given.out)} captioned pictures in {given.out}")

    return run_command(PROGRAM, take, arguments)


if __name__ == "__main__":
    run_program(PROGRAM, main)
