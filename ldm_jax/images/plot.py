"""Curves over steps as a picture, drawn with Pillow alone: axes, ticks, legend, log scales."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

FINE = 3
"""Everything is drawn so many times as large and made smaller, which smooths its edges."""
FONT_SIZE = 13
INK, GREY, RULE = (40, 40, 40), (120, 120, 120), (228, 228, 228)
BLUE, ORANGE, GREEN, PURPLE = (31, 119, 180), (230, 97, 1), (44, 140, 60), (120, 80, 160)
LEFT, RIGHT, TOP, BOTTOM = 76, 20, 40, 34
"""Pixels around the axes of a panel: for numbers and titles."""
LOG_FROM = 10.0
"""How many times the least value the largest one is where a scale becomes logarithmic."""
OUTLIERS = 1.0
"""Per cent of values at each end that may lie outside of a panel."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Curve:
    """One curve; values that are not finite are left out."""

    label: str
    steps: Sequence[int | float]
    values: Sequence[int | float]
    colour: Colour = BLUE
    smooth: bool = False
    """Draw a running mean, over the values themselves drawn faint."""
    dots: bool = False
    """Mark every value, where there are few."""

    def points(self) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Steps and values, where these are finite."""
        steps, values = (np.asarray(one, np.float64) for one in (self.steps, self.values))
        finite = np.isfinite(values)
        return steps[finite], values[finite]


@dataclass(frozen=True)
class Mark:
    """A point that is marked, with words in the legend."""

    label: str
    step: int
    value: int | float
    colour: Colour = ORANGE


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes, and where they stand in the picture: all in pixels."""

    title: str
    curves: Sequence[Curve]
    left: int
    top: int
    width: int
    height: int
    marks: Sequence[Mark] = ()
    log: bool = True
    """Whether the scale may be logarithmic, where values differ much and all are positive."""


def plot(panels: Iterable[Panel], width: int, height: int) -> UInt8[np.ndarray, "height width 3"]:
    """The picture of all panels."""
    large = Image.new("RGB", (width * FINE, height * FINE), "white")
    draw = ImageDraw.Draw(large)
    for panel in panels:
        _Drawn(panel, draw, large).draw_all()
    return np.array(large.resize((width, height), Image.Resampling.LANCZOS))


def running_mean(values: Float[np.ndarray, " n"], window: int) -> Float[np.ndarray, " n"]:
    """The mean of the values around each, `window` of them; near the beginning, where curves fall
    steeply, of as many before it as after it, and near the end of those that there are."""
    at = np.arange(len(values))
    first = at - np.minimum(at, window // 2)
    last = np.minimum(at + np.minimum(at, window // 2), len(values) - 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[last + 1] - sums[first]) / (last + 1 - first)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from `low` to `high`: 1, 2 or 5 times a power of ten apart."""
    rough = max(high - low, 1e-300) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(n * power for n in (1, 2, 5, 10) if n * power >= 0.7 * rough)
    first, last = math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9)
    return [n * apart for n in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic scale: powers of ten where there are many, else 2 and 5 times
    these too."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    times = (1,) if last - first > 4 else (1, 2, 5)
    found = [n * 10.0**power for power in range(first, last + 1) for n in times]
    every = -(-len(found) // 30)
    inside = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return inside[::every]


def number(value: float) -> str:
    """A tick's number as people write it."""
    if value and not 1e-4 <= abs(value) < 1e4:
        mantissa, power = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}"
    return f"{value:.6g}"


def step_number(value: float) -> str:
    """A step as people write it: 2,000, or 150k."""
    return f"{value / 1000:,.6g}k" if value >= 10_000 else f"{value:,.6g}"


class _Drawn:
    """One panel on the large picture."""

    def __init__(self, panel: Panel, draw: ImageDraw.ImageDraw, picture: Image.Image) -> None:
        self.panel, self.out, self.picture = panel, draw, picture
        self.font = ImageFont.load_default(FONT_SIZE * FINE)
        self.left, self.right = panel.left + LEFT, panel.left + panel.width - RIGHT
        self.top, self.bottom = panel.top + TOP, panel.top + panel.height - BOTTOM
        self.lines = [(curve, *curve.points()) for curve in panel.curves]
        self.lines = [line for line in self.lines if len(line[1])]

    def draw_all(self) -> None:
        self._text(self.left, self.panel.top + 12, self.panel.title, INK, "lm")
        if not self.lines:
            middle = (self.left + self.right) / 2, (self.top + self.bottom) / 2
            self._text(*middle, "nothing yet", GREY, "mm")
            return
        self._choose_scales()
        self._draw_axes()
        for curve, steps, values in self.lines:
            self._draw_curve(curve, steps, values)
        for mark in self.panel.marks:
            self._dot(self._x(mark.step), self._y(mark.value), mark.colour, 5, ring=True)
        self._draw_legend()

    def _choose_scales(self) -> None:
        steps = np.concatenate([steps for _, steps, _ in self.lines])
        self.first, self.last = float(steps.min()), float(steps.max())
        if self.first == self.last:
            self.first, self.last = self.first - 1, self.last + 1
        bounds = [
            np.percentile(values, (OUTLIERS, 100 - OUTLIERS)) if curve.smooth
            else (values.min(), values.max())
            for curve, _, values in self.lines
        ]  # fmt: skip
        low, high = float(min(b[0] for b in bounds)), float(max(b[1] for b in bounds))
        self.log = self.panel.log and low > 0 and high > LOG_FROM * low
        if self.log:
            room = (high / low) ** 0.04
            self.low, self.high = low / room, high * room
        else:
            room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
            self.low, self.high = low - room, high + room
            if low >= 0:
                self.low = max(self.low, 0.0)

    def _x(self, step: int | float) -> float:
        share = (step - self.first) / (self.last - self.first)
        return self.left + share * (self.right - self.left)

    def _y(self, value: int | float) -> float:
        """A value's place; what is outside of the panel is at its edge."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.bottom - share * (self.bottom - self.top)

    def _draw_axes(self) -> None:
        marks = log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high)
        for value in marks:
            y = self._y(value)
            self._line([(self.left, y), (self.right, y)], RULE, 1)
            self._text(self.left - 8, y, number(value), GREY, "rm")
        for step in ticks(self.first, self.last, 7 if self.panel.width > 700 else 5):
            x = self._x(step)
            self._line([(x, self.top), (x, self.bottom)], RULE, 1)
            self._text(x, self.bottom + 13, step_number(step), GREY, "mm")
        corner = (self.left, self.bottom)
        self._line([(self.left, self.top), corner, (self.right, self.bottom)], GREY, 1)

    def _draw_curve(self, curve: Curve, steps: np.ndarray, values: np.ndarray) -> None:
        if curve.smooth:
            faint = tuple(255 - (255 - channel) * 2 // 7 for channel in curve.colour)
            self._polyline(steps, values, faint, 1)
            values = running_mean(values, max(1, len(values) // 20))
        self._polyline(steps, values, curve.colour, 2)
        if curve.dots or len(steps) == 1:
            for step, value in zip(steps, values, strict=True):
                if len(steps) <= 60:
                    self._dot(self._x(step), self._y(value), curve.colour, 3)

    def _draw_legend(self) -> None:
        """On the line of the title, from the right."""
        entries = [(line[0].label, line[0].colour, False) for line in self.lines]
        entries += [(mark.label, mark.colour, True) for mark in self.panel.marks]
        if len(entries) < 2:
            return
        x, y = self.right, self.panel.top + 12
        for label, colour, ring in reversed(entries):
            x -= self.font.getlength(label) / FINE
            self._text(x, y, label, INK, "lm")
            if ring:
                self._dot(x - 16, y, colour, 5, ring=True)
            else:
                self._line([(x - 28, y), (x - 6, y)], colour, 3)
            x -= 46

    def _polyline(self, steps: np.ndarray, values: np.ndarray, colour: Colour, width: int) -> None:
        points = [(self._x(s), self._y(v)) for s, v in zip(steps, values, strict=True)]
        if len(points) > 1:
            self._line(points, colour, width)

    def _line(
        self, points: Sequence[tuple[int | float, int | float]], colour: Colour, width: int
    ) -> None:
        large = [(x * FINE, y * FINE) for x, y in points]
        self.out.line(large, fill=colour, width=width * FINE, joint="curve")

    def _dot(
        self, x: int | float, y: int | float, colour: Colour, radius: int, *, ring: bool = False
    ) -> None:
        box = [(c + s * radius) * FINE for s in (-1, 1) for c in (x, y)]
        fill = "white" if ring else colour
        self.out.ellipse(box, fill=fill, outline=colour, width=2 * FINE)

    def _text(self, x: int | float, y: int | float, text: str, colour: Colour, anchor: str) -> None:
        self.out.text((x * FINE, y * FINE), text, fill=colour, font=self.font, anchor=anchor)
