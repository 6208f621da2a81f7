"""Accumulated gradients, and the update that both stages share."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldm_jax.training.gradients import accumulated_gradients, apply_gradients
from ldm_jax.training.state import create_state

PARAMS = {"w": jnp.array([[0.5], [-1.0], [2.0]]), "b": jnp.zeros(1)}


def squared_error(params, batch):
    error = batch["x"] @ params["w"] + params["b"][None] - batch["y"]
    loss = jnp.mean(error**2)
    return loss, {"loss": loss, "largest": jnp.mean(jnp.abs(error))}


@pytest.fixture
def batch():
    random = np.random.default_rng(0)
    shapes = {"x": (24, 3), "y": (24, 1)}
    return {name: jnp.asarray(random.normal(size=s), jnp.float32) for name, s in shapes.items()}


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_accumulation_equals_the_whole_batch(batch, parts):
    whole = accumulated_gradients(squared_error, PARAMS, batch, 1)
    found = jax.jit(lambda b: accumulated_gradients(squared_error, PARAMS, b, parts))(batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, found)


def test_each_part_takes_examples_from_everywhere(batch):
    """Every device's rows are in every part, so that no device waits."""
    seen = []

    def record(params, part):
        jax.debug.callback(lambda rows: seen.append(rows.tolist()), part["row"])
        return squared_error(params, part)

    accumulated_gradients(record, PARAMS, batch | {"row": jnp.arange(24)}, 4)
    jax.effects_barrier()
    assert [list(range(i, 24, 4)) for i in range(4)] == [list(map(int, rows)) for rows in seen]


def test_an_update_moves_everything_and_reports_norms(batch):
    optimizer = optax.sgd(0.1)
    state = create_state(PARAMS, optimizer, 0.9)
    gradients, _ = accumulated_gradients(squared_error, PARAMS, batch, 1)
    after, norms = apply_gradients(state, gradients, optimizer, 0.9, norm_depth=1)
    assert int(after.step) == 1
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradients)))
    np.testing.assert_allclose(norms["gradient_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(norms["update_norm"], 0.1 * norm, rtol=1e-5)
    of_w = np.sqrt(np.sum(np.square(gradients["w"])))
    np.testing.assert_allclose(norms["gradient_norm/w"], of_w, rtol=1e-5)
    np.testing.assert_allclose(norms["update_norm/w"], 0.1 * of_w, rtol=1e-5)
    expected = PARAMS["w"] - 0.1 * gradients["w"]
    np.testing.assert_allclose(after.params["w"], expected, rtol=1e-5)
    # The decay of the first update is 1 / 10.
    np.testing.assert_allclose(after.ema_params["w"], 0.1 * PARAMS["w"] + 0.9 * expected, rtol=1e-5)


def test_no_average_is_kept_where_there_is_none(batch):
    optimizer = optax.sgd(0.1)
    gradients, _ = accumulated_gradients(squared_error, PARAMS, batch, 1)
    after, _ = apply_gradients(create_state(PARAMS, optimizer, None), gradients, optimizer, None)
    assert after.ema_params == {}
