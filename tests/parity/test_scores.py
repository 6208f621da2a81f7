"""Scores against the evaluators they are named after, on the same features."""

import json

import inception_files
import numpy as np
import pytest
import scipy.linalg
import torch
import torch_fidelity
from cleanfid import fid as clean_fid
from PIL import Image
from prdc import compute_prdc
from pytorch_fid import fid_score as pytorch_fid
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

from ldm_jax.evaluation import __main__ as command
from ldm_jax.evaluation.scores.frechet import frechet_distance
from ldm_jax.evaluation.scores.inception_score import blocks, equal_parts, inception_score
from ldm_jax.evaluation.scores.kernel_distance import kernel_distance
from ldm_jax.evaluation.scores.moments import moments_of
from ldm_jax.evaluation.scores.neighbourhoods import neighbourhoods

FID = 1e-6
"""Relative: peers average in float32, or add 1e-6 to a diagonal that is singular."""
END_TO_END = 1e-3
"""Relative, from files to scores."""
EXACT = 1e-5
"""Relative: peers take kernels in float32."""


def features(seed: int, count: int, width: int = 40, shift: float = 0.0) -> np.ndarray:
    """Positive, as Inception's are, and correlated."""
    generator = np.random.default_rng(seed)
    mixed = generator.normal(shift, 1, (count, width)) @ np.random.default_rng(9).normal(
        size=(width, width)
    )
    return np.maximum(mixed / np.sqrt(width), 0).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of a dozen pictures, and a file of weights for Inception."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for name, brightest in (("generated", 256), ("real", 200)):
        (root / name).mkdir()
        for number in range(12):
            coarse = generator.integers(0, brightest, (5, 5, 3), np.uint8)
            image = Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC)
            image.save(root / name / f"{number:02}.png")
    return root, inception_files.save(root)


def test_folders_of_pictures_as_torch_fidelity_scores_them(folders, tmp_path):
    root, weights = folders
    theirs = torch_fidelity.calculate_metrics(
        input1=str(root / "generated"), input2=str(root / "real"), cuda=False, fid=True, isc=True,
        feature_extractor_weights_path=str(weights), cache=False, verbose=False, batch_size=12,
        save_cpu_ram=True,
    )  # fmt: skip
    words = [
        "fid", f"--samples={root}/generated", f"--reference={root}/real", "--num=12",
        f"--inception={weights}", f"--out={tmp_path}", "--feature_batch=12", "--scores=fid",
        "--scores=inception_score",
    ]  # fmt: skip
    assert command.main(words) == 0
    found = json.loads((tmp_path / "scores.json").read_text())["scores"]
    # Features agree to 1e-4, and twelve images leave most of the distance to their mean.
    assert found["fid"]["value"] == pytest.approx(
        theirs["frechet_inception_distance"], rel=END_TO_END
    )
    score = found["inception_score"]
    assert score["value"] == pytest.approx(theirs["inception_score_mean"], rel=END_TO_END)


@pytest.fixture(scope="module")
def sets():
    return features(0, 1200), features(1, 1500, shift=0.2)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_frechet_distance(sets):
    ours = frechet_distance(*map(moments_of, sets))
    statistics = [metric_fid.fid_features_to_statistics(torch.from_numpy(s).double()) for s in sets]
    theirs = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    assert ours == pytest.approx(theirs[metric_fid.KEY_METRIC_FID], rel=FID)
    (mu1, sigma1), (mu2, sigma2) = [(s["mu"], s["sigma"]) for s in statistics]
    for peer in (pytorch_fid.calculate_frechet_distance, clean_fid.frechet_distance):
        assert ours == pytest.approx(peer(mu1, sigma1, mu2, sigma2), rel=FID)


def test_frechet_distance_of_singular_covariances():
    few = features(2, 20), features(3, 30, shift=0.2)
    ours = frechet_distance(*map(moments_of, few))
    (m1, s1), (m2, s2) = [(s.mean(0), np.cov(s.astype(float), rowvar=False)) for s in few]
    root = scipy.linalg.sqrtm(s1 @ s2).real
    theirs = ((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * root)
    # The roots of eigenvalues that are zero but for rounding are 1e-8.
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_inception_score():
    logits = features(4, 1003) * 3
    theirs = metric_isc.isc_features_to_metric(torch.from_numpy(logits))
    order = np.random.RandomState(2020).permutation(len(logits))
    ours = inception_score(logits[order], equal_parts(len(logits), 10))
    assert ours.mean == pytest.approx(theirs[metric_isc.KEY_METRIC_ISC_MEAN], rel=1e-9)
    assert ours.std == pytest.approx(theirs[metric_isc.KEY_METRIC_ISC_STD], rel=1e-6)
    # ADM's: in order, in blocks.
    p = scipy.special.softmax(logits.astype(float), 1)
    scores = [
        np.exp((b * (np.log(b) - np.log(b.mean(0)))).sum(1).mean())
        for b in np.split(p, range(250, len(p), 250))
    ]
    ours = inception_score(logits, blocks(len(logits), 250))
    assert ours.mean == pytest.approx(np.mean(scores), rel=1e-9)


def test_kernel_distance_of_torch_fidelity(sets):
    theirs = metric_kid.kid_features_to_metric(
        *map(torch.from_numpy, sets), kid_subsets=5, kid_subset_size=1000, rng_seed=2020,
        verbose=False,
    )  # fmt: skip
    ours = kernel_distance(*sets, np.random.RandomState(2020), subsets=5)
    assert ours.mean == pytest.approx(theirs[metric_kid.KEY_METRIC_KID_MEAN], rel=EXACT)
    assert ours.std == pytest.approx(theirs[metric_kid.KEY_METRIC_KID_STD], rel=1e-3)


def test_kernel_distance_of_clean_fid(sets):
    state = np.random.get_state()
    try:
        np.random.seed(0)
        theirs = clean_fid.kernel_distance(*sets, num_subsets=5, max_subset_size=400)
    finally:
        np.random.set_state(state)
    ours = kernel_distance(
        *sets, np.random.RandomState(0), subsets=5, subset_size=400, real_first=True
    )
    assert ours.mean == pytest.approx(theirs, rel=EXACT)


def test_precision_and_recall_of_torch_fidelity(sets):
    theirs = metric_prc.prc_features_to_metric(
        *map(torch.from_numpy, sets), prc_neighborhood=3, prc_batch_size=500, verbose=False,
        save_cpu_ram=False,
    )  # fmt: skip
    ours = neighbourhoods(*sets, 3)
    # One image at the edge of a ball is 1e-3.
    assert ours.precision == pytest.approx(theirs[metric_prc.KEY_METRIC_PRECISION], abs=1e-3)
    assert ours.recall == pytest.approx(theirs[metric_prc.KEY_METRIC_RECALL], abs=1e-3)


def test_precision_recall_density_coverage_of_prdc(sets, capsys):
    generated, real = sets
    theirs = compute_prdc(real, generated, 5)
    ours = neighbourhoods(generated, real, 5, edge=False)
    for name, value in theirs.items():
        assert getattr(ours, name) == pytest.approx(value, abs=1e-3), name
