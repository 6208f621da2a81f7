"""The options of a run of several processes are checked before JAX starts."""

import pytest

from ldm_jax.core import distributed


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (("host:1", None, None), "--num_processes and --process_id missing"),
        ((None, 2, None), "--coordinator and --process_id missing"),
        ((None, None, 0), "--coordinator and --num_processes missing"),
        (("host:1", 2, None), "--process_id missing"),
        (("host", 2, 0), "--coordinator=host: it must be HOST:PORT"),
        ((":80", 2, 0), "HOST:PORT"),
        (("host:http", 2, 0), "HOST:PORT"),
        (("host:70000", 2, 0), "HOST:PORT"),
        (("host:1", 0, 0), "--num_processes=0: it must be 1 or more"),
        (("host:1", 2, 2), "--process_id=2: it must be from 0 to 1"),
        (("host:1", 2, -1), "--process_id=-1: it must be from 0 to 1"),
    ],
)
def test_all_three_options_or_none_and_within_range(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        distributed.check(*given)


def test_what_fits_is_taken():
    distributed.check(None, None, None)
    distributed.check("localhost:1234", 2, 1)
    distributed.check("[::1]:1234", 1, 0)
