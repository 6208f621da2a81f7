"""Pixel diffusion of wide pictures: trains without a first stage; its work directory draws, and is
converted."""

import functools
import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny

import train
from ldm_jax import config as cfg
from ldm_jax import convert
from ldm_jax.cli import sample
from ldm_jax.cli.sample_arguments import parse
from ldm_jax.convert.compvis.writer import write_checkpoint
from ldm_jax.convert.native import write_native
from ldm_jax.core import sharding
from ldm_jax.evaluation import __main__ as command
from ldm_jax.generation.conditions import Picture
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.training import loop

UNET = replace(tiny.UNET, block_out_channels=(8,))
FAST = cfg.Sampling(steps=2, batch_size=2)


def _run(folder):
    return tiny.diffusion_run(
        folder, data=replace(tiny.data(folder, 0.0), image_size=(16, 24), batch_size=8),
        unet=UNET, space="pixels", conditioners=(),
        loop=replace(tiny.LOOP, steps=1, checkpoint_every=1, sample_every=0),
    )  # fmt: skip


@pytest.fixture(scope="module")
def workdir(pictures, tmp_path_factory):
    """The work directory of one step on pixels, made on one device, which compiles faster."""
    folder = tmp_path_factory.mktemp("pixels")
    config = tiny.write_config(folder / "config.py", _run(pictures))
    with pytest.MonkeyPatch.context() as patch:
        mesh = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
        patch.setattr(loop, "make_mesh", mesh)
        assert train.main([f"--config={config}", f"--workdir={folder / 'run'}"]) == 0
    return folder / "run"


def test_a_work_directory_has_no_first_stage_and_draws(workdir):
    assert not (workdir / "first_stage").exists()
    assert np.isfinite(tiny.losses(workdir)[1])
    pipeline = Pipeline(workdir)
    assert pipeline.config.autoencoder == cfg.Pixels()
    images = pipeline.generate([None] * 2, sampling=FAST)
    assert images.shape == (2, 16, 24, 3) and images.dtype == np.uint8
    latents = pipeline.generate([None] * 2, sampling=FAST, decode=False)
    np.testing.assert_array_equal(images, np.clip(np.round((latents + 1) * 127.5), 0, 255))
    # Image-to-image encodes as well.
    given = Picture(image=np.asarray(images[0]))
    back = pipeline.generate([None], sampling=replace(FAST, strength=0.5), picture=given)
    assert back.shape == (1, 16, 24, 3)


def test_the_command_line_draws_it(workdir, tmp_path):
    out = tmp_path / "out"
    sample.draw(parse([f"--model={workdir}", f"--out={out}", "--num=2", "--steps=2"]))
    assert len(list(out.rglob("*.png"))) >= 2


def test_the_native_form_holds_it_and_others_refuse(workdir, tmp_path):
    imported = convert.load(workdir)
    write_native(imported, tmp_path / "model")
    again = convert.load(tmp_path / "model")
    assert again.config == imported.config
    tiny.same_bits((again.params, again.frozen), (imported.params, imported.frozen))
    with pytest.raises(convert.ConvertError, match="autoencoder is Pixels.*native form"):
        write_checkpoint(imported, tmp_path / "file.safetensors")


def test_a_first_stage_is_refused(pictures, tmp_path, capsys):
    config = tiny.write_config(tmp_path / "config.py", _run(pictures))
    options = [f"--config={config}", f"--workdir={tmp_path / 'run'}", f"--first_stage={pictures}"]
    assert train.main(options) == 2
    assert "space='pixels'), without a first stage" in capsys.readouterr().err


def test_a_network_of_other_channels_is_refused(pictures):
    with pytest.raises(cfg.ConfigError, match="unet.in_channels is 4; it must be 3"):
        replace(_run(pictures), unet=replace(UNET, in_channels=4))


def test_likelihoods_are_measured_by_a_command(workdir, tmp_path, capsys):
    out = tmp_path / "deep" / "report.json"
    options = [
        "likelihood", f"--model={workdir}", f"--out={out}", "--split=train", "--num=4",
        "--batch_size=2", "--steps=2", "--probes=2",
    ]  # fmt: skip
    assert command.main(options) == 0
    shown = capsys.readouterr().out
    assert "bits per dimension of 8-bit pixels" in shown and "decoder, L_0" in shown
    report = json.loads(out.read_text())
    assert (report["of"], report["images"], len(report["bound_terms"])) == ("pixels", 4, 100)
    parts = report["bound_prior"] + sum(report["bound_terms"])
    assert report["bound_bits_per_dim"] == pytest.approx(parts, rel=1e-4)
    assert report["flow_probe_error"] > 0 and np.isfinite(report["flow_bits_per_dim"])
    assert command.main([*options, "--no-bound", "--no-exact"]) == 2
    assert "--exact is False; it must be on, or --bound" in capsys.readouterr().err
