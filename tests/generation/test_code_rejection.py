"""Rejection by a classifier: the likeliest of many are kept, and can be drawn again alone."""

import json
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_codes
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.cli.sample_codes_task import CHUNK, Arguments, run
from ldm_jax.config.autoregressive import code_model
from ldm_jax.config.command_line import overridden
from ldm_jax.convert.imported_codes import ImportedCodes
from ldm_jax.convert.native import write_native
from ldm_jax.generation.code_drawing import CodePicture
from ldm_jax.generation.code_rejection import Judge, accepted, drawn_of


def brightness(images, label):
    """Finds bright pictures likely."""
    return images.mean((1, 2, 3)) - 255.0


def test_of_each_class_the_likeliest_stay_in_the_order_of_their_numbers():
    drawn = [
        (CodePicture(number, label), np.full((2, 2, 3), value, np.uint8))
        for label, values in ((3, (5, 9, 1, 9)), (1, (7, 7, 7, 7)))
        for number, value in enumerate(values)
    ]
    kept = [*accepted(drawn, brightness, wanted=2, of=4)]
    assert [(one.picture.label, one.picture.number) for one in kept] == [
        (3, 1), (3, 3), (1, 0), (1, 1),
    ]  # fmt: skip
    assert kept[0].log_prob == 9 - 255
    assert [drawn_of(1, 0.05), drawn_of(3, 0.1), drawn_of(2, 0.6), drawn_of(4, 1.0)] == [
        20, 30, 4, 4,
    ]  # fmt: skip


def test_pictures_that_a_classifier_chose(pictures, trained_autoencoder, tmp_path):
    diffusion = tiny.diffusion_run(pictures)
    network = cfg.Classifier(
        block_out_channels=(8,), attention=(False,), num_heads=(2,), norm_num_groups=4
    )
    loop = replace(diffusion.loop, steps=2, validate_every=2)
    training = cfg.ClassifierRun(
        diffusion.data, network, diffusion.diffusion, diffusion.optim, loop
    )
    tiny.fit(training, tmp_path / "classifier", first_stage=trained_autoencoder)
    classes = training.classifier.num_classes
    config = code_model(
        tiny_codes.AUTOENCODER, tiny_codes.TRANSFORMER, cfg.ClassPrefix(classes), 16
    )
    write_native(ImportedCodes(config, *tiny_codes.params_of(config)), tmp_path / "model")

    def drawn(out: str, *words: str) -> Path:
        model, folder = f"--model={tmp_path / 'model'}", f"--out={tmp_path / out}"
        return run(overridden(Arguments(), (model, folder, *words), "sample_codes")).parent

    by = f"--classifier={tmp_path / 'classifier'}"
    chosen = drawn("chosen", by, "--acceptance=0.4", "--num=2", "--classes", "2", "0")
    files = sorted(path.name for path in chosen.glob("0*.png"))
    everything = drawn("all", "--num=5", "--classes", "2", "0")
    judge = Judge.read(tmp_path / "classifier", config, (16, 16))
    expected = []
    for label in (0, 2):
        names = [f"{label:04d}_{number:04d}.png" for number in range(5)]
        images = np.stack([np.asarray(Image.open(everything / name)) for name in names])
        log_prob = judge.log_prob(images, label)
        # Probabilities are those of all classes, and no picture changes another's.
        every = jnp.stack([judge.log_prob(images[:1], one) for one in range(classes)])
        np.testing.assert_allclose(jnp.exp(every).sum(), 1, rtol=1e-4)
        best = sorted(np.argsort(-log_prob, stable=True)[:2])
        expected += [names[place] for place in best]
        for place in best:
            text = json.loads(Image.open(chosen / names[place]).text[CHUNK])
            assert text["chosen"]["of"] == 5 and text["chosen"]["acceptance"] == 0.4
            np.testing.assert_allclose(text["chosen"]["log_prob"], log_prob[place], atol=1e-5)
            assert "classifier" not in text["arguments"] and text["arguments"]["num"] == 1
            assert text["arguments"]["first_image"] == place
    assert files == expected

    for words, said in (
        (("--acceptance=0.5",), "given with --classifier, and left out without"),
        ((by,), "--acceptance is None; it must be given with --classifier"),
        ((by, "--acceptance=0.5", "--height=32"), "one of pictures of 32 x 16"),
        ((f"--classifier={trained_autoencoder}", "--acceptance=0.5"), "holds a AutoencoderRun"),
    ):
        with pytest.raises(cfg.ConfigError, match=said):
            drawn("not", *words, "--num=1", "--classes", "1")
    assert not (tmp_path / "not").exists()
