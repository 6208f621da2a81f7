"""Makes the pictures of docs/sample.md: `python docs/make_pictures.py --model=runs/demo/text2img`.

Each row of a picture is what one command line of `sample.py` draws, its label what varies."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tyro
from jaxtyping import UInt8
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from ldm_jax.cli.sample import draw as draw_command
from ldm_jax.cli.sample_arguments import parse
from ldm_jax.images.grid import grid, save_png

SCALE = 7
CAPTION = "--prompt=a red three above a blue seven"
OTHER = "--prompt=a red three above a green two"

ROWS: dict[str, tuple[list[str], list[str]]] = {
    "guidance": ([CAPTION], [f"--guidance={scale}" for scale in (1, 2, 3, 7.5, 20)]),
    "samplers": (
        [CAPTION],
        [
            f"--sampler={sampler} --steps={steps}"
            for steps, samplers in ((1, ["ddim"]), (4, ["ddim", "dpmpp_2m"]),
                                    (50, ["ddim", "dpmpp_2m", "euler_a"]))
            for sampler in samplers
        ],
    ),
    "strength": (
        [OTHER, "--guidance=1", "--init_image=PICTURE"],
        [f"--strength={strength}" for strength in (0.02, 0.04, 0.1, 0.2, 0.75)],
    ),
}  # fmt: skip
INPAINT = [OTHER, "--num=4", "--init_image=PICTURE", "--mask=MASK"]


def main(model: Path) -> None:
    """Draws every row and writes the PNG files beside this one."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (original,) = draw(model, folder, [CAPTION])
        mask = np.zeros_like(original)
        mask[len(mask) // 2 :] = 255
        Image.fromarray(original).save(folder / "picture.png")
        Image.fromarray(mask).save(folder / "mask.png")
        for name, (common, rows) in ROWS.items():
            drawn = [draw(model, folder, [*common, "--num=6", *row.split()]) for row in rows]
            labels = [label for row in rows for label in (row, *[""] * 5)]
            save(name, np.concatenate(drawn), labels)
        drawn = draw(model, folder, INPAINT)
        save("inpaint", np.stack([original, mask, *drawn]), ["picture", "mask", *["drawn"] * 4])


def draw(model: Path, folder: Path, options: list[str]) -> UInt8[np.ndarray, "n h w 3"]:
    """The pictures that `sample.py` draws with these options."""
    options = [o.replace("PICTURE", f"{folder}/picture.png") for o in options]
    options = [o.replace("MASK", f"{folder}/mask.png") for o in options]
    command = [f"--model={model}", f"--out={folder}/drawn", "--overwrite", *options]
    draw_command(parse(command))
    return np.stack([np.asarray(Image.open(p)) for p in sorted(folder.glob("drawn/0*.png"))])


def save(name: str, images: UInt8[np.ndarray, "n h w 3"], labels: list[str]) -> None:
    """Writes a grid of six columns."""
    path = Path(__file__).with_name(f"sample_{name}.png")
    save_png(path, grid(images, 6, labels, SCALE))


if __name__ == "__main__":
    tyro.cli(main)
