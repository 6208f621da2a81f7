"""Stage two on codes: from images and from codes, what weight decay reaches, and the likelihood."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_codes

from ldm_jax import code_model
from ldm_jax import config as cfg
from ldm_jax.cli.encode_task import Arguments
from ldm_jax.cli.encode_task import run as encode
from ldm_jax.convert.code_models import load_code_model
from ldm_jax.data.loader import make_loader
from ldm_jax.training.code_stage import code_stage
from ldm_jax.training.code_step import decays, some_replaced
from ldm_jax.training.optim import make_optimizer

STEPS = 4
LOOP = dataclasses.replace(
    tiny.LOOP, steps=STEPS, checkpoint_every=STEPS, validate_every=STEPS, sample_every=STEPS
)
OPTIM = cfg.Optim(learning_rate=1e-2, beta2=0.95, weight_decay=0.01, ema_decay=None)


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory):
    return tiny_codes.write_first_stage(tmp_path_factory.mktemp("first") / "vq")


def run_of(pictures, **changes):
    """A run on the pictures and their classes."""
    classes = sum(path.is_dir() for path in pictures.iterdir())
    data = dataclasses.replace(tiny.data(pictures), batch_size=8)
    transformer = dataclasses.replace(
        tiny_codes.TRANSFORMER, layers=1, width=64, residual_dropout=0.1, embedding_dropout=0.1
    )
    return cfg.CodeTransformerRun(
        data, transformer, cfg.ClassPrefix(classes), pkeep=0.9, optim=OPTIM, loop=LOOP, **changes
    )


@pytest.mark.slow
def test_codes_on_eight_devices_train_as_their_images_on_one(pictures, first_stage, tmp_path):
    run = run_of(pictures)
    tiny.fit(run, tmp_path / "images", first_stage=first_stage)
    curve = tiny.losses(tmp_path / "images")
    assert curve[STEPS] < curve[1]
    found = tiny.losses(tmp_path / "images", "validation_bits_per_code")[STEPS]
    nats = tiny.losses(tmp_path / "images", "validation_loss")[STEPS]
    np.testing.assert_allclose(found, nats / math.log(2), rtol=1e-6)
    drawn = {path.name for path in (tmp_path / "images/samples").iterdir()}
    assert drawn == {f"step_{STEPS:07d}_{name}.png" for name in ("training", "held_out")}

    out = tmp_path / "codes"
    encode(Arguments(str(first_stage), out, "train", "codes", data=run.data, batch_size=8))
    data = dataclasses.replace(run.data, source=cfg.EncodedLatents(str(out)))
    encoded = dataclasses.replace(
        run, data=data, loop=dataclasses.replace(LOOP, sample_every=0),
        mesh=cfg.Mesh(data=2, fsdp=2, tensor=2),
    )  # fmt: skip
    tiny.fit(encoded, tmp_path / "run", first_stage=first_stage, alone=False)
    again = tiny.losses(tmp_path / "run")
    np.testing.assert_allclose(list(again.values()), list(curve.values()), rtol=1e-4)

    index = json.loads((out / "train/index.json").read_text())
    assert index["kind"] == "codes"
    wrong = dataclasses.replace(tiny.diffusion_run(pictures), data=data)
    with pytest.raises(cfg.ConfigError, match="has codes; a diffusion model needs the latents"):
        tiny.fit(dataclasses.replace(wrong, conditioners=()), tmp_path / "wrong",
                 first_stage=first_stage)  # fmt: skip


def test_class_maps_and_coordinates_come_before_the_codes(
    pictures, annotations, first_stage, tmp_path
):
    _, maps, _ = tiny_codes.write_first_stages(tmp_path)
    _, frozen = tiny_codes.params_of(tiny_codes.of_class_maps())
    data = tiny.annotated(dataclasses.replace(tiny.data(pictures), batch_size=8), annotations)
    condition = cfg.ClassMapPrefix(cfg.ClassMaps(11, ignore=None))
    run = dataclasses.replace(run_of(pictures), data=data, condition=condition)
    with pytest.raises(cfg.ConfigError, match="name one with --condition_stage=MODEL"):
        code_stage(run, tmp_path / "run", str(first_stage))
    with pytest.raises(
        cfg.ConfigError, match="has a first stage of 3 channels, where 11 are needed"
    ):
        code_stage(run, tmp_path / "run", str(first_stage), str(first_stage))
    tiny.fit(run, tmp_path / "run", first_stage=first_stage, condition_stage=maps)
    curve = tiny.losses(tmp_path / "run")
    assert curve[STEPS] < curve[1]
    model = load_code_model(tmp_path / "run")
    assert (
        model.config.condition_stage == tiny_codes.CLASS_MAPS
        and model.config.positions == 2 * 64 - 1
    )
    tiny.same_bits(model.frozen["condition_stage"], frozen["condition_stage"])

    coordinates = cfg.CoordinatePrefix(40)
    run = dataclasses.replace(run, condition=coordinates, loop=dataclasses.replace(
        LOOP, steps=1, sample_every=0, validate_every=1, checkpoint_every=1))  # fmt: skip
    with pytest.raises(cfg.ConfigError, match="condition is not made of codes; leave it out"):
        code_stage(run, tmp_path / "other", str(first_stage), str(maps))
    tiny.fit(run, tmp_path / "other", first_stage=first_stage)
    assert load_code_model(tmp_path / "other").config.transformer.vocab_size == 40


def test_depth_maps_are_encoded_from_their_least_to_their_largest_number(
    pictures, annotations, first_stage, tmp_path
):
    data = tiny.annotated(dataclasses.replace(tiny.data(pictures), batch_size=8), annotations)
    run = dataclasses.replace(run_of(pictures), condition=cfg.DepthPrefix())
    _, _, of_depth = tiny_codes.write_first_stages(tmp_path)
    with pytest.raises(cfg.ConfigError, match=r"has no depth maps.*data.source.depth_maps"):
        code_stage(run, tmp_path / "without", str(first_stage), str(of_depth))
    run = dataclasses.replace(run, data=data, loop=dataclasses.replace(LOOP, sample_every=0))
    stage = code_stage(run, tmp_path / "run", str(first_stage), str(of_depth))
    batch = next(make_loader(stage.train, data, seed=0, train=True, inputs=stage.inputs))
    depth = batch["inputs"]["depth"]
    assert depth.shape == (8, 16, 16) and depth.dtype == np.float32
    np.testing.assert_array_equal(depth.min((1, 2)), -1)
    np.testing.assert_array_equal(depth.max((1, 2)), 1)
    model = code_model.build(run.model(tiny_codes.AUTOENCODER, tiny_codes.DEPTH))
    inputs = {"depth": jnp.asarray(depth)}
    assert jax.eval_shape(lambda: model.prefix(stage.frozen, inputs, 8)).shape == (8, 64)


def test_a_first_stage_without_codes_is_refused(pictures, trained_autoencoder, tmp_path):
    with pytest.raises(cfg.ConfigError, match=r"bottleneck is KL.*one with codes"):
        code_stage(run_of(pictures), tmp_path, str(trained_autoencoder))
    with pytest.raises(cfg.ConfigError, match="needs a trained first stage"):
        code_stage(run_of(pictures), tmp_path, None)


def test_weight_decay_reaches_the_weights_of_linear_layers_alone():
    params, _ = tiny_codes.params_of(tiny_codes.config())
    optimizer = make_optimizer(dataclasses.replace(OPTIM, clip_norm=None), STEPS, decays)
    still = jax.tree.map(jnp.zeros_like, params)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(still, optimizer.init(params), params)
    moved = {
        jax.tree_util.keystr(path, simple=True, separator="/").split("/")[-1]
        for path, leaf in jax.tree_util.tree_leaves_with_path(updates)
        if np.any(leaf)
    }
    assert moved == {"kernel"}


def test_replaced_codes_are_the_examples_own():
    codes = jnp.full((4, 1000), 5, jnp.int32)
    index = jnp.arange(4, dtype=jnp.uint32)
    found = some_replaced(codes, 0.8, 12, 0, index)
    np.testing.assert_array_equal(some_replaced(codes, 0.8, 12, 0, index[::-1])[::-1], found)
    # A random code may be the same one.
    np.testing.assert_allclose((found == 5).mean(), 0.8 + 0.2 / 12, atol=0.02)
    assert set(np.unique(found).tolist()) == set(range(12))
    assert some_replaced(codes, 1.0, 12, 0, index) is codes
