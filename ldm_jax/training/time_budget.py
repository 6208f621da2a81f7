"""What the time of a run goes to, and how fast its devices compute."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np

from ldm_jax.core import flops
from ldm_jax.core.signals import STARTED

Part = Literal["start", "compile", "data", "validation", "checkpoints"]
"""What is no training: from the start of the process, or the end of the run before, to the
training loop; compiling; waiting for data while the devices have nothing to do; scores and
pictures; checkpoints."""
PARTS: tuple[Part, ...] = ("start", "compile", "data", "validation", "checkpoints")


class TimeBudget:
    """Adds up the seconds of each part since the process began, or since the run before in the same
    process ended; the rest is training."""

    _free_since = STARTED

    def __init__(self) -> None:
        self._began = TimeBudget._free_since
        self._spent: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._spent["start"] = time.monotonic() - self._began

    def end(self) -> None:
        """From now on time is that of the next run."""
        TimeBudget._free_since = time.monotonic()

    @contextlib.contextmanager
    def spending(self, part: Part) -> Iterator[None]:
        """What is done inside is of that part."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(part, time.monotonic() - began)

    def add(self, part: Part, seconds: float) -> None:
        """So much more of a part."""
        self._spent[part] += seconds

    def record(self) -> dict[str, float]:
        """`time/PART` for each part, and `time/all`, in seconds."""
        everything = {f"time/{part}": seconds for part, seconds in self._spent.items()}
        return everything | {"time/all": time.monotonic() - self._began}


def trained_share(record: Mapping[str, Any]) -> float:
    """The share of a record's time that trained (goodput)."""
    rest = sum(record[f"time/{part}"] for part in PARTS)
    return max(0.0, 1 - rest / record["time/all"])


def told_times(record: Mapping[str, Any]) -> str:
    """What the time went to, in words, the most first."""
    parts = {part: record[f"time/{part}"] / record["time/all"] for part in PARTS}
    listed = sorted(parts.items(), key=lambda item: -item[1])
    rest = [f"{part} {share:.0%}" for part, share in listed if share >= 0.005]
    return f"{trained_share(record):.0%} of the time trained" + (
        f"; {', '.join(rest)}" if rest else ""
    )


def speed(
    steps: int, batch_size: int, seconds: float, model_flops: float, devices: int
) -> dict[str, float]:
    """Metrics of `steps` steps that took so long: images in all and for each device, time of a
    step, and the model FLOPs of each device, with their share of its peak where that is known.

    `model_flops` are those of one step on all devices.
    """
    rate = steps * batch_size / seconds
    found = {
        "images_per_second": rate, "images_per_second_per_device": rate / devices,
        "step_seconds": seconds / steps,
        "tflops_per_device": steps * model_flops / seconds / devices / 1e12,
    }  # fmt: skip
    peak = flops.peak(jax.devices()[0].device_kind)
    return found if peak is None else found | {"mfu": found["tflops_per_device"] * 1e12 / peak}


def memory_in_use() -> dict[str, float]:
    """The fullest of this process's devices, in gigabytes now and at most so far; {} where devices
    do not say."""
    told = [device.memory_stats() or {} for device in jax.local_devices()]
    names = {"memory_gb": "bytes_in_use", "peak_memory_gb": "peak_bytes_in_use"}
    if not all(set(names.values()) <= one.keys() for one in told):
        return {}
    return {name: max(one[key] for one in told) / 1e9 for name, key in names.items()}


def slowest_process(data_wait: float) -> dict[str, float]:
    """Of several processes, which all come here, the one that has waited longest for its data, and
    how long; {} of one."""
    if jax.process_count() == 1:
        return {}
    from jax.experimental import multihost_utils

    waits = multihost_utils.process_allgather(np.float32(data_wait))
    return {"slowest_process": float(waits.argmax()), "slowest_data_wait": float(waits.max())}
