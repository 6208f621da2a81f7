"""Which examples and wishes are drawn as training goes on."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.cli.train import next_step
from ldm_jax.data.inputs import InputMaker
from ldm_jax.data.sources import open_source
from ldm_jax.data.tokenizer import train_tokenizer
from ldm_jax.training.shown import SHOWN_EXAMPLES, shown_conditions

CLASSES = replace(tiny.UNET, context_dim=None, pooled_dim=None, class_count=11)


def wishing(run, **wishes):
    return replace(run, loop=replace(run.loop, **wishes))


def shown(run):
    train, validation = (open_source(run.data, split) for split in ("train", "validation"))
    tokenizer = train_tokenizer(train.captions(), 64)
    control = run.adapter if isinstance(run.adapter, cfg.ControlNet) else None
    inputs = InputMaker(run.conditioners, tokenizer, run.data.sides, 2, control)
    return shown_conditions(run, lambda *given: None, inputs, tokenizer, train, validation)


def test_training_and_held_out_captions_and_prompts_are_apart(pictures):
    run = wishing(tiny.diffusion_run(pictures), prompts=("a red three alone", ""))
    sets = {one.name: one for one in shown(run)}
    assert list(sets) == ["training", "held_out", "prompts"]
    train = list(open_source(run.data, "train").captions())
    assert len(sets["training"].labels) == SHOWN_EXAMPLES
    assert set(sets["training"].labels) <= set(train)
    # They are of the whole folder, not of its first class alone.
    assert sets["training"].labels[-1] in train[-len(train) // SHOWN_EXAMPLES - 1 :]
    held_out = list(open_source(run.data, "validation").captions())
    assert list(sets["held_out"].labels) == held_out[:SHOWN_EXAMPLES]
    assert sets["prompts"].labels == ("a red three alone", "")
    tokens = sets["prompts"].batch["inputs"]["caption"]
    assert tokens.shape == (2, 16) and tokens[0].any() and not tokens[1].any()
    assert [len(one.batch["index"]) for one in sets.values()] == [16, len(held_out), 2]
    assert shown(wishing(run, sample_every=0)) == ()


def test_classes_are_named_or_numbered(pictures):
    conditioners = (cfg.ClassConditioner(10),)
    run = tiny.diffusion_run(pictures, unet=CLASSES, conditioners=conditioners)
    names = open_source(run.data, "train").class_names
    *_, last = shown(wishing(run, classes=("three", "0")))
    assert last.name == "classes" and last.labels == ("three", "0")
    np.testing.assert_array_equal(last.batch["inputs"]["label"], [names.index("three"), 0])
    assert set(shown(run)[0].labels) <= set(names)
    with pytest.raises(
        cfg.ConfigError, match=r"loop.classes has 'cow', which is not a class; there"
    ):
        shown(wishing(run, classes=("cow",)))
    assert next_step(run, tiny.ROOT).endswith("--classes=0 --guidance=3")


def test_wishes_that_cannot_be_are_refused(pictures):
    run = tiny.diffusion_run(pictures)
    with pytest.raises(cfg.ConfigError, match=r"'a red cat', but the tokenizer .* know 'cat'"):
        shown(wishing(run, prompts=("a red three", "a red cat")))
    with pytest.raises(cfg.ConfigError, match="loop.classes is .*a run without a ClassCond"):
        wishing(run, classes=("three",))
    with pytest.raises(cfg.ConfigError, match="loop.prompts is .*a run without a TextCond"):
        wishing(tiny.autoencoder_run(pictures), prompts=("a cat",))


def test_a_model_without_conditions_just_draws(pictures):
    unet = replace(tiny.UNET, context_dim=None, pooled_dim=None, attention_kind="plain")
    (one,) = shown(tiny.diffusion_run(pictures, unet=unet, conditioners=()))
    assert (one.name, one.labels) == ("samples", None)
    assert dict(one.batch["inputs"]) == {} and len(one.batch["index"]) == SHOWN_EXAMPLES


def test_hints_stand_before_drawings_and_images_after_them(pictures, annotations):
    data = tiny.annotated(tiny.data(pictures), annotations)
    run = tiny.diffusion_run(
        pictures, data=data, adapter=cfg.ControlNet("edit_images"), train=("adapter",)
    )
    batch = shown(run)[0].batch
    hints = batch["inputs"]["hint"]
    np.testing.assert_array_equal(batch["views"], hints[:, None])
    np.testing.assert_array_equal(batch["image"], 255 - hints)
    assert next_step(run, tiny.ROOT).endswith(f"--control={tiny.ROOT} --hint=FILE")
    edges = replace(run, adapter=cfg.ControlNet())
    assert next_step(edges, tiny.ROOT).endswith("--hint=canny:FILE")
