"""The curves of a run, read from its metrics."""

import json

import numpy as np

from ldm_jax.images.plot import BLUE, GREEN, ORANGE, PURPLE
from ldm_jax.training.curves import draw_curves, read_metrics, series


def test_metrics_become_curves(tmp_path):
    records = [
        {"step": step, "loss": 10.0 / step, "learning_rate": 1e-3, "images_per_second": 50.0}
        for step in range(1, 41)
    ]
    records[3]["loss"] = None
    records += [{"step": step, "validation_loss": 1.0 + abs(step - 20)} for step in (10, 20, 40)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in records) + '{"step": 41, "lo')
    found = read_metrics(path)
    assert found == records
    assert series(found, "validation_loss") == ([10, 20, 40], [11.0, 1.0, 21.0])
    picture = draw_curves(found)
    for colour in (BLUE, ORANGE, GREEN, PURPLE):
        assert (np.abs(picture.astype(int) - colour).sum(axis=-1) < 60).any()
