"""Arrays of noise in files that may hold anything."""

import os

import numpy as np
import pytest

from ldm_jax.core.npy import read_rows
from ldm_jax.core.reading import FileFormatError

ROW = (2, 3, 4)


def test_rows_are_read_from_their_place(tmp_path):
    noise = np.random.default_rng(0).standard_normal((5, *ROW))
    for dtype in (np.float32, np.float64, np.float16, ">f4"):
        np.save(tmp_path / "a.npy", noise.astype(dtype))
        found = read_rows(tmp_path / "a.npy", ROW, 1, 3, most=9.0)
        np.testing.assert_array_equal(found, noise[1:4].astype(dtype).astype(np.float32))
    np.save(tmp_path / "a.npy", noise[:1])
    assert read_rows(tmp_path / "a.npy", ROW, 0, 3, most=9.0, repeat=True).shape == (3, *ROW)


def saved(array):
    return lambda path: np.save(path, array)


def header(text):
    """A file whose header says `text`, with no array behind it."""
    padded = text.ljust(117) + "\n"
    return lambda path: path.write_bytes(
        b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode()
    )


@pytest.mark.parametrize(
    ("write", "complaint"),
    [
        (saved(np.zeros((5, *ROW), int)), "holds int64; it must hold floating-point numbers"),
        (saved(np.zeros((5, 2, 3), np.float32)), r"shape \(5, 2, 3\); it must be \(n, 2, 3, 4\)"),
        (saved(np.zeros((2, *ROW))), "holds 2 pictures, but 3 are drawn from row 1 on"),
        (saved(np.full((5, *ROW), np.nan)), "values that are not finite"),
        (saved(np.full((5, *ROW), -1e300)), r"the value -1e\+300; .* lie between -9 and 9"),
        (saved(np.full((5, *ROW), 9.1, np.float16)), "the value 9.1; .* lie between -9 and 9"),
        (saved(np.asfortranarray(np.zeros((5, *ROW)))), "is stored column by column"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (9" + "9" * 60), "is damaged"),
        (
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 2, 3, 4), }"),
            "is cut off",
        ),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (9, 2, 3, 4), }"), "object"),
        (header("__import__('os').abort()"), "is damaged"),
        (lambda path: path.write_bytes(b"PK\x03\x04"), "is not a .npy file"),
        (lambda path: path.write_bytes(b""), "is not a .npy file"),
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, "does not exist"),
    ],
)
def test_what_is_no_noise_is_refused_by_name(tmp_path, write, complaint):
    path = tmp_path / "noise.npy"
    write(path)
    with pytest.raises(FileFormatError, match=f"noise.npy: .*{complaint}"):
        read_rows(path, ROW, 1, 3, most=9.0)
