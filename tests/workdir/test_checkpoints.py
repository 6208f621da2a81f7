"""Checkpoints come back bit for bit, or not at all and with a reason."""

import dataclasses
import json
import logging
import os
import resource
import shutil
import socket
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.core import sharding, tree
from ldm_jax.core.files import files_below
from ldm_jax.core.stores import Unreachable, as_path, is_stored
from ldm_jax.workdir import checkpoints as ckpt
from ldm_jax.workdir.consistency import check_workdir
from ldm_jax.workdir.frozen import load_frozen, save_frozen
from ldm_jax.workdir.run_config import read_config, write_config

RUN = cfg.AutoencoderRun(cfg.Data(), cfg.Autoencoder())
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))
STEPS_TO_COME = 20
IN_TWO = """
import json, shutil, sys
sys.path[:0] = ["tests", "tests/workdir"]
from ldm_jax.core.cluster import Place
from ldm_jax.core.distributed import together, wait_for_all
from ldm_jax.core.stores import as_path

workdir, address, index = as_path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with together("test", Place(index, 2, address)):
    import test_checkpoints as own
    from ldm_jax.core import files

    read, digest = [], files._digest
    files._digest = lambda path: read.append(path) or digest(path)

    def tell(**more):
        names = ["/".join(path.relative_to(workdir).parts[2:]) for path in read]
        names = [name.replace(".orbax-checkpoint-tmp", "") for name in names]
        print(json.dumps({"read": names, **more}))
        read.clear()

    mesh = own.sharding.make_mesh(own.cfg.Mesh(fsdp=2))
    shapes = own.jax.eval_shape(own.make_state)
    placed = own.sharding.state_sharding(mesh, shapes)
    state = own.jax.jit(lambda: own.make_state(3), out_shardings=placed)()
    with own.ckpt.Checkpoints(workdir, keep=1) as checkpoints:
        checkpoints.save(3, state, {"step": 3}, own.RUN)
        checkpoints.wait()
        tell()
        restored = checkpoints.restore(own.abstract(state))[0]
        tell()
        wait_for_all("all have read")
        if index == 0:
            folder = workdir / "checkpoints" / "3" / "state" / "ocdbt.process_1"
            path = max(folder.rglob("*"), key=lambda path: path.stat().st_size)
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        wait_for_all("a bit is flipped")
        try:
            checkpoints.restore(own.abstract(state))
        except own.ckpt.CheckpointError as error:
            tell(error=str(error))
        wait_for_all("all have found it")
        if index == 0:
            path.write_bytes(content)
"""


def make_state(seed=0):
    kernel = jax.random.normal(jax.random.key(seed), (64, 128))
    params = {"unet": {"to_q": {"kernel": kernel, "bias": kernel[0]}}, "conditioners": {}}
    return {"step": jnp.int32(seed), "params": params, "ema_params": params,
            "opt_state": OPTIMIZER.init(params)}  # fmt: skip


def place(state, mesh):
    return jax.device_put(state, sharding.state_sharding(mesh, state))


def abstract(state):
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), state
    )


def same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype
        assert x.tobytes() == y.tobytes()


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(cfg.Mesh(data=2, fsdp=2, tensor=2))


@pytest.fixture(scope="module")
def template(mesh):
    return abstract(place(make_state(), mesh))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, mesh):
    """A work directory with checkpoints of steps 1 and 2."""
    workdir = tmp_path_factory.mktemp("run")
    with ckpt.Checkpoints(workdir, keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, place(make_state(step), mesh), {"step": step}, RUN)
    write_config(workdir, RUN)
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    """A copy of it to break."""
    return shutil.copytree(saved, tmp_path / "run")


def restore(workdir, template, step=None):
    with ckpt.Checkpoints(workdir, keep=2) as checkpoints:
        return checkpoints.restore(template, step)


def test_the_newest_checkpoint_comes_back_bit_for_bit_where_it_lay(saved, template):
    state, position = restore(saved, template)
    same_bits(state, make_state(2))
    assert position == {"step": 2}
    kernel = state["params"]["unet"]["to_q"]["kernel"]
    assert kernel.sharding == template["params"]["unet"]["to_q"]["kernel"].sharding
    assert not kernel.sharding.is_fully_replicated
    same_bits(restore(saved, template, 1)[0], make_state(1))


def test_a_checkpoint_of_eight_devices_comes_back_on_one(saved):
    one = sharding.make_mesh(cfg.Mesh(), jax.devices()[:1])
    same_bits(restore(saved, abstract(place(make_state(), one)))[0], make_state(2))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["a folder", "a store"])
def test_two_processes_each_read_their_share_and_all_hear_of_damage(
    place, tmp_path, template, request
):
    workdir = tmp_path
    if place == "a store":
        request.getfixturevalue("store")
        workdir = as_path("gs://bucket/two/run")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [tiny.start("-c", IN_TWO, str(workdir), address, str(i)) for i in range(2)]
    outputs = [tiny.check(process) for process in processes]
    saved, restored, broken = zip(
        *(map(json.loads, output.strip().splitlines()[-3:]) for output in outputs), strict=True
    )
    noted = json.loads((workdir / "checkpoints" / "3" / "digests.json").read_text())
    own = [{name for name in noted if f"state/ocdbt.process_{i}/" in name} for i in range(2)]
    assert own[0] and own[1] and {*saved[1]["read"]} == own[1]
    assert sorted(saved[0]["read"]) == sorted({*noted} - own[1])
    shares = [{name for name in one["read"] if name.startswith("state/")} for one in restored]
    assert not shares[0] & shares[1]
    assert shares[0] | shares[1] == {name for name in noted if name.startswith("state/")}
    sizes = [sum(noted[name]["bytes"] for name in share) for share in shares]
    assert max(sizes) < 0.6 * sum(sizes)
    for one in broken:
        assert "ocdbt.process_1" in one["error"] and "other contents than" in one["error"]
    # On eight devices of one process.
    same_bits(restore(workdir, template)[0], make_state(3))


def test_a_store_that_orbax_does_not_know_gets_the_same_files(
    store, saved, mesh, template, monkeypatch
):
    workdir = as_path("gs://bucket/staged/run")
    monkeypatch.setattr(ckpt, "known_to_orbax", lambda path: not is_stored(path))
    with ckpt.Checkpoints(workdir, keep=1) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, place(make_state(step), mesh), {"step": step}, RUN)
            assert checkpoints.latest_step() == step
        checkpoints.wait()
        assert [*checkpoints.values()] == [2]
        (copy,) = ckpt.store_copies.folder().parent.glob("staged/*")
        assert [*copy.iterdir()] == []
    assert not copy.exists()
    names = [files_below(at / "checkpoints" / "2") for at in (saved, workdir)]
    names = [{name for name in one if "/d/" not in name} for one in names]
    assert names[0] | {"commit_success.txt"} == names[1]
    same_bits(restore(workdir, template)[0], make_state(2))

    def refuse(path, folder, names):
        (path / names[0]).write_bytes(b"half")
        raise Unreachable(f"{path}: refused")

    monkeypatch.setattr(type(workdir), "put_files", refuse)
    with (
        pytest.raises(ckpt.SaveFailed, match="could not be saved in gs://.*/3: refused; .* step 2"),
        ckpt.Checkpoints(workdir, keep=1) as checkpoints,
    ):
        checkpoints.save(3, place(make_state(3), mesh), {"step": 3}, RUN)
        checkpoints.wait()
    assert {name.split("/")[0] for name in (workdir / "checkpoints").files()} == {"2"}


def test_what_is_saved_is_the_state_before_the_steps_that_follow(tmp_path, mesh, template):
    @jax.jit
    def initial():
        return make_state(5)

    def step(state):
        return jax.tree.map(lambda a: a + jnp.ones_like(a), state)

    step = jax.jit(step, donate_argnums=0)
    state = place(initial(), mesh)
    with ckpt.Checkpoints(tmp_path, keep=2) as checkpoints:
        state = step(state)
        expected = jax.tree.map(np.array, state)
        checkpoints.save(1, state, {}, RUN)
        for _ in range(STEPS_TO_COME):
            state = step(state)
        jax.block_until_ready(state)
    same_bits(restore(tmp_path, template)[0], expected)


def test_parameters_load_without_knowing_the_optimiser(saved):
    before = sorted(saved.rglob("*"))
    for which in ("ema", "raw"):
        step, params = ckpt.Checkpoints.load_params(saved, which)
        assert step == 2
        same_bits(params, jax.tree.map(np.asarray, make_state(2)["params"]))
    assert sorted(saved.rglob("*")) == before


def test_a_run_without_an_average_says_so(tmp_path):
    write_config(tmp_path, RUN)
    with ckpt.Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, make_state() | {"ema_params": {}}, {}, RUN)
    with pytest.raises(ckpt.CheckpointError, match="keeps no average, use the raw weights"):
        ckpt.Checkpoints.load_params(tmp_path, "ema")


@pytest.mark.parametrize("harm", ["truncate", "delete", "alter"])
def test_every_damaged_file_is_named_and_nothing_older_is_used(workdir, template, harm):
    directory = workdir / "checkpoints" / "2"
    names = json.loads((directory / "digests.json").read_text())
    assert any(name.startswith("state/") for name in names)
    for name in names:
        path = directory / name
        content = path.read_bytes()
        if harm == "truncate":
            path.write_bytes(content[: len(content) // 2])
        elif harm == "delete":
            path.unlink()
        else:
            middle = len(content) // 2
            path.write_bytes(
                content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            )
        with pytest.raises(ckpt.CheckpointError) as error:
            ckpt.Checkpoints.load_params(workdir, "ema")
        assert str(path) in str(error.value)
        if name.startswith("state/"):
            with pytest.raises(ckpt.CheckpointError, match="is damaged"):
                restore(workdir, template)
        path.write_bytes(content)
    same_bits(restore(workdir, template)[0], make_state(2))


@pytest.mark.parametrize("name", ["digests.json", "state", "run"])
def test_a_missing_part_of_a_checkpoint_is_an_error(workdir, template, name):
    path = workdir / "checkpoints" / "2" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ckpt.CheckpointError, match=str(path)):
        restore(workdir, template)


def test_keys_and_shapes_that_do_not_fit_are_named(saved, template):
    wanted = dict(tree.flatten(template["params"]["unet"]))
    wanted["to_q/kernel"] = jax.ShapeDtypeStruct(
        (64, 64), jnp.float32, sharding=wanted["to_q/kernel"].sharding
    )
    wanted["to_k/kernel"] = wanted["to_q/kernel"]
    del wanted["to_q/bias"]
    wrong = template | {"params": {"unet": tree.unflatten(wanted), "conditioners": {}}}
    with pytest.raises(ckpt.CheckpointError) as error:
        restore(saved, wrong)
    text = str(error.value)
    assert str(saved / "checkpoints" / "2") in text
    assert "missing: params/unet/to_k/kernel" in text
    assert "unexpected: params/unet/to_q/bias" in text
    assert "params/unet/to_q/kernel (is float32[64,128], wanted float32[64,64])" in text


def test_what_an_interrupted_save_left_is_no_checkpoint(workdir, template):
    directory = workdir / "checkpoints"
    left = directory / "3.orbax-checkpoint-tmp-7"
    shutil.copytree(directory / "2", left)
    trash = directory / "trash" / "0" / "state"  # and of an interrupted deletion
    trash.mkdir(parents=True)
    assert ckpt.Checkpoints.load_params(workdir, "raw")[0] == 2
    with ckpt.Checkpoints(workdir, keep=2) as checkpoints:
        assert checkpoints.latest_step() == 2
        checkpoints.save(3, make_state(3), {}, RUN)
    assert sorted(p.name for p in directory.iterdir()) == ["2", "3"]
    same_bits(restore(workdir, abstract(make_state()))[0], make_state(3))


def test_nothing_saved_yet(tmp_path, template):
    with ckpt.Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.latest_step() is None
        assert checkpoints.best_step() is None
        with pytest.raises(FileNotFoundError, match="has no checkpoint"):
            checkpoints.restore(template)


def test_a_step_that_is_not_new_is_refused(workdir):
    with (
        ckpt.Checkpoints(workdir, keep=2) as checkpoints,
        pytest.raises(ckpt.CheckpointError, match=r"step 2 cannot be saved.*already has step 2"),
    ):
        checkpoints.save(2, make_state(), {}, RUN)


def test_the_newest_ones_and_the_best_one_stay(tmp_path):
    losses = {1: 0.5, 2: 0.1, 3: 0.3, 4: float("nan"), 5: None, 6: 0.2}
    for steps in ((1, 2, 3), (4, 5, 6)):  # the best is known after a restart, too
        with ckpt.Checkpoints(tmp_path, keep=2) as checkpoints:
            for step in steps:
                loss = losses[step]
                scores = None if loss is None else {"validation_loss": loss}
                checkpoints.save(step, {"step": jnp.int32(step)}, {}, RUN, scores)
            assert checkpoints.best_step() == 2
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "5", "6"]


def test_config_is_kept_and_a_run_goes_on_with_more_steps(workdir, tmp_path):
    check_workdir(tmp_path / "new", RUN)
    assert read_config(workdir) == RUN
    longer = dataclasses.replace(RUN, loop=cfg.Loop(steps=5000, keep=7), mesh=cfg.Mesh(fsdp=2))
    check_workdir(workdir, longer)
    write_config(workdir, longer)
    check_workdir(workdir, RUN)


def test_another_run_in_the_same_place_is_refused_by_field(workdir, tmp_path):
    write_config(tmp_path, dataclasses.replace(RUN, optim=cfg.Optim(learning_rate=2.0)))
    check_workdir(tmp_path, RUN)  # nothing is trained yet
    other = dataclasses.replace(
        RUN, optim=cfg.Optim(learning_rate=1e-3), loop=cfg.Loop(seed=1, steps=7),
        data=cfg.Data(source=cfg.ImageFolder()),
    )  # fmt: skip
    with pytest.raises(cfg.ConfigError) as error:
        check_workdir(workdir, other)
    text = str(error.value)
    assert "optim.learning_rate was 0.0001, is 0.001" in text
    assert "loop.seed was 0, is 1" in text
    assert "data.source was 'DigitScenes', is 'ImageFolder'" in text
    assert "loop.steps" not in text
    assert read_config(workdir) == RUN


def test_a_missing_or_damaged_config_is_named(workdir, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
        read_config(tmp_path)
    (workdir / "config.json").unlink()
    with pytest.raises(cfg.ConfigError, match=r"has checkpoints but no config\.json"):
        check_workdir(workdir, RUN)
    (tmp_path / "config.json").write_text('{"type": "AutoencoderRun", ')
    with pytest.raises(cfg.ConfigError, match=str(tmp_path / "config.json")):
        check_workdir(tmp_path, RUN)


def test_a_config_changed_behind_a_checkpoint_is_refused(workdir, template):
    other = dataclasses.replace(RUN, optim=cfg.Optim(learning_rate=0.5))
    write_config(workdir, other)
    for use in (
        lambda: check_workdir(workdir, other),
        lambda: ckpt.Checkpoints.load_params(workdir, "ema"),
    ):
        with pytest.raises(ckpt.CheckpointError, match="learning_rate was 0.0001, is 0.5") as error:
            use()
        assert "Restore the files" in str(error.value)


def test_frozen_files_belong_to_a_checkpoint_bit_for_bit(tmp_path):
    run = dataclasses.replace(RUN, loss=cfg.AutoencoderLoss(perceptual=cfg.Perceptual()))
    write_config(tmp_path, run)
    save_frozen(tmp_path / "perceptual", "weights", {"kernel": np.ones(3, np.float32)})
    with ckpt.Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"params": {"a": jnp.ones(2)}}, {}, run)
    check_workdir(tmp_path, run)
    ckpt.Checkpoints.load_params(tmp_path, "raw")
    path = tmp_path / "perceptual" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    for harm in (lambda: path.write_bytes(content), path.unlink):
        harm()
        for use in (
            lambda: check_workdir(tmp_path, run),
            lambda: ckpt.Checkpoints.load_params(tmp_path, "raw"),
        ):
            with pytest.raises(ckpt.CheckpointError, match=f"since checkpoint 1 was saved.*{path}"):
                use()


@pytest.mark.parametrize(
    "content", ["{}", "[]", "null", '{"state/d": 3}', '{"a": {"bytes": "1", "sha256": 2}}', "{"]
)
def test_a_list_of_digests_must_cover_the_checkpoint(workdir, content):
    digests = workdir / "checkpoints" / "2" / "digests.json"
    digests.write_text(content)
    with pytest.raises(ckpt.CheckpointError, match=f"damaged: .*{digests}"):
        ckpt.Checkpoints.load_params(workdir, "ema")


def test_each_file_of_a_checkpoint_must_be_in_the_list(workdir):
    digests = workdir / "checkpoints" / "2" / "digests.json"
    noted = json.loads(digests.read_text())
    for name in noted:
        digests.write_text(json.dumps({n: d for n, d in noted.items() if n != name}))
        with pytest.raises(ckpt.CheckpointError, match=f"does not note {name}|no file of"):
            ckpt.Checkpoints.load_params(workdir, "ema")
    digests.write_text(json.dumps(noted))
    pipe = workdir / "checkpoints" / "2" / "_CHECKPOINT_METADATA"
    content = pipe.read_bytes()
    pipe.unlink()
    os.mkfifo(pipe)
    with pytest.raises(ckpt.CheckpointError, match="_CHECKPOINT_METADATA is no regular file"):
        ckpt.Checkpoints.load_params(workdir, "ema")
    pipe.unlink()
    pipe.write_bytes(content)
    (workdir / "checkpoints" / "2" / "state" / ".DS_Store").write_bytes(b"of a file browser")
    ckpt.Checkpoints.load_params(workdir, "ema")


def test_a_checkpoint_under_another_steps_name_is_refused(workdir):
    shutil.copytree(workdir / "checkpoints" / "2", workdir / "checkpoints" / "16")
    with pytest.raises(ckpt.CheckpointError, match="it is that of step 2 under another name"):
        ckpt.Checkpoints.load_params(workdir, "ema")


def test_a_damaged_older_record_keeps_no_newer_checkpoint_from_use(workdir, template, capsys):
    record = workdir / "checkpoints" / "1" / "run" / "metadata"
    record.write_text("{")
    with ckpt.Checkpoints(workdir, keep=1) as checkpoints:
        same_bits(checkpoints.restore(template)[0], make_state(2))
        checkpoints.save(3, make_state(3), {}, RUN)
    said = capsys.readouterr().err
    assert str(record) in said and "left where it is" in said and said.count("\n") == 1
    # What it was worth is not known, so that it is not deleted.
    assert sorted(p.name for p in record.parents[2].iterdir()) == ["1", "3"]


def test_a_folder_named_like_a_step_gets_the_advice_of_a_damaged_one(workdir, template):
    (workdir / "checkpoints" / "7").mkdir()
    (workdir / "checkpoints" / "08").mkdir()  # no step has this name
    for use in (
        lambda: check_workdir(workdir, RUN),
        lambda: restore(workdir, template),
        lambda: ckpt.Checkpoints.load_params(workdir, "ema"),
    ):
        with pytest.raises(ckpt.CheckpointError, match="7 is damaged.*to go on from step 2"):
            use()
    for step in (1, 2):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    with pytest.raises(ckpt.CheckpointError, match="to begin anew"):
        check_workdir(workdir, RUN)


def test_a_save_that_fails_is_said_in_a_sentence_and_leaves_nothing(workdir, capfd):
    before = sorted(workdir.rglob("*"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ckpt.Checkpoints(workdir, keep=2) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
        try:
            checkpoints.save(3, make_state(3), {}, RUN)
            with pytest.raises(ckpt.SaveFailed) as error:
                while True:  # as the loop looks after every step
                    checkpoints.check()
                    time.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert str(error.value).startswith(
            f"step 3 could not be saved in {workdir / 'checkpoints'}: a file would be "
            "larger than is allowed here (ulimit -f); the last good checkpoint is step 2. "
        )
        assert sorted(workdir.rglob("*")) == before
        checkpoints.save(4, make_state(4), {}, RUN)  # once there is room
    assert ckpt.Checkpoints.load_params(workdir, "ema")[0] == 4
    assert "Traceback" not in capfd.readouterr().err


def test_frozen_parts_are_written_once_and_read_strictly(tmp_path):
    frozen = {"autoencoder": {"conv": {"kernel": jnp.arange(6.0).reshape(2, 3).T}},
              "latent_scale": jnp.float32(0.18), "half": jnp.ones(3, jnp.bfloat16)}  # fmt: skip
    save_frozen(tmp_path / "first", "weights", frozen)
    loaded = load_frozen(tmp_path / "first", "weights")
    same_bits(loaded, jax.tree.map(np.asarray, frozen))
    save_frozen(tmp_path / "first", "weights", frozen)
    with pytest.raises(FileExistsError, match="other content"):
        save_frozen(tmp_path / "first", "weights", frozen | {"latent_scale": np.float32(1)})
    path = tmp_path / "first" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ckpt.CheckpointError, match=str(path)):
        load_frozen(tmp_path / "first", "weights")
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_that_a_save_waits_for_the_one_before_is_no_news():
    def news(path, text):
        return ckpt._is_news(logging.LogRecord("absl", 30, path, 1, text, (1.08,), None))

    waiting = "Waiting for previous save to complete took %f seconds."
    assert not news("site-packages/orbax/checkpoint/checkpoint_manager.py", waiting)
    assert news("site-packages/orbax/checkpoint/checkpoint_manager.py", "Slow disk: %f")
    assert news("site-packages/other.py", waiting)
