"""Strict numerics for every test: no silent promotion, shapes checked, eight CPU devices."""

import atexit
import os
import shutil
import tempfile
from importlib.metadata import version

os.environ["JAX_PLATFORMS"] = "cpu"
# What a test has compiled is not compiled again by another, nor by processes that it starts. Name a
# folder of your own to keep it between runs.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ldm_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
# Tests compile much and run little: LLVM's slow passes would cost more than they save, and so would
# the newer way to compile fused operations, which later versions do not let one choose.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1"
)
if version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import jax  # noqa: E402
import jaxtyping  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

jaxtyping.install_import_hook("ldm_jax", "beartype.beartype")

import functools  # noqa: E402
import gc  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import store_server  # noqa: E402
import tiny  # noqa: E402
from filelock import FileLock  # noqa: E402

# Tracing makes millions of objects that live until it is done; looking through them again and again
# takes a twentieth of all time.
gc.freeze()
gc.set_threshold(20_000, 10, 10)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins files with slow tests first: begun last, one process would wait for another's."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id) -> Callable[[str, Callable[[Path], None]], Path]:
    """Makes a folder once for all of the processes that run tests: (name, how to fill it) → it."""
    base = tmp_path_factory.getbasetemp()
    root = base if worker_id == "master" else base.parent

    def once(name: str, fill: Callable[[Path], None]) -> Path:
        folder, done = root / f"shared_{name}", root / f"shared_{name}.done"
        with FileLock(f"{folder}.lock"):
            if not done.exists():
                folder.mkdir()  # fails where an earlier attempt did
                fill(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def pictures(shared) -> Path:
    """A folder of 48 captioned scenes, one subfolder for each first digit."""
    return shared("pictures", tiny.write_pictures)


@pytest.fixture(scope="session")
def annotations(shared) -> Path:
    """Boxes and class maps of `pictures`."""
    return shared("annotations", tiny.write_annotations)


@pytest.fixture(scope="session")
def programs(shared) -> Path:
    """Where tests, and the command lines that they start, keep what they compile."""
    return shared("programs", lambda folder: None)


@pytest.fixture(scope="session", autouse=True)
def compiled_once(programs) -> None:
    """A program that several tests or processes need is compiled by the first of them."""
    jax.config.update("jax_compilation_cache_dir", str(programs))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(programs)  # of commands that tests start
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(scope="session")
def trained_autoencoder(shared, pictures, programs) -> Path:
    """The work directory of `tiny.autoencoder_run`, trained by `train.py` without a break."""

    def fill(folder: Path) -> None:
        config = tiny.write_config(folder / "config.py", tiny.autoencoder_run(pictures))
        tiny.check(tiny.train(config, folder / "run", programs=programs))

    return shared("autoencoder", fill) / "run"


@pytest.fixture(scope="session")
def trained_text2img(shared, pictures, programs, trained_autoencoder) -> Path:
    """The work directory of `tiny.diffusion_run`, trained by `train.py` without a break."""

    def fill(folder: Path) -> None:
        config = tiny.write_config(folder / "config.py", tiny.diffusion_run(pictures))
        first_stage = f"--first_stage={trained_autoencoder}"
        tiny.check(tiny.train(config, folder / "run", first_stage, programs=programs))

    return shared("text2img", fill) / "run"


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Iterator[store_server.Store]:
    """An object store with the bucket `gs://bucket`, which this process and those that it starts
    find; what is copied from it is kept with the tests' own files."""
    copies = str(tmp_path_factory.mktemp("caches"))
    with store_server.serving() as found, pytest.MonkeyPatch.context() as patch:
        for name, value in (found.environment | {"XDG_CACHE_HOME": copies}).items():
            patch.setenv(name, value)
        import fsspec

        fsspec.config.set_conf_env(fsspec.config.conf)
        fsspec.filesystem("gs").mkdir("bucket")
        yield found


@pytest.fixture
def one_device(monkeypatch) -> None:
    """Trains on one of the eight devices."""
    from ldm_jax.core import sharding
    from ldm_jax.training import loop

    mesh = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(loop, "make_mesh", mesh)
