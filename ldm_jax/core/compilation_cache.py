"""Where JAX keeps what it compiles, so that the second start of a command compiles nothing.

It imports nothing but Python's own library: JAX reads its environment when it is imported.
"""

import contextlib
import hashlib
import os
import platform
import re
import sys
import warnings
from pathlib import Path

FOLDER = "JAX_COMPILATION_CACHE_DIR"
"""JAX's own variable; if the user has set it, it holds."""
OFF = "JAX_ENABLE_COMPILATION_CACHE"
MOST_BYTES = 4 * 2**30
"""What was not used for longest is deleted beyond this."""
_DAMAGED = re.compile(r"Error (?:reading|writing) persistent compilation cache entry for '([^']+)'")
"""What JAX warns of where a program was not written whole: the disk was full, or the process killed
meanwhile. It would compile it, and warn, at every start, for it never writes over an entry."""


def keep_compiled() -> None:
    """Has JAX, which must not be imported yet, keep all that it compiles in the user's cache
    folder. Where that cannot be written to, nothing is kept."""
    if FOLDER in os.environ or os.environ.get(OFF, "true").lower() in ("0", "false"):
        return
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _delete_oldest(folder)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        os.environ[FOLDER] = str(folder)
        # Without these, what compiles within a second would be compiled again.
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        _delete_damaged(folder)


def cache_folder() -> Path:
    """`ldm_jax/compiled/PROCESSOR` in the folder where the system has its users' caches. A home
    that several machines share holds programs for the processor of each."""
    if sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "ldm_jax" / "compiled" / _processor()


def _processor() -> str:
    """A name of what this machine's processor can execute."""
    features = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"


def _delete_damaged(folder: Path) -> None:
    """From now on deletes the entries of a program that JAX warns of, in place of the warning."""
    show = warnings.showwarning

    def delete_or_show(message: Warning | str, *more: object, **others: object) -> None:
        damaged = _DAMAGED.match(str(message))
        if damaged is None:
            show(message, *more, **others)
            return
        for entry in [*folder.iterdir()]:
            if entry.name.startswith(f"{damaged[1]}-"):
                entry.unlink(missing_ok=True)

    warnings.showwarning = delete_or_show


def _delete_oldest(folder: Path) -> None:
    found = [(entry.stat(), entry.path) for entry in os.scandir(folder) if entry.is_file()]
    size = sum(stat.st_size for stat, _ in found)
    for stat, path in sorted(found, key=lambda one: max(one[0].st_atime, one[0].st_mtime)):
        if size <= MOST_BYTES:
            return
        with contextlib.suppress(FileNotFoundError):  # another command is doing the same
            os.unlink(path)
        size -= stat.st_size
