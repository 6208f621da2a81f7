"""Runs of stage two that begin with parts of trained models."""

import dataclasses

import convert_models as small
import jax
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.cli.train import parse
from ldm_jax.convert import load
from ldm_jax.convert.native import write_native
from ldm_jax.convert.parts import model_config
from ldm_jax.core import tree
from ldm_jax.data.loader import make_loader
from ldm_jax.data.sources import open_source
from ldm_jax.training.beginning import all_captions
from ldm_jax.training.diffusion_stage import diffusion_stage
from ldm_jax.training.trainable import split
from ldm_jax.workdir.checkpoints import Checkpoints

LOOP = dataclasses.replace(tiny.LOOP, steps=1, checkpoint_every=1, sample_every=0)


@pytest.fixture
def run(pictures):
    """The run of `trained_text2img`, which neither validates nor draws: that takes long."""
    return tiny.diffusion_run(pictures, data=tiny.data(pictures, validation=0.0), loop=LOOP)


def unet_alone(run):
    return dataclasses.replace(run, train=("unet",))


def test_a_frozen_text_encoder_stays_and_the_run_goes_on(run, trained_text2img, tmp_path):
    workdir, unet = tmp_path / "run", unet_alone(run)
    state = tiny.fit(unet, workdir, init=trained_text2img)
    assert state.params.keys() == state.ema_params.keys() == {"unet"}
    assert Checkpoints.load_params(workdir, "ema")[1].keys() == {"unet"}
    longer = dataclasses.replace(unet, loop=dataclasses.replace(LOOP, steps=2))
    assert int(tiny.fit(longer, workdir).step) == 2
    before, after = load(trained_text2img), load(workdir)
    tiny.same_bits(after.params["conditioners"], before.params["conditioners"])
    assert after.tokenizer.is_dir() and (workdir / "untrained/weights.safetensors").is_file()


def test_a_fresh_unet_with_a_trained_text_encoder(run, trained_text2img, trained_autoencoder,
                                                  tmp_path):  # fmt: skip
    given = load(trained_text2img).params
    models = str(trained_autoencoder), None, str(trained_text2img)
    stage = diffusion_stage(unet_alone(run), tmp_path / "frozen", tiny.mesh(), *models)
    assert stage.initial == {}
    tiny.same_bits(stage.frozen["untrained"]["conditioners"], given["conditioners"])
    stage = diffusion_stage(run, tmp_path / "trained", tiny.mesh(), *models)
    tiny.same_bits(stage.initial, {"conditioners": given["conditioners"]})


def test_the_tokenizer_is_made_from_all_captions(pictures):
    kept = tiny.diffusion_run(pictures)
    train, validation = (open_source(kept.data, split) for split in ("train", "validation"))
    expected = [*train.captions(), *validation.captions()]
    assert list(all_captions(kept.data, train)) == expected and len(expected) == 48


def test_attention_alone(run, trained_text2img, tmp_path):
    attention = dataclasses.replace(run, train=("cross_attention",))
    stage = diffusion_stage(attention, tmp_path, tiny.mesh(), None, str(trained_text2img))
    trained = tree.flatten(stage.initial)
    assert trained and all("/attn2/" in path for path in trained)
    whole = tree.join(stage.initial, stage.frozen["untrained"])
    tiny.same_bits(whole, load(trained_text2img).params)


def test_an_inpainting_model_begins_with_a_text_model(run, trained_text2img, tmp_path, capsys):
    wide = dataclasses.replace(run, conditioners=(*run.conditioners, cfg.InpaintingConditioner()))
    alone = dataclasses.replace(wide, train=("cross_attention",))
    init = str(trained_text2img)
    with pytest.raises(cfg.ConfigError, match="leaves unet/conv_in/kernel as it is, but .*'unet'"):
        diffusion_stage(alone, tmp_path / "attention", tiny.mesh(), None, init)
    assert not (tmp_path / "attention").exists()
    stage = diffusion_stage(wide, tmp_path / "run", tiny.mesh(), None, init)
    assert "widened from 4 to 9 input channels, for inpainting" in capsys.readouterr().err
    state, given = stage.init(stage.initial), load(trained_text2img).params
    tiny.same_bits(state.ema_params, state.params)
    kernel = np.asarray(state.params["unet"]["conv_in"].pop("kernel"))
    np.testing.assert_array_equal(
        kernel, np.pad(given["unet"]["conv_in"].pop("kernel"), [(0, 0), (0, 0), (0, 5), (0, 0)])
    )
    tiny.same_bits(state.params, jax.tree.map(np.asarray, given))


def test_patterns_and_names_add_up(run, trained_text2img):
    params = load(trained_text2img).params
    chosen = dataclasses.replace(run, train=("text_encoder", "unet/conv_(in|out)/.*"))
    trained, left = (tree.flatten(part) for part in split(params, chosen))
    assert {path.split("/")[1] for path in trained} == {"text_encoder", "conv_in", "conv_out"}
    assert trained | left == tree.flatten(params) and not trained.keys() & left.keys()
    with pytest.raises(cfg.ConfigError, match="train is 'unet/conv_im/.*no such parameters"):
        split(params, dataclasses.replace(run, train=("unet", "unet/conv_im/.*")))
    for bad, complaint in (
        (("unett",), "train is 'unett'; it must be one or more of all, unet"),
        ((), "train is .*one or more of all"),
        (("unet/(",), r"'unet/\(', which is no pattern"),
    ):
        with pytest.raises(cfg.ConfigError, match=complaint):
            dataclasses.replace(run, train=bad)


def test_the_config_for_fine_tuning_takes_a_model_over(trained_text2img, pictures, tmp_path):
    arguments = [
        "--config=finetune_text2img", f"--workdir={tmp_path / 'run'}", f"--init={trained_text2img}",
        f"--data.source.path={pictures}", "--data.batch_size=8", "--train", "unet", "text_encoder",
        "--text_encoder_learning_rate=1e-6", "--loop.steps=1", "--loop.remat=False",
    ]  # fmt: skip
    tuned, places = parse(arguments)
    model = model_config(trained_text2img)
    assert tuned.unet == model.unet and tuned.diffusion == model.diffusion
    assert tuned.data.sides == model.sides and tuned.conditioners[0].dropout == 0.1
    small = dataclasses.replace(tuned, loop=dataclasses.replace(LOOP, log_every=1))
    before, state = (
        load(trained_text2img).params,
        tiny.fit(small, tmp_path / "run", init=places.init),
    )
    assert state.params.keys() == before.keys()
    # Adam's first step is the learning rate for each parameter: its own for the text encoder's.
    moved = {
        path: float(np.abs(leaf - tree.flatten(before)[path]).max())
        for path, leaf in tree.flatten(jax.device_get(state.params)).items()
    }
    for rate, start in ((1e-5, "unet/"), (1e-6, "conditioners/text_encoder/")):
        most = max(value for path, value in moved.items() if path.startswith(start))
        assert 0.9 * rate < most < 1.3 * rate, start
    # It goes on by itself, whatever became of the model that it began with.
    again, _ = parse([word for word in arguments if not word.startswith("--init")])
    assert again == tuned
    with pytest.raises(cfg.ConfigError, match="--init=MODEL is missing"):
        parse(["--config=finetune_text2img", f"--workdir={tmp_path / 'other'}"])


@pytest.mark.parametrize("name", ["faces", "class"])
def test_models_whose_conditioners_have_no_parameters(name, pictures, tmp_path):
    model = small.MODELS[name]
    if name == "class":  # ten digits, as the folder of pictures has
        unet = dataclasses.replace(model.unet, class_count=11)
        model = dataclasses.replace(model, unet=unet, conditioners=(cfg.ClassConditioner(10),))
    write_native(small.imported_model.make(model, small.numbers(model)), tmp_path / "model")
    for train in ("all", "unet"):
        run = cfg.DiffusionRun(
            tiny.data(pictures, validation=0.0), model.unet, model.conditioners, model.diffusion,
            loop=LOOP, train=(train,),
        )  # fmt: skip
        stage = diffusion_stage(run, tmp_path / train, tiny.mesh(), None, str(tmp_path / "model"))
        state = jax.eval_shape(stage.init, stage.initial)
        tiny.same_bits(stage.initial["unet"], load(tmp_path / "model").params["unet"])
        batch = next(make_loader(stage.train, run.data, seed=0, train=True, inputs=stage.inputs))
        after, _ = jax.eval_shape(stage.step, state, stage.frozen, jax.tree.map(np.asarray, batch))
        assert jax.tree.structure(after) == jax.tree.structure(state)


def test_what_is_missing_is_said_before_anything_is_written(
    run, pictures, trained_text2img, trained_autoencoder, tmp_path
):
    first, whole = str(trained_autoencoder), str(trained_text2img)
    clip = dataclasses.replace(run.conditioners[0], tokenizer="clip")
    plain = dataclasses.replace(tiny.UNET, attention_kind="plain")
    other = dataclasses.replace(tiny.UNET, num_heads=(4,))
    unconditional = dataclasses.replace(run, unet=plain, conditioners=())
    for changed, models, complaint in (
        (
            unet_alone(run),
            (first,),
            "train is 'unet', so .* are not trained.* with --init=MODEL, or a text",
        ),
        (
            dataclasses.replace(run, train=("cross_attention",)),
            (first,),
            "train is 'cross_attention', so",
        ),
        (
            dataclasses.replace(unconditional, train=("cross_attention",)),
            (first,),
            "the model has no such parameters",
        ),
        (dataclasses.replace(run, conditioners=(clip,)), (first,), "'clip', whose files come with"),
        (dataclasses.replace(run, unet=other), (None, whole), "num_heads.0 is 2 there, 4 here"),
        (unconditional, (first, None, whole), "this config has no text encoder"),
    ):
        workdir = tmp_path / "run"
        with pytest.raises(cfg.ConfigError, match=complaint):
            diffusion_stage(changed, workdir, tiny.mesh(), *models)
        assert not workdir.exists()
