"""3x3 convolutions alone on this machine's CPU, in float32: ours, XLA's own, and PyTorch's.

    python -m benchmarks.convolutions [--repeats=15]

GFLOP/s of the values, of the gradient of pixels and of that of the kernel, by what a convolution is
and not by what a form of it computes. Doubled pixels are upsampled by nearest neighbours; PyTorch's
time is without doubling them and adding up their gradients. Needs the extra `parity`.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import torch

from benchmarks import timing, torchvision_python  # noqa: F401
from ldm_jax.core.kept_memory import keep_freed_memory
from ldm_jax.models.convolution import conv2d, conv2d_doubled, double


class Case(NamedTuple):
    """A convolution; `side` is that of its output, in pixels."""

    side: int
    channels: int
    features: int
    batch: int
    doubled: bool = False


CASES = (
    Case(8, 128, 128, 16), Case(8, 1280, 1280, 2), Case(16, 64, 64, 16), Case(16, 192, 64, 16),
    Case(16, 640, 640, 2), Case(64, 320, 320, 2), Case(64, 512, 512, 1), Case(128, 256, 256, 1),
    Case(256, 128, 128, 1), Case(32, 640, 640, 2, True), Case(128, 512, 512, 1, True),
)  # fmt: skip


def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's, with its own gradients."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def ours(case: Case) -> dict[str, dict[str, Callable[[], object]]]:
    """Calls of our convolution and of XLA's: values, gradient of pixels, of the kernel."""
    side = case.side // 2 if case.doubled else case.side
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (case.batch, side, side, case.channels))
    kernel = jax.random.normal(keys[1], (3, 3, case.channels, case.features))
    out_bar = jax.random.normal(keys[2], (case.batch, case.side, case.side, case.features))

    def calls(conv: Callable[..., Any]) -> dict[str, Callable[[], object]]:
        def of_pixels(x: Any, kernel: Any, out_bar: Any) -> Any:
            return jax.vjp(lambda x: conv(x, kernel), x)[1](out_bar)

        def of_kernel(x: Any, kernel: Any, out_bar: Any) -> Any:
            return jax.vjp(lambda kernel: conv(x, kernel), kernel)[1](out_bar)

        given = {"values": (conv, (x, kernel)), "pixels": (of_pixels, (x, kernel, out_bar)),
                 "kernel": (of_kernel, (x, kernel, out_bar))}  # fmt: skip
        found = {}
        for name, (function, args) in given.items():
            program = jax.jit(function).lower(*args).compile()
            found[name] = lambda program=program, args=args: jax.block_until_ready(program(*args))
        return found

    if case.doubled:
        return {"ldm_jax": calls(conv2d_doubled), "XLA": calls(lambda x, k: plain(double(x), k))}
    return {"ldm_jax": calls(conv2d), "XLA": calls(plain)}


def theirs(case: Case) -> dict[str, Callable[[], object]]:
    """The same of PyTorch's."""
    shape = (case.batch, case.channels, case.side, case.side)
    kernel_shape = (case.features, case.channels, 3, 3)
    x, kernel = torch.randn(shape), torch.randn(kernel_shape)
    out_bar = torch.randn(case.batch, case.features, case.side, case.side)
    return {
        "values": lambda: torch.nn.functional.conv2d(x, kernel, padding=1),
        "pixels": lambda: torch.nn.grad.conv2d_input(shape, kernel, out_bar, padding=1),
        "kernel": lambda: torch.nn.grad.conv2d_weight(x, kernel_shape, out_bar, padding=1),
    }


def main() -> None:
    """Prints a row for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    keep_freed_memory()
    print(timing.machine())
    parts = ("values: XLA, PyTorch, ours", "gradient of pixels", "of the kernel")
    print(f"| pixels, channels, batch | {' | '.join(parts)} |")
    print("|---|---|---|---|")
    for case in CASES:
        programs = {**ours(case), "PyTorch": theirs(case)}
        flop = 2 * case.batch * case.side**2 * 9 * case.channels * case.features
        cells = []
        for part in ("values", "pixels", "kernel"):
            # PyTorch by itself: its threads spin for a while after each call, beside the next one.
            seconds = timing.in_turn({"PyTorch": programs["PyTorch"][part]}, repeats)
            both = {name: programs[name][part] for name in ("XLA", "ldm_jax")}
            seconds |= timing.in_turn(both, repeats)
            medians = [statistics.median(seconds[name]) for name in ("XLA", "PyTorch", "ldm_jax")]
            rates = [flop / median / 1e9 for median in medians]
            cells.append(", ".join(f"{rate:.0f}" for rate in rates))
        doubled = ", doubled" if case.doubled else ""
        title = (
            f"{case.side} × {case.side}{doubled}, {case.channels} → {case.features}, {case.batch}"
        )
        print(f"| {title} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
