"""Floating-point operations of a traced program, 2 for a multiplication and addition, and how many
a device can do at most."""

import functools
import math
from typing import Any

import jax

PEAKS = {
    "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5e": 197e12, "TPU v5p": 459e12, "TPU v5": 459e12,
    "TPU v6 lite": 918e12, "TPU v6e": 918e12,
    "A100": 312e12, "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12,
    "L40S": 362e12, "RTX 4090": 165e12,
}  # fmt: skip
"""FLOP/s of dense products in bfloat16, by a part of what JAX calls a device's kind; the first that
fits counts. From the makers' data sheets."""
_AGAIN = "rematted_computation"
"""The scope that JAX gives to what remat computes again."""


def peak(kind: str) -> float | None:
    """What a device of this kind can do at most; None where nobody has looked it up."""
    return next((value for name, value in PEAKS.items() if name in kind), None)


def count(jaxpr: Any, again: bool = True) -> int:
    """FLOPs of all matmuls and convolutions in `jaxpr`, those of a loop as often as it runs.

    Of forms for platforms the default's counts, which is the plain one, and of other alternatives
    the dearest. Convolutions count their padding too.

    Args:
        jaxpr: the program.
        again: whether what remat computes again in the backward pass counts again. Model FLOPs, and
            their share of the peak (MFU), are counted without (Chowdhery 2022, arXiv:2204.02311,
            appendix B).
    """
    total = 0
    for equation in jaxpr.eqns:
        if not again and _AGAIN in str(equation.source_info.name_stack):
            continue
        name, out = equation.primitive.name, equation.outvars[0].aval if equation.outvars else None
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * math.prod(out.shape) * math.prod(shape[i] for i in contracted)
        elif name == "conv_general_dilated":
            total += 2 * math.prod(out.shape) * _taps(equation)
        elif hasattr(equation.primitive, "product"):  # of models.bilinear
            total += count(_traced(equation).jaxpr)
        elif name == "cond":
            total += max(count(branch.jaxpr, again) for branch in _alternatives(equation.params))
        elif name == "scan":
            total += equation.params["length"] * count(equation.params["jaxpr"].jaxpr, again)
        elif name != "pallas_call":
            total += sum(count(inner, again) for inner in _inner(equation.params))
    return total


def _taps(equation: Any) -> int:
    """Multiplications for one output of a convolution, without those with inserted zeros."""
    layout = equation.params["dimension_numbers"]
    kernel = equation.invars[1].aval.shape
    _, channels, *window = (kernel[i] for i in layout.rhs_spec)
    return channels * math.prod(window) // math.prod(equation.params["lhs_dilation"])


def _alternatives(params: dict[str, Any]) -> list[Any]:
    """The branches of a `cond`; of one for platforms the default alone."""
    platforms = params.get("branches_platforms")
    return [params["branches"][platforms.index(None)]] if platforms else list(params["branches"])


def _traced(equation: Any) -> Any:
    """The product of a primitive that says itself how it is differentiated."""
    product = functools.partial(equation.primitive.product, **equation.params)
    inputs = (jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in equation.invars)
    return jax.make_jaxpr(product)(*inputs)


def _inner(params: dict[str, Any]) -> list[Any]:
    """The programs inside of an operation: of jit, remat, custom derivatives, shard_map."""
    found = []
    for value in params.values():
        value = getattr(value, "jaxpr", value)
        if hasattr(value, "eqns"):
            found.append(value)
    return found
