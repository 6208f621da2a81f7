"""Runs that train a ControlNet beside a model."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.convert import load
from ldm_jax.convert.controlnets.control_files import read_control
from ldm_jax.convert.controlnets.control_writer import write_control
from ldm_jax.convert.imported_model import ConvertError, materialize
from ldm_jax.core import tree
from ldm_jax.data.inputs import InputMaker
from ldm_jax.training.trainable import shapes_beside, with_adapter

LOOP = dataclasses.replace(tiny.LOOP, steps=2, checkpoint_every=1, sample_every=0)
RATE = 1e-2


@pytest.fixture(scope="module")
def run(pictures, annotations):
    """With pictures beside the images for hints."""
    data = tiny.annotated(tiny.data(pictures, validation=0.0), annotations)
    return tiny.diffusion_run(
        pictures, data=data, loop=LOOP, adapter=cfg.ControlNet("edit_images"), train=("adapter",),
        optim=cfg.Optim(learning_rate=RATE, ema_decay=None),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(run, trained_text2img, tmp_path_factory):
    """The work directory and the state of the whole run, on one device."""
    workdir = tmp_path_factory.mktemp("control") / "run"
    return workdir, tiny.fit(run, workdir, init=trained_text2img)


def test_eight_devices_train_as_one_does(run, trained, trained_text2img, tmp_path):
    eight = tiny.fit(run, tmp_path / "run", init=trained_text2img, alone=False)
    tiny.trained_alike((tmp_path / "run", eight), trained, RATE)


def test_only_the_control_trains_and_its_files_say_the_same(trained, trained_text2img, tmp_path):
    workdir, state = trained
    assert all(path.startswith("adapters/control/0/") for path in tree.flatten(state.params))
    base, drawn = load(trained_text2img), load(workdir)
    tiny.same_bits(materialize(drawn.params), materialize(base.params))
    found = read_control(workdir, base.config, base.params["unet"])
    assert np.any(found.params["controlnet_down_blocks"]["0"]["kernel"])
    with pytest.raises(ConvertError, match="trains no ControlNet"):
        read_control(trained_text2img, base.config, base.params["unet"])
    if not base.config.unet.pooled_dim:
        write_control(found, tmp_path / "out", "diffusers")
        again = read_control(tmp_path / "out", base.config, base.params["unet"])
        tiny.same_bits(materialize(again.params), materialize(found.params))


def test_a_run_that_goes_on_is_the_same(run, trained, trained_text2img, tmp_path):
    short = dataclasses.replace(run, loop=dataclasses.replace(LOOP, steps=1))
    tiny.fit(short, tmp_path / "parts", init=trained_text2img)
    resumed = tiny.fit(run, tmp_path / "parts")
    tiny.same_bits(jax.device_get(resumed.params), jax.device_get(trained[1].params))


def test_it_begins_as_the_model_with_a_copy_of_its_way_down(run):
    model = run.model(tiny.AUTOENCODER)
    params = tiny.filled(jax.eval_shape(lambda: ldm.init_params(ldm.build(model), 0)))
    begun = with_adapter(params, run, model)
    own = begun["adapters"]["control"]["0"]
    base = tree.flatten(params["unet"])
    for path, leaf in tree.flatten(own).items():
        if path in base:
            np.testing.assert_array_equal(leaf, base[path])
        elif path.startswith("controlnet_down_blocks") or path.startswith("controlnet_mid"):
            assert not np.any(leaf)
    assert np.any(own["controlnet_cond_embedding"]["conv_in"]["kernel"])


def test_the_decoder_trains_beside_it(run):
    unlocked = dataclasses.replace(run, train=("adapter", "decoder"))
    model = run.model(tiny.AUTOENCODER)
    trained = tree.flatten(shapes_beside(unlocked, model))
    assert {path.split("/")[0] for path in trained} == {"adapters", "unet"}
    inside = {path.split("/")[1] for path in trained if path.startswith("unet/")}
    assert inside == {"up_blocks", "conv_norm_out", "conv_out"}


def test_hints_are_edges_of_what_is_seen_or_pictures_beside_it():
    pytest.importorskip("cv2")
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, 8:] = 255
    found = InputMaker((), None, (16, 16), 2, cfg.ControlNet())({"image": image}, 0, 0)
    assert found["hint"].dtype == np.uint8 and set(np.unique(found["hint"])) == {0, 255}
