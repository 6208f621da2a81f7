"""The same run gives the same curve however many devices and processes share it."""

import dataclasses
import functools
import socket

import jax
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.core import sharding
from ldm_jax.training import loop

STEPS = 8
# Sums over the batch are taken in another order on each arrangement, an error of some 1e-7 a step
# in float32, which Adam's division by small second moments enlarges as the steps go on.
CLOSE = {"rtol": 2e-4}


@pytest.fixture(scope="module")
def run(pictures):
    # Neither pictures nor validation: they would compile a sampler and more for each arrangement.
    loop = dataclasses.replace(tiny.LOOP, steps=STEPS, checkpoint_every=STEPS, sample_every=0)
    return tiny.diffusion_run(pictures, data=tiny.data(pictures, validation=0.0), loop=loop)


def curve_of_one_device(run, workdir, **models):
    """Losses of the run in this process, on one of its devices."""
    with pytest.MonkeyPatch.context() as patch:
        mesh = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
        patch.setattr(loop, "make_mesh", mesh)
        tiny.fit(run, workdir, **models)
    return curve(workdir)


@pytest.fixture(scope="module")
def one_device_curve(run, trained_autoencoder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one") / "run"
    return curve_of_one_device(run, workdir, first_stage=trained_autoencoder)


def curve(workdir):
    return [list(tiny.losses(workdir, name).values()) for name in ("loss", "gradient_norm")]


def assert_same_curve(found, expected):
    assert [len(values) for values in found] == [STEPS, STEPS]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
    assert found[0][-1] < found[0][0]  # it learns, so the parameters' updates were compared too


def test_eight_devices_train_as_one_does(run, one_device_curve, trained_autoencoder, tmp_path):
    run = dataclasses.replace(run, mesh=cfg.Mesh(data=2, fsdp=2, tensor=2))
    tiny.fit(run, tmp_path / "run", first_stage=trained_autoencoder)
    assert_same_curve(curve(tmp_path / "run"), one_device_curve)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "devices"),
    [(cfg.Mesh(data=2, fsdp=2), 2), (cfg.Mesh(tensor=2), 1)],
    ids=["a part of the batch each", "the same rows for both"],
)
def test_two_processes_train_as_one_does(
    run, mesh, devices, one_device_curve, trained_autoencoder, programs, tmp_path
):
    config = tiny.write_config(tmp_path / "config.py", dataclasses.replace(run, mesh=mesh))
    words = config, tmp_path / "run", f"--first_stage={trained_autoencoder}"
    processes = [
        tiny.train(*words, *options, devices=devices, programs=programs, **environment)
        for options, environment in in_two(mesh)
    ]
    outputs = [tiny.check(process) for process in processes]
    parts = {1: "data 2 x fsdp 2; a batch of 16, 4", 2: "tensor 2; a batch of 16, 16"}
    assert f"2 processes, {2 * devices} devices (cpu) as {parts[mesh.tensor]} on each" in outputs[0]
    assert_same_curve(curve(tmp_path / "run"), one_device_curve)


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
