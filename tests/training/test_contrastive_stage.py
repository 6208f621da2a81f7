"""CLIP learns which captions belong to which images, and serves what reads texts."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.convert.clip.__main__ import ClipArguments
from ldm_jax.convert.clip.__main__ import run as convert
from ldm_jax.convert.clip.clip_folders import read_clip
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.loading import load
from ldm_jax.core import tree
from ldm_jax.evaluation.features.clip import read_clip_embedder
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.losses.contrastive import softmax_loss
from ldm_jax.models.clip_model import CLIP as ClipModel
from ldm_jax.models.clip_model import similarities
from ldm_jax.training.contrastive_stage import contrastive_stage
from ldm_jax.training.contrastive_step import bounded, compare, make_contrastive_scores

STEPS = 8
CLIP = cfg.CLIP(
    cfg.CLIPText(
        vocab_size=64, max_length=16, width=16, layers=1, num_heads=2, intermediate=32
    ),
    cfg.CLIPVision(image_size=16, patch_size=4, width=16, layers=1, num_heads=2, intermediate=32),
    embedding=16, end_token=0,
)  # fmt: skip
BIASED = dataclasses.replace(CLIP, logit_bias=True)


def run_of(pictures, **changes):
    quiet = dataclasses.replace(
        tiny.LOOP, steps=STEPS, checkpoint_every=STEPS, validate_every=STEPS, sample_every=0
    )
    optim = cfg.Optim(learning_rate=1e-2, ema_decay=0.9)
    run = cfg.ContrastiveRun(tiny.data(pictures), CLIP, optim=optim, loop=quiet)
    return dataclasses.replace(run, **changes)


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("clip") / "run"
    tiny.fit(run_of(pictures), workdir)
    return workdir


def curve(workdir):
    return [list(tiny.losses(workdir, name).values()) for name in ("loss", "gradient_norm")]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_eight_devices_train_as_one_does(loss, pictures, trained, tmp_path):
    """Each image meets the captions of all devices: with those of its own device alone, two of
    sixteen, the loss would be another from the first step on. Sums in another order make the
    difference, an error of some 1e-7 a step, which Adam enlarges."""
    run = run_of(pictures, loss=loss, clip=CLIP if loss == "softmax" else BIASED)
    expected = curve(trained)
    if loss == "sigmoid":
        tiny.fit(run, tmp_path / "one")
        expected = curve(tmp_path / "one")
    tiny.fit(run, tmp_path / "eight", alone=False)
    found = curve(tmp_path / "eight")
    np.testing.assert_allclose(found, expected, rtol=5e-4)
    assert found[0][-1] < found[0][0]


def test_what_is_measured(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["scale"] == pytest.approx(1 / 0.07, rel=1e-5)
    for name in ("image_to_text", "text_to_image"):
        (share,) = tiny.losses(trained, f"validation_{name}").values()
        assert 0 <= share <= 1


def test_the_scale_stays_below_a_hundred():
    found = bounded({"logit_scale": jnp.float32(9.0), "other": jnp.ones(2)})
    np.testing.assert_allclose(found["logit_scale"], math.log(100))
    assert bounded({"logit_scale": jnp.float32(3.0)})["logit_scale"] == 3.0


@pytest.mark.parametrize("how", ["shared", "apart"])
def test_equal_captions(how, pictures):
    """An image may be asked for either of two captions that are equal; retrieval counts both."""
    run, model = run_of(pictures, equal_captions=how), ClipModel(CLIP)
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    tokens = jnp.zeros((3, 16), jnp.int32).at[:, 0].set(jnp.array([5, 6, 5]))
    batch = {"image": jnp.asarray(images), "inputs": {"caption": tokens}}
    init = jax.jit(model.init)
    params = init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), tokens)["params"]
    compared, matching = compare(model, run, params, batch)
    same = [[1, 0, 1], [0, 1, 0], [1, 0, 1]] if how == "shared" else np.eye(3)
    np.testing.assert_array_equal(matching, same)
    np.testing.assert_allclose(compared.texts[0], compared.texts[2])
    scores = make_contrastive_scores(model, run)(params, {}, batch)
    np.testing.assert_allclose(
        scores["loss"], softmax_loss(similarities(compared), matching), rtol=1e-6
    )


def test_what_was_trained_embeds_converts_and_goes_on(trained, pictures, tmp_path):
    found = read_clip(trained)
    assert found.config == CLIP and found.kind == "word"
    told = convert(ClipArguments(trained, tmp_path / "clip"))
    assert found.weights_sha256 in told and "16 pixels, patches of 4" in told
    written = read_clip(tmp_path / "clip")
    assert (written.config, written.kind) == (CLIP, "word")
    assert written.weights_sha256 == found.weights_sha256
    texts, images = ["a red three alone", "a"], np.zeros((3, 16, 16, 3), np.uint8)
    here, there = (read_clip_embedder(path, 4) for path in (trained, tmp_path / "clip"))
    np.testing.assert_array_equal(here.texts(texts), there.texts(texts))
    np.testing.assert_array_equal(here.images(images), there.images(images))
    stage = contrastive_stage(run_of(pictures), tmp_path / "next", str(tmp_path / "clip"))
    begun = tree.flatten(stage.initial)
    for path, value in tree.flatten(found.params).items():
        np.testing.assert_array_equal(begun[path], value)
    other = dataclasses.replace(CLIP, embedding=8)
    with pytest.raises(cfg.ConfigError, match="another CLIP .* clip.embedding is 16 there, 8 here"):
        contrastive_stage(run_of(pictures, clip=other), tmp_path / "third", str(trained))


def test_it_is_no_model_to_draw_with(trained):
    with pytest.raises(ConvertError, match="is a CLIP, which compares pictures with texts"):
        load(trained)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"optim": cfg.Optim(accumulation=2)}, "accumulation is 2; it must be 1"),
        ({"loss": "sigmoid"}, "clip.logit_bias is False; it must be True for loss 'sigmoid'"),
        ({"clip": BIASED}, "clip.logit_bias is True; it must be False for loss 'softmax'"),
        ({"clip": dataclasses.replace(CLIP, end_token=None)}, "end_token is None; it must be 0"),
        ({"loop": cfg.Loop(prompts=("a",))}, "loop.prompts"),
    ],
)
def test_what_cannot_be_is_refused(changes, complaint, pictures):
    with pytest.raises(cfg.ConfigError, match=complaint):
        run_of(pictures, **changes)


def test_images_of_another_size_are_refused(pictures):
    data = dataclasses.replace(tiny.data(pictures), image_size=32)
    with pytest.raises(cfg.ConfigError, match="data.image_size is 32; it must be 16"):
        run_of(pictures, data=data)


def test_what_it_conditions_draws_and_its_captions_can_be_mapped(
    trained, pictures, trained_autoencoder, tmp_path
):
    """Captions are padded words here, without CLIP's start and end tokens and thus no chunks."""
    conditioners = (cfg.TextConditioner(CLIP.text, "word"), tiny.CAPTION_MAP)
    quiet = dataclasses.replace(
        tiny.LOOP, steps=2, checkpoint_every=2, validate_every=2, sample_every=0
    )
    run = tiny.diffusion_run(
        pictures, conditioners=conditioners, loop=quiet,
        train=("unet", "conditioners/caption_map/.*"),
    )  # fmt: skip
    tiny.fit(run, tmp_path / "run", first_stage=trained_autoencoder, text_encoder=trained)
    sampling = cfg.Sampling(steps=2, guidance_scale=2.0)
    pipeline = Pipeline(tmp_path / "run")
    images = pipeline.generate(["a red three alone"], sampling=sampling)
    assert images.shape == (1, 16, 16, 3)
    kept = pipeline.params["conditioners"]["text_encoder"]["text_model"]
    tiny.same_bits(jax.device_get(kept), read_clip(trained).params["text_model"])
