"""Files for torch that are written without it; torch itself reads them in
tests/parity/test_torch_files.py."""

import numpy as np
import pytest

from ldm_jax.formats.torch_file import read_torch
from ldm_jax.formats.torch_writer import write_torch

VALUE = {
    320: ({"linear.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}, {"empty": ()}),
    "half": np.array([1.5, -2.0], np.float16), "scalar": np.array(3.0, np.float32),
    "numbers": [0, 1, -1, 127, 128, -129, 2**40, 2.5, True, False, None], "text": "ä",
    "transposed": np.arange(6, dtype=np.int64).reshape(2, 3).T,
}  # fmt: skip


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    return type(a) is type(b) and a == b


def test_what_is_written_is_read(tmp_path):
    write_torch(tmp_path / "a.pt", VALUE)
    assert same(read_torch(tmp_path / "a.pt"), VALUE)
    write_torch(tmp_path / "b.pt", VALUE)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_what_it_does_not_know_is_refused(tmp_path):
    for value in (object(), np.zeros(2, bool), {"x": {1, 2}}):
        with pytest.raises(TypeError, match="cannot be written"):
            write_torch(tmp_path / "c.pt", value)
    assert not (tmp_path / "c.pt").exists()
