"""The same run gives the same curve however many devices and processes share it."""

import dataclasses
import functools
import socket
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from jax.sharding import Mesh
from tiny_extractors import read_tiny

from ldm_jax import config as cfg
from ldm_jax.core import sharding
from ldm_jax.evaluation.features import extractors
from ldm_jax.training import loop

STEPS = 8
WITH_TINY_EXTRACTORS = """
import sys
sys.path.insert(0, "tests")
import tiny_extractors, train
from ldm_jax.core.command import run_program
from ldm_jax.evaluation.features import extractors

extractors.read_extractor = tiny_extractors.read_tiny
run_program("train.py", train.main)
"""
# Sums over the batch are taken in another order on each arrangement, an error of some 1e-7 a step
# in float32, which Adam's division by small second moments enlarges as the steps go on.
CLOSE = {"rtol": 2e-4}
CURVES = (
    "loss", "gradient_norm", "gradient_norm/unet/up_blocks",
    "gradient_norm/conditioners/text_encoder",
)  # fmt: skip
# Of drawings by weights that differ so; 5e-6 was seen.
CLOSE_SCORES = {"rel": 1e-4}


@pytest.fixture(scope="module")
def run(pictures):
    # No validation, and scores only where they are looked at: they compile a sampler and more.
    loop = dataclasses.replace(
        tiny.LOOP, steps=STEPS, checkpoint_every=STEPS, sample_every=0, norm_depth=2
    )
    scores = cfg.DrawnScores(
        every=STEPS, evaluator="adm", scores=("fid", "inception_score"), num=21
    )
    return tiny.diffusion_run(
        pictures, data=tiny.data(pictures, validation=0.0), loop=loop, evaluation=scores
    )


def train_on_one_device(run, workdir, **models):
    """In this process, on one of its devices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractors, "read_extractor", read_tiny)
        tiny.fit(run, workdir, **models)


@pytest.fixture(scope="module")
def one_device(run, trained_autoencoder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one") / "run"
    train_on_one_device(run, workdir, first_stage=trained_autoencoder)
    return workdir


def curve(workdir):
    return [list(tiny.losses(workdir, name).values()) for name in CURVES]


def assert_same_curve(found, expected):
    assert [len(values) for values in found] == [STEPS] * len(CURVES)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
    assert found[0][-1] < found[0][0]  # it learns, so the parameters' updates were compared too


@dataclasses.dataclass(frozen=True)
class OfSlice:
    """A device of this machine as if it were of one of several slices, which CPUs never are."""

    device: Any
    slice_index: int

    def __getattr__(self, name):
        return getattr(self.device, name)


def two_slices(config):
    """The mesh of this machine's devices, of which every second is of another slice."""
    mesh = sharding.make_mesh(config, [OfSlice(d, i % 2) for i, d in enumerate(jax.devices())])
    real = np.vectorize(lambda one: one.device)(mesh.devices)
    assert [device.id % 2 for device in real[:, 0, 0]] == [0, 1]
    return Mesh(real, mesh.axis_names, axis_types=mesh.axis_types)


def test_eight_devices_of_two_slices_train_as_one_does(
    run, one_device, trained_autoencoder, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "make_mesh", two_slices)
    # Arrays as small as those of tests are split, those of the frozen first stage too.
    split = functools.partial(sharding.state_sharding, min_size=1)
    monkeypatch.setattr(loop, "state_sharding", split)
    mesh = cfg.Mesh(data=2, fsdp=2, tensor=2)
    run = dataclasses.replace(run, mesh=mesh, evaluation=None)
    tiny.fit(run, tmp_path / "run", first_stage=trained_autoencoder, alone=False)
    assert_same_curve(curve(tmp_path / "run"), curve(one_device))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "devices"),
    [(cfg.Mesh(data=2, fsdp=2), 2), (cfg.Mesh(tensor=2), 1)],
    ids=["a part of the batch each", "the same rows for both"],
)
def test_two_processes_train_as_one_does(
    run, mesh, devices, one_device, trained_autoencoder, programs, tmp_path
):
    scored = mesh.tensor == 1
    run = dataclasses.replace(run, mesh=mesh, evaluation=run.evaluation if scored else None)
    config = tiny.write_config(tmp_path / "config.py", run)
    words = (
        f"--config={config}", f"--workdir={tmp_path / 'run'}",
        f"--first_stage={trained_autoencoder}",
    )  # fmt: skip
    processes = [
        tiny.start(
            "-c", WITH_TINY_EXTRACTORS, *words, *options, devices=devices, programs=programs,
            **environment,
        )
        for options, environment in in_two(mesh)
    ]  # fmt: skip
    outputs = [tiny.check(process) for process in processes]
    parts = {1: "data 2 x fsdp 2; a batch of 16, 4", 2: "tensor 2; a batch of 16, 16"}
    assert f"2 processes, {2 * devices} devices (cpu) as {parts[mesh.tensor]} on each" in outputs[0]
    assert_same_curve(curve(tmp_path / "run"), curve(one_device))
    if scored:
        for name in ("adm/fid", "adm/inception_score"):
            found, expected = (tiny.losses(path, name) for path in (tmp_path / "run", one_device))
            assert found == pytest.approx(expected, **CLOSE_SCORES)


def in_two(mesh):
    """Options and environment of two processes, which find each other by either."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    if mesh.tensor == 2:
        together = [f"--coordinator=localhost:{port}", "--num_processes=2"]
        return [([*together, f"--process_id={i}"], {}) for i in range(2)]
    slurm = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2",
             "SLURM_STEP_TASKS_PER_NODE": "2", "JAX_COORDINATOR_PORT": port}  # fmt: skip
    return [([], {**slurm, "SLURM_PROCID": f"{i}", "SLURM_LOCALID": f"{i}"}) for i in range(2)]
