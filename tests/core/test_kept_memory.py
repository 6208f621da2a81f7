"""What training frees stays with its process, so that no page is cleared anew at each step."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
from ldm_jax.core.kept_memory import keep_freed_memory, prepare_to_keep

prepare_to_keep()

import resource, threading
import jax

def ask_again():
    for _ in range(4):
        b"x" * 2**26

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=ask_again)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

jax.devices()
of_before = faults()
keep_freed_memory()
faults()
print(of_before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of the GNU C library")
def test_blocks_that_are_freed_in_a_thread_are_used_again():
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=variables | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    before, kept = map(int, run.stdout.split())
    assert before > 40 and kept < before / 10
