"""Processes of one run end together, and each says why."""

import socket

import pytest
import tiny

IN_TWO = """
import sys, time
from ldm_jax.core.cluster import Place
from ldm_jax.core.distributed import together, wait_for_all

address, index = sys.argv[1], int(sys.argv[2])
with together("test", Place(index, 2, address)):
    wait_for_all("both are there")
    print("there", flush=True)
    time.sleep(1000)
"""


@pytest.mark.slow
def test_once_process_0_has_died_the_other_ends_with_a_sentence():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    first, second = (tiny.start("-c", IN_TWO, address, str(index)) for index in range(2))
    assert first.stdout.readline() == "there\n"
    first.kill()
    said = tiny.check(second, status=1).splitlines()
    assert said[0] == "there"
    assert said[-1] == f"test: process 0 has died: nobody answers at {address} any more"
    tiny.finish(first)
