"""Whether a training step fits into memory, as its compiler says."""

from collections.abc import Sequence
from typing import Any

from ldm_jax.core.command import REFUSED, Failed
from ldm_jax.core.memory import device_memory, free_memory, size

SMALLER = (
    "make data.batch_size or data.image_size smaller, compute a batch in parts "
    "(optim.accumulation), or set loop.remat or loop.dtype=bfloat16"
)
"""What to do where a step does not fit."""
DOUBT = 1.2
"""How many times what is left an estimate for CPUs must be before it is worth a warning."""


class TooLarge(Failed):
    """A step takes more memory than a device has; found before the first one."""

    status = REFUSED


def memory_note(program: Any, devices: Sequence[Any]) -> str:
    """What one step of a compiled program takes of the memory of each of this process's `devices`,
    in words; "" where the compiler does not say.

    On CPUs what it says is rough, and what there is changes: too little is only a warning.

    Raises:
        TooLarge: it is more than a device has.
    """
    found = _needed(program)
    if found is None:
        return ""
    arguments, rest = found
    limits = [limit for one in devices if (limit := device_memory(one))]
    if limits:
        needed, limit = arguments + rest, min(limits)
        if needed > limit:
            raise TooLarge(
                f"a step takes {size(needed)} on each device, which has {size(limit)}; {SMALLER}"
            )
        return f"a step takes {size(needed)} of the {size(limit)} of each device"
    needed, free = (arguments + rest) * len(devices), free_memory()
    if free is None or devices[0].platform != "cpu":
        return f"a step takes about {size(needed)}"
    free += arguments * len(devices)  # they are there already
    if needed > DOUBT * free:
        return (
            f"a step takes about {size(needed)}, but only {size(free)} of memory are free: it may "
            f"be ended by the system. If it is, {SMALLER}"
        )
    return f"a step takes about {size(needed)} of the {size(free)} of memory that are free"


def _needed(program: Any) -> tuple[int, int] | None:
    """Bytes of the arguments of a program on each device, and of all else that it needs."""
    try:
        found = program.memory_analysis()
    except RuntimeError:  # NotImplementedError is one
        return None
    if found is None:
        return None
    rest = found.output_size_in_bytes - found.alias_size_in_bytes + found.temp_size_in_bytes
    return found.argument_size_in_bytes, rest
