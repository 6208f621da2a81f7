"""Writes pictures of Open Clip Art (public domain) as a folder to train from, a thousand with
captions or some 6,500 with classes:

python -m ldm_jax.data.clipart --out=FOLDER [--classes]
"""

if __name__ == "__main__":  # what is imported below takes seconds
    from ldm_jax.core import signals

    signals.stay("ldm_jax.data.clipart")

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ldm_jax.config.command_line import LineParser, check_given
from ldm_jax.core.command import run_command, run_program, say
from ldm_jax.core.files import check_writable, write_atomically
from ldm_jax.core.reading import FileFormatError
from ldm_jax.core.stores import as_path
from ldm_jax.images.grid import save_png
from ldm_jax.images.picture_files import read_picture

PROGRAM = "ldm_jax.data.clipart"
HELP = """Lays Open Clip Art's PNG files on white squares: playing cards, flags, food, animals,
icons, arrows and jigsaw pieces, with captions that are made of their names; or with --classes all,
in a subfolder for each class. Debian has the files in its package openclipart-png."""
INSTALLED = Path("/usr/share/openclipart/png")
SIZE = 128
FEWEST = 50
"""Pictures of a class."""
NO_CLASS = "unsorted"

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


def captioned(source: Path) -> Iterator[tuple[str, str]]:
    """Path below `source` and caption of every picture that has one; no picture twice."""
    names = (file.relative_to(source).as_posix() for file in sorted(source.rglob("*.png")))
    return ((name, caption_of(name)) for name in _once(source, filter(caption_of, names)))


def classified(source: Path) -> Iterator[tuple[str, str]]:
    """Path below `source` and class of every picture: its folder among those in `source`. No
    picture is there twice, and no class of less than `FEWEST`."""
    names = (file.relative_to(source).as_posix() for file in sorted(source.rglob("*/*.png")))
    classes: dict[str, list[str]] = {}
    for name in _once(source, names):
        classes.setdefault(name.partition("/")[0], []).append(name)
    for label, members in classes.items():
        if label != NO_CLASS and len(members) >= FEWEST:
            yield from ((name, label) for name in members)


def _once(source: Path, names: Iterable[str]) -> Iterator[str]:
    """Those whose files are not copies of one before."""
    seen = set()
    for name in names:
        digest = hashlib.sha256((source / name).read_bytes()).digest()
        if digest not in seen:
            seen.add(digest)
            yield name


def write(source: Path, folder: Path, classes: bool = False) -> int:
    """Writes pictures of `source` into `folder`, which is made: with captions in `metadata.jsonl`,
    or in a subfolder for each class. Returns how many there are. What cannot be read is left out,
    and said.

    Raises:
        ValueError: `source` has none.
    """
    check_writable(folder, f"--out={folder}")
    found = list(classified(source) if classes else captioned(source))
    if not found:
        raise ValueError(
            f"{source} has no pictures of Open Clip Art; install Debian's openclipart-png, or name "
            "the folder of its PNG files with --source=FOLDER"
        )
    lines = []
    for number, (name, words) in enumerate(found):
        file = f"{words}/{number:04d}.png" if classes else f"{number:04d}.png"
        try:
            picture = _on_white(read_picture(source / name, SIZE))
        except FileFormatError as error:
            say(f"left out: {error}")
            continue
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        save_png(folder / file, picture)
        lines.append(json.dumps({"file_name": file, "text": words}) + "\n")
    if not classes:
        write_atomically(folder / "metadata.jsonl", "".join(lines).encode())
    return len(lines)


def _on_white(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "size size 3"]:
    """In the middle of a white square of `SIZE` pixels, not enlarged."""
    image = Image.fromarray(picture)
    image.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIZE, SIZE), "white")
    square.paste(image, tuple((SIZE - side) // 2 for side in image.size))
    return np.asarray(square)


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""

    def take(words: list[str]) -> None:
        parser = LineParser(prog=PROGRAM, description=HELP, allow_abbrev=False)
        parser.add_argument("--out", type=as_path, required=True, help="the folder of pictures")
        parser.add_argument(
            "--source", type=as_path, default=INSTALLED, help=f"Open Clip Art's PNGs ({INSTALLED})"
        )
        parser.add_argument(
            "--classes", action="store_true", help="classes, in subfolders, instead of captions"
        )
        check_given(words, ("out", "source"))
        given = parser.parse_args(words)
        count = write(given.source, given.out, given.classes)
        print(f"{count} pictures with {'classes' if given.classes else 'captions'} in {given.out}")

    return run_command(PROGRAM, take, arguments)


if __name__ == "__main__":
    run_program(PROGRAM, main)
