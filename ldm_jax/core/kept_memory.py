"""Memory that training on a CPU frees and asks for again at each step, kept by the process.

XLA asks for the temporaries of a whole program as one block at each call, and the GNU C library
hands blocks of this size back to the system when they are freed. So each step would have every page
anew, and the system clears it first: a fifth of a training step.
"""

import ctypes
import os
import sys

# Names and numbers of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER, _DEFAULT_ARENAS = -1, 0
_prepared = False


def prepare_to_keep() -> None:
    """Has threads share one heap, for a thread's own never holds a large block.

    To be called before JAX is imported, which starts threads; later it does nothing, and so it does
    where the user chose by variables of the C library (`MALLOC_...`, `GLIBC_TUNABLES`).
    """
    global _prepared
    chosen = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if "jax" not in sys.modules and not chosen:
        _prepared = _mallopt(_M_ARENA_MAX, 1)


def keep_freed_memory() -> None:
    """Keeps what is freed, if the process was prepared and computes on a CPU; otherwise undoes the
    preparation. The process then holds the most that it has needed at once."""
    import jax

    if not _prepared:
        return
    if jax.default_backend() == "cpu":
        _mallopt(_M_MMAP_MAX, 0)
        _mallopt(_M_TRIM_THRESHOLD, _NEVER)
    else:
        _mallopt(_M_ARENA_MAX, _DEFAULT_ARENAS)


def _mallopt(parameter: int, value: int) -> bool:
    """Whether this C library has the setting and took it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and mallopt(parameter, value) == 1
