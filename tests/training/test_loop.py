"""What the loop does when a loss is not finite, and when batches differ in shape."""

import dataclasses
import re

import jax
import numpy as np
import optax
import pytest
import tiny
from jax.experimental.layout import Format, Layout

from ldm_jax.core import sharding
from ldm_jax.core.command import Failed
from ldm_jax.training import autoencoder_step, loop
from ldm_jax.training.loop import NonFiniteLoss
from ldm_jax.workdir.checkpoints import Checkpoints


def short(run, **changes):
    settings = {"steps": 6, "checkpoint_every": 6, "validate_every": 6, "sample_every": 6}
    return dataclasses.replace(run, loop=dataclasses.replace(tiny.LOOP, **settings | changes))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(
    pictures, tmp_path, monkeypatch
):
    run = short(tiny.autoencoder_run(pictures), checkpoint_every=1)
    # The first step of a warm-up has a rate of zero; the second overflows float32.
    optim = dataclasses.replace(run.optim, warmup_steps=3)
    usual = autoencoder_step.make_optimizer
    monkeypatch.setattr(
        autoencoder_step, "make_optimizer",
        lambda *given: optax.chain(usual(*given), optax.scale(1e33)),
    )  # fmt: skip
    stopped = r"^step 2: not finite: {.*inf.*} \(all terms: {.*'loss'.*checkpoint is step 1\."
    with pytest.raises(NonFiniteLoss, match=stopped):
        tiny.fit(dataclasses.replace(run, optim=optim), tmp_path / "run")
    assert sorted(tiny.losses(tmp_path / "run")) == [1]
    step, params = Checkpoints.load_params(tmp_path / "run", "raw")
    assert step == 1 and all(np.isfinite(leaf).all() for leaf in tiny.leaves(params))


def test_too_little_memory_says_what_to_make_smaller():
    with (
        pytest.raises(Failed, match=r"^not enough memory; make data\.batch_size or "),
        loop._begun(),
    ):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 17179869184 bytes.")


@pytest.mark.parametrize(
    ("best", "losses", "words"),
    [
        (None, {8: np.nan}, ""),
        (
            4,
            {4: 0.125, 8: 0.1403},
            "best validation loss 0.125 at step 4 (kept in checkpoints/4); of "
            "the last checkpoint 0.1403",
        ),
        (4, {4: 0.125, 8: np.nan}, "best validation loss 0.125 at step 4 (kept in checkpoints/4)"),
        (8, {4: 0.25, 8: 0.125}, "best validation loss 0.125 at step 8, the last"),
    ],
)
def test_the_best_validation_loss_is_said(best, losses, words):
    assert loop._best_note("validation loss", best, losses) == words


def test_the_state_lies_in_memory_as_the_step_wants_it(pictures, tmp_path, monkeypatch):
    """Kernels of convolutions in another order, as on a GPU: validation, pictures and checkpoints
    are the same, to the rounding of sums in another order."""
    run = short(tiny.autoencoder_run(pictures), checkpoint_every=3)
    tiny.fit(run, tmp_path / "usual")

    def outputs_first(shardings, mesh):
        def lay_out(path, sharding):
            kernel = re.search(
                r"conv(1|2|_in|_out)/kernel$",
                jax.tree_util.keystr(path, simple=True, separator="/"),
            )
            return Format(Layout((3, 0, 1, 2)), sharding) if kernel else sharding

        return jax.tree.map_with_path(lay_out, shardings)

    monkeypatch.setattr(loop, "free_layouts", outputs_first)
    state = tiny.fit(run, tmp_path / "run")
    assert (3, 0, 1, 2) in {leaf.format.layout.major_to_minor for leaf in jax.tree.leaves(state)}
    for name in ("loss", "validation_loss"):
        found, wanted = (tiny.losses(tmp_path / folder, name) for folder in ("run", "usual"))
        assert found.keys() == wanted.keys()
        np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-4)
    (_, kept), (_, wanted) = (
        Checkpoints.load_params(tmp_path / folder, "raw") for folder in ("run", "usual")
    )
    for one, other in zip(tiny.leaves(kept), tiny.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_compiler_may_choose_how_the_state_lies_in_memory(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(sharding, "FREE_LAYOUTS", {"cpu"})
    run = short(tiny.autoencoder_run(pictures), sample_every=0)
    assert int(tiny.fit(run, tmp_path / "run").step) == 6
    assert len(tiny.losses(tmp_path / "run", "validation_loss")) == 1


class Buckets:
    """A loader every second batch of which is of narrower pictures."""

    def __init__(self, loader):
        self.loader = loader

    def __next__(self):
        batch = next(self.loader)
        narrower = batch["image"][:, :, :8]
        return batch if self.get_state()["step"] % 2 else {**batch, "image": narrower}

    def __getattr__(self, name):
        return getattr(self.loader, name)


def test_each_shape_of_batches_is_compiled_once(pictures, tmp_path, monkeypatch):
    usual, compile_step, compiled = loop.make_loader, loop._Training._compile, []
    monkeypatch.setattr(loop, "make_loader", lambda *args, **named: Buckets(usual(*args, **named)))

    def noted(self, batch, chosen):
        compiled.append((batch["image"].shape, compile_step(self, batch, chosen)))
        return compiled[-1][1]

    monkeypatch.setattr(loop._Training, "_compile", noted)
    state = tiny.fit(short(tiny.autoencoder_run(pictures), steps=4), tmp_path / "run")
    assert [shape for shape, _ in compiled] == [(16, 16, 16, 3), (16, 16, 8, 3)]
    # The new state takes the memory of the old one, all of it.
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert [one.memory_analysis().alias_size_in_bytes for _, one in compiled] == [size, size]
    losses = tiny.losses(tmp_path / "run")
    assert len(losses) == 4 and np.isfinite(list(losses.values())).all()
