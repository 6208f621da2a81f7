"""Strict numerics for every test: no silent promotion, shapes checked, eight CPU devices."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile much and run little: LLVM's slow passes would cost more than they save.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true"
)

import jax  # noqa: E402
import jaxtyping  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

jaxtyping.install_import_hook("ldm_jax", "beartype.beartype")

import functools  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import tiny  # noqa: E402

# Processes share programs that one of them has compiled.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder of 48 captioned scenes, one subfolder for each first digit."""
    return tiny.write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Path:
    """Where the command lines that tests start keep what they compile."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="session")
def trained_autoencoder(tmp_path_factory, pictures, programs) -> Path:
    """The work directory of `tiny.autoencoder_run`, trained by `train.py` without a break."""
    workdir = tmp_path_factory.mktemp("autoencoder") / "run"
    config = tiny.write_config(workdir.parent / "config.py", tiny.autoencoder_run(pictures))
    tiny.check(tiny.train(config, workdir, programs=programs))
    return workdir


@pytest.fixture(scope="session")
def trained_text2img(tmp_path_factory, pictures, programs, trained_autoencoder) -> Path:
    """The work directory of `tiny.diffusion_run`, trained by `train.py` without a break."""
    workdir = tmp_path_factory.mktemp("text2img") / "run"
    config = tiny.write_config(workdir.parent / "config.py", tiny.diffusion_run(pictures))
    process = tiny.train(config, workdir, f"--first_stage={trained_autoencoder}", programs=programs)
    tiny.check(process)
    return workdir


@pytest.fixture
def one_device(monkeypatch) -> None:
    """Trains on one of the eight devices."""
    from ldm_jax import sharding
    from ldm_jax.training import first_stage, loop

    mesh = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
    for module in (loop, first_stage):
        monkeypatch.setattr(module, "make_mesh", mesh)
