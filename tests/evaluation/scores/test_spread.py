"""How certain a score is."""

import numpy as np
import pytest

from ldm_jax.evaluation.scores.spread import bootstrap, over_runs


def test_the_bootstrap_finds_the_error_of_a_mean():
    features = np.random.default_rng(0).normal(size=(400, 1))
    found = bootstrap(lambda rows: float(rows.mean()), features, samples=300)
    assert found.std == pytest.approx(features.std() / 20, rel=0.15)
    assert found == bootstrap(lambda rows: float(rows.mean()), features, samples=300)


def test_runs_are_blocks_in_order():
    found = over_runs(lambda rows: float(rows.mean()), np.arange(9.0)[:, None], 3)
    assert found.values == (1, 4, 7) and found.minimum == 1 and found.mean == 4
    assert found.std == pytest.approx(3)
    with pytest.raises(ValueError, match="not 2 runs"):
        over_runs(lambda rows: 0.0, np.zeros((9, 1)), 2)
