"""Writes the two photographs that scikit-learn ships as a folder of small tiles to train from:

python -m ldm_jax.data.photographs --out=FOLDER
"""

if __name__ == "__main__":  # what is imported below takes seconds
    from ldm_jax.core import signals

    signals.stay("ldm_jax.data.photographs")

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ldm_jax.config.command_line import LineParser, check_given
from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.files import check_writable
from ldm_jax.core.stores import as_path
from ldm_jax.images.grid import save_png

PROGRAM = "ldm_jax.data.photographs"
HELP = """Cuts scikit-learn's two photographs, 427 x 640 pixels each, into tiles that do not
overlap. A config that takes a folder keeps some of its files for validation: here places that
training never shows, though of the same two photographs."""
ROWS, COLUMNS = 6, 8
"""Tiles along the sides of a photograph: 71 or 72 by 80 pixels each."""


def tiles() -> Iterator[tuple[str, UInt8[np.ndarray, "h w 3"]]]:
    """File name and pixels of every tile of both photographs."""
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images()
    for path, photograph in zip(photographs.filenames, photographs.images, strict=True):
        for y, row in enumerate(np.array_split(photograph, ROWS, axis=0)):
            for x, tile in enumerate(np.array_split(row, COLUMNS, axis=1)):
                yield f"{Path(path).stem}_{y}_{x}.png", np.ascontiguousarray(tile)


def write(folder: Path) -> int:
    """Writes the tiles as PNG into `folder`, which is made, and returns how many there are."""
    check_writable(folder, f"--out={folder}")
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, tile in tiles():
        save_png(folder / name, tile)
        count += 1
    return count


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""

    def cut(words: list[str]) -> None:
        parser = LineParser(prog=PROGRAM, description=HELP, allow_abbrev=False)
        parser.add_argument("--out", type=as_path, required=True, help="the folder of tiles")
        check_given(words, ("out",))
        given = parser.parse_args(words)
        print(f"{write(given.out)} tiles in {given.out}")

    return run_command(PROGRAM, cut, arguments)


if __name__ == "__main__":
    run_program(PROGRAM, main)
