"""Statistics of a reference set as files."""

import numpy as np
import pytest

from ldm_jax.core.reading import FileFormatError
from ldm_jax.evaluation.reference_files import is_reference, read_reference, write_reference
from ldm_jax.evaluation.scores.moments import moments_of


@pytest.fixture(scope="module")
def moments():
    generator = np.random.default_rng(0)
    return {tap: moments_of(generator.normal(size=(50, 6))) for tap in ("2048", "spatial")}


def test_what_is_written_is_read_again(moments, tmp_path):
    path = tmp_path / "r.npz"
    write_reference(path, moments, {"images": 50, "evaluator": "adm"})
    found = read_reference(path)
    assert is_reference(path) and found.provenance == {"images": 50, "evaluator": "adm"}
    for tap, expected in moments.items():
        assert found.moments[tap].count == 50
        np.testing.assert_array_equal(found.moments[tap].mean, expected.mean)
        np.testing.assert_allclose(
            found.moments[tap].covariance, expected.covariance, rtol=1e-15, atol=1e-17
        )


def test_others_files_are_read(moments, tmp_path):
    own = moments["2048"]
    # pytorch-fid's, clean-fid's and EDM's; ADM's has images beside them.
    np.savez(tmp_path / "edm.npz", mu=own.mean, sigma=own.covariance)
    images = np.zeros((3, 4, 4, 3), np.uint8)
    np.savez(
        tmp_path / "adm.npz", images, mu=own.mean.astype(np.float32), sigma=own.covariance,
        mu_s=own.mean, sigma_s=own.covariance,
    )  # fmt: skip
    for name, taps in (("edm.npz", ["2048"]), ("adm.npz", ["2048", "spatial"])):
        found = read_reference(tmp_path / name)
        assert [*found.moments] == taps and found.provenance is None
        np.testing.assert_allclose(found.moments["2048"].mean, own.mean, rtol=1e-6)


def test_images_alone_are_no_reference(tmp_path):
    np.savez(tmp_path / "s.npz", np.zeros((3, 4, 4, 3), np.uint8))
    assert not is_reference(tmp_path / "s.npz") and not is_reference(tmp_path)
    with pytest.raises(FileFormatError, match="has no statistics"):
        read_reference(tmp_path / "s.npz")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"sigma": np.eye(5)}, r"must be \[d\] and \[d, d\]"),
        ({"mu": np.arange(6)}, "floating-point"),
        ({"mu": np.full(6, np.nan)}, "not finite"),
        ({"sigma": np.triu(np.ones((6, 6)))}, "not symmetric"),
        ({"mu_s": np.zeros(6)}, "mu_s"),
    ],
)
def test_what_is_no_covariance_is_refused(tmp_path, changed, problem):
    np.savez(tmp_path / "r.npz", **({"mu": np.zeros(6), "sigma": np.eye(6)} | changed))
    with pytest.raises(FileFormatError, match=problem):
        read_reference(tmp_path / "r.npz")


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "r.npz", mu=np.array([{}], object), sigma=np.eye(1))
    with pytest.raises(FileFormatError, match="Object arrays"):
        read_reference(tmp_path / "r.npz")
