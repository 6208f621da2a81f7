"""The Inception score of classifiers whose score is known."""

import numpy as np
import pytest

from ldm_jax.evaluation.scores.inception_score import blocks, equal_parts, inception_score


def test_it_counts_the_classes_that_are_seen_surely():
    logits = np.where(np.eye(10)[np.arange(100) % 4], 80.0, 0.0).astype(np.float32)
    assert inception_score(logits, [0, 100]).mean == pytest.approx(4)
    unsure = np.zeros((100, 10), np.float32)
    assert inception_score(unsure, [0, 100]).mean == pytest.approx(1)


def test_sorted_by_class_it_is_ruined():
    logits = np.where(np.eye(10)[np.repeat(np.arange(10), 10)], 80.0, 0.0).astype(np.float32)
    assert inception_score(logits, equal_parts(100, 10)).mean == pytest.approx(1)
    mixed = logits[np.random.default_rng(0).permutation(100)]
    assert inception_score(mixed, equal_parts(100, 10)).mean > 4


def test_impossible_classes_add_nothing():
    logits = np.zeros((4, 3), np.float32)
    logits[:, 2] = -np.inf
    assert inception_score(logits, [0, 4]).mean == pytest.approx(1)


def test_parts():
    assert equal_parts(103, 10) == [0, 10, 20, 30, 41, 51, 61, 72, 82, 92, 103]
    assert blocks(12, 5) == [0, 5, 10, 12] and blocks(10, 5) == [0, 5, 10]
    with pytest.raises(ValueError, match="too few"):
        inception_score(np.zeros((5, 3), np.float32), equal_parts(5, 10))
