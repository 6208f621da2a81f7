"""Times two programs in turn, so that both meet the machine in the same moods."""

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable


def in_turn(programs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each of `repeats` calls of each program, after one that does not count."""
    for program in programs.values():
        program()
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            began = time.perf_counter()
            program()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def report(title: str, seconds: dict[str, list[float]], ours: str, peer: str) -> None:
    """Prints machine, versions, median and least time of each, and the ratio of the medians."""
    print(f"{title}\n{machine()}")
    for name, values in seconds.items():
        median, least = statistics.median(values), min(values)
        print(f"  {name:12} median {median * 1e3:9.1f} ms   least {least * 1e3:9.1f} ms")
    ratio = statistics.median(seconds[ours]) / statistics.median(seconds[peer])
    print(f"  {ours} takes {ratio:.2f} times as long as {peer}")


def machine() -> str:
    """Processor, number of cores, and the versions of what is compared."""
    processor = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ("jax", "flax", "torch", "diffusers")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return f"  {processor}, {cores} cores; Python {platform.python_version()}, {versions}"
