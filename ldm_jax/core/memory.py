"""How much memory there is, on a device or on this machine."""

import contextlib
from pathlib import Path
from typing import Any

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def device_memory(device: Any) -> int | None:
    """Bytes that JAX may use on a device; None where it does not say, as on CPUs."""
    try:
        found = device.memory_stats()
    except RuntimeError:  # NotImplementedError is one
        return None
    return (found or {}).get("bytes_limit")


def free_memory() -> int | None:
    """Bytes that this machine, or the container that it is, has left; None where it does not say.

    What is used for files alone counts as free.
    """
    free = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        free.append(int(lines["MemAvailable"].split()[0]) * 1024)
    with contextlib.suppress(OSError, ValueError, KeyError):
        limit = int((_CGROUP / "memory.max").read_text())  # "max" where there is none
        used = int((_CGROUP / "memory.current").read_text())
        kinds = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        free.append(limit - used + int(kinds["inactive_file"]))
    return min(free, default=None)


def size(count: int) -> str:
    """So many bytes as people write them: 512 MB, 1.25 GB."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
