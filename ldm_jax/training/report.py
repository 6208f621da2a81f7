"""What one or several runs tell of themselves, as a table and a picture:

    python -m ldm_jax.training.report WORKDIR... [--out=FILE.png]

The table has steps, images, hours, speed and what the time went to; the picture has loss,
validation loss, speed and the share of time that trained, a curve for each run. Below come the
norms of gradients and updates of each part of the networks, where loop.norm_depth logged them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ldm_jax import config as cfg
from ldm_jax.config.command_line import LineParser
from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.files import check_writable
from ldm_jax.core.reading import read_text
from ldm_jax.core.stores import as_path
from ldm_jax.images.grid import save_png
from ldm_jax.images.plot import BLUE, GREEN, ORANGE, PURPLE, Curve, Panel, plot
from ldm_jax.training.curves import read_metrics, series
from ldm_jax.training.time_budget import PARTS, trained_share
from ldm_jax.workdir.layout import CONFIG, METRICS

PROGRAM = "ldm_jax.training.report"
WIDTH, HEIGHT, BELOW = 1200, 760, 200
"""Pixels of the picture without norms, and how high a row of these is."""
NORMS = {"gradient_norm": "gradient", "update_norm": "update"}
COLOURS = (BLUE, ORANGE, GREEN, PURPLE)


@dataclass(frozen=True)
class Told:
    """A run by what is in its work directory."""

    name: str
    batch_size: int
    records: list[dict[str, Any]]

    @property
    def seconds(self) -> dict[str, float]:
        """`time/all` and `time/PART` of all processes that went on one after the other: what each
        told last."""
        total = dict.fromkeys(["time/all", *(f"time/{part}" for part in PARTS)], 0.0)
        for record in self._lasts():
            total = {name: value + record[name] for name, value in total.items()}
        return total

    def _lasts(self) -> Iterator[dict[str, Any]]:
        timed = [one for one in self.records if "time/all" in one]
        for one, following in zip(timed, [*timed[1:], None], strict=True):
            if following is None or following["time/all"] < one["time/all"]:
                yield one

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        steps = self.records[-1]["step"]
        rates = series(self.records, "images_per_second")[1]
        found = {
            "run": self.name, "steps": f"{steps:,}", "images": f"{steps * self.batch_size:,}",
            "images/s": f"{np.median(rates):.3g}" if rates else "",
        }  # fmt: skip
        shares = series(self.records, "mfu")[1]
        if shares:
            found["of the peak"] = f"{np.median(shares):.1%}"
        seconds = self.seconds
        if seconds["time/all"]:
            found |= {"hours": f"{seconds['time/all'] / 3600:.2g}",
                      "trained": f"{trained_share(seconds):.0%}"}  # fmt: skip
            found |= {part: f"{seconds[f'time/{part}'] / seconds['time/all']:.0%}"
                      for part in PARTS}  # fmt: skip
        return found


def read(workdir: Path) -> Told:
    """Raises ValueError, OSError where it is no work directory, or its run has told nothing."""
    path = workdir / METRICS
    if not (workdir / CONFIG).is_file():
        raise cfg.ConfigError(f"{workdir} is no work directory of train.py: it has no {CONFIG}")
    run = cfg.from_json(read_text(workdir / CONFIG))
    try:
        records = read_metrics(path) if path.is_file() else []
    except ValueError as error:
        raise cfg.ConfigError(f"{path} is damaged: {error}") from error
    if not records:
        raise cfg.ConfigError(f"{workdir} has no metrics yet ({path}); train for some steps first")
    return Told(str(workdir), run.data.batch_size, records)


def table(runs: Sequence[Told]) -> str:
    """The runs in Markdown, with the columns that any of them has."""
    rows = [run.cells() for run in runs]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[row.get(name, "") for name in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def picture(runs: Sequence[Told]) -> UInt8[np.ndarray, "height width 3"]:
    """Loss and validation loss above, speed and the share of time that trained below, and under
    these a row for each part of the networks whose gradients and updates were logged."""

    def curves(name: str, smooth: bool, scale: float = 1.0) -> list[Curve]:
        found = []
        for number, run in enumerate(runs):
            steps, values = series(run.records, name)
            scaled = [scale * value for value in values]
            colour = COLOURS[number % len(COLOURS)]
            found.append(Curve(run.name, steps, scaled, colour, smooth, dots=not smooth))
        return found

    shares = []
    for number, run in enumerate(runs):
        timed = [one for one in run.records if "time/all" in one]
        values = [100 * trained_share(one) for one in timed]
        steps = [one["step"] for one in timed]
        shares.append(Curve(run.name, steps, values, COLOURS[number % len(COLOURS)]))
    half, top = WIDTH // 2, HEIGHT // 2
    panels = [
        Panel("loss over steps", curves("loss", True), 0, 0, half, top),
        Panel("validation loss", curves("validation_loss", False), half, 0, half, top),
        Panel("images per second", curves("images_per_second", True), 0, top, half, top, log=False),
        Panel("per cent of the time that trained, since the process began", shares, half, top, half,
              top, log=False),
    ]  # fmt: skip
    parts = _parts(runs)
    for row, part in enumerate(parts):
        for column, (name, word) in enumerate(NORMS.items()):
            shown = curves(f"{name}/{part}", True)
            below = HEIGHT + row * BELOW
            panels.append(Panel(f"{word} norm, {part}", shown, column * half, below, half, BELOW))
    return plot(panels, WIDTH, HEIGHT + len(parts) * BELOW)


def _parts(runs: Sequence[Told]) -> list[str]:
    """The parts of networks whose norms any of the runs has, in alphabetical order."""
    begin = f"{next(iter(NORMS))}/"
    names = {name for run in runs for one in run.records for name in one if name.startswith(begin)}
    return sorted(name.removeprefix(begin) for name in names)


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""
    return run_command(PROGRAM, report, arguments)


def report(arguments: list[str]) -> None:
    """Prints the table and writes the picture."""
    parser = LineParser(prog=f"python -m {PROGRAM}", description=__doc__)
    parser.add_argument("workdirs", nargs="+", type=as_path, metavar="WORKDIR")
    parser.add_argument("--out", type=as_path, default=Path("report.png"))
    given = parser.parse_args(arguments)
    check_writable(given.out.parent, f"--out={given.out}")
    runs = [read(workdir) for workdir in given.workdirs]
    print(table(runs))
    save_png(given.out, picture(runs))
    print(f"curves: {given.out}")


if __name__ == "__main__":
    run_program(PROGRAM, main)
