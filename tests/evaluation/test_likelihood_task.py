"""The likelihood's table says what its numbers are of, and leaves nothing of them out."""

import pytest

from ldm_jax.evaluation.image_sets import number_of
from ldm_jax.evaluation.likelihood_task import parts, table

REPORT = {
    "model": "runs/x", "images": 4, "split": "validation", "of": "latents",
    "flow_bits_per_dim": 1.5, "flow_standard_error": 0.25, "flow_probe_error": 0.125,
    "bound_bits_per_dim": 60.5, "bound_standard_error": 0.5, "bound_prior": 10.5,
    "bound_terms": [5.0] + [0.45] * 100,
}  # fmt: skip


def test_latents_are_said_to_be_no_pixels():
    assert "scaled latents; not of pixels" in table(REPORT)
    assert "per dimension of 8-bit pixels" in table(REPORT | {"of": "pixels"})


def test_the_parts_of_the_bound_sum_to_it():
    rows = table(REPORT).splitlines()
    start = next(i for i, row in enumerate(rows) if "L_T" in row)
    values = [float(row.split()[-1]) for row in rows[start:]]
    assert sum(values) == pytest.approx(60.5)
    assert "1.5000 +- 0.2500" in "\n".join(rows)


@pytest.mark.parametrize("count", [1, 2, 5, 10, 1000])
def test_every_timestep_but_the_first_is_in_one_part(count):
    found = [t for start, stop in parts(count) for t in range(start, stop)]
    assert sorted(found) == list(range(1, count))


def test_fewer_images_than_were_asked_for_are_said(capsys):
    assert number_of(1000, "validation", 10) == 10
    assert "validation has 10 images, fewer than --num=1000; all" in capsys.readouterr().out
    assert number_of(1000, "validation", 1000) == 1000 and not capsys.readouterr().out
