"""Counts the floating-point operations of a traced program, 2 for a multiplication and addition."""

import math
from typing import Any


def count(jaxpr: Any) -> int:
    """FLOPs of all matmuls and convolutions in `jaxpr`, those of a loop as often as it runs.

    Of alternatives the dearest counts, so that attention is counted by its plain form and not
    by its kernels. Convolutions count their padding too. What remat computes again counts again.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, out = equation.primitive.name, equation.outvars[0].aval if equation.outvars else None
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * math.prod(out.shape) * math.prod(shape[i] for i in contracted)
        elif name == "conv_general_dilated":
            total += 2 * math.prod(out.shape) * _taps(equation)
        elif name == "conv2d":  # of models.convolution
            total += 2 * math.prod(out.shape) * math.prod(equation.invars[1].aval.shape[:3])
        elif name == "cond":
            total += max(count(branch.jaxpr) for branch in equation.params["branches"])
        elif name == "scan":
            total += equation.params["length"] * count(equation.params["jaxpr"].jaxpr)
        elif name != "pallas_call":
            total += sum(count(inner) for inner in _inner(equation.params))
    return total


def _taps(equation: Any) -> float:
    """Multiplications for one output of a convolution, without those with inserted zeros."""
    layout = equation.params["dimension_numbers"]
    kernel = equation.invars[1].aval.shape
    _, channels, *window = (kernel[i] for i in layout.rhs_spec)
    return channels * math.prod(window) / math.prod(equation.params["lhs_dilation"])


def _inner(params: dict[str, Any]) -> list[Any]:
    """The programs inside of an operation: of jit, remat, custom derivatives, shard_map."""
    found = []
    for value in params.values():
        value = getattr(value, "jaxpr", value)
        if hasattr(value, "eqns"):
            found.append(value)
    return found
