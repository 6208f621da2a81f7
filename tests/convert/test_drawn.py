"""Each kind of model is drawn from in every form that it can be written in."""

from dataclasses import replace

import clip_files
import convert_models as small
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model
from ldm_jax.convert.__main__ import Arguments, run
from ldm_jax.convert.native import write_native
from ldm_jax.data.tokenizer import train_tokenizer
from ldm_jax.generation.conditions import Picture
from ldm_jax.generation.pipeline import Pipeline

SAMPLING = cfg.Sampling(steps=2, seed=1, guidance_scale=2.0)
OWN = cfg.TextTransformer(
    vocab_size=20, max_length=8, width=64, layers=1, num_heads=2, pooled_dim=None
)
KINDS = {
    **{name: model for name, model in small.MODELS.items() if name != "sd2"},
    "words": replace(small.MODELS["sd1"], conditioners=(cfg.TextConditioner(OWN),)),
    "pixels": replace(
        small.MODELS["faces"], autoencoder=cfg.Pixels(),
        unet=replace(small.PLAIN, in_channels=3, out_channels=3),
    ),
}  # fmt: skip
KINDS["faces"] = replace(
    KINDS["faces"], unet=replace(KINDS["faces"].unet, in_channels=4, out_channels=4)
)
FORMS = {
    "words": [], "pixels": [], "class": ["compvis"], "class token": ["compvis"],
}  # fmt: skip
"""What else but native each kind can be written in; both, where nothing is said."""
CONDITIONS = {"caption": "a red cat", "label": 2}


def with_words(config):
    """Room for the words of the tokenizers that tests have."""
    text = cfg.find(config.conditioners, cfg.TextConditioner)
    if text is None:
        return config
    text = replace(text, encoder=replace(text.encoder, vocab_size=600))
    return replace(config, conditioners=(text, *config.conditioners[1:]))


def tokenizer_of(config, folder):
    match getattr(cfg.find(config.conditioners, cfg.TextConditioner), "tokenizer", None):
        case "clip":
            return clip_files.write_clip(folder)
        case "bert":
            return clip_files.write_bert(folder)
        case "word":
            folder.mkdir()
            train_tokenizer(["a red cat"], 20).save(folder / "tokenizer.json")
            return folder / "tokenizer.json"  # as a work directory has it
    return None


def draw(pipeline, config):
    condition = next((CONDITIONS[name] for name in config.inputs if name in CONDITIONS), None)
    picture = Picture()
    if "mask" in config.inputs:
        picture = Picture(np.full((16, 16, 3), 128, np.uint8), np.ones((16, 16), np.float32))
    sampling = replace(SAMPLING, guidance_scale=1.0) if condition is None else SAMPLING
    return pipeline.generate([condition], sampling=sampling, picture=picture)


def same_model(found, expected):
    """What pictures are a function of."""
    assert found.config == expected.config
    tiny.same_bits((found.params, found.frozen), (expected.params, expected.frozen))
    assert (found.tokenizer is None) == (expected.tokenizer is None)
    if found.tokenizer is not None:
        pair = [model.tokenizer.encode(["a red cat"], 8) for model in (found, expected)]
        np.testing.assert_array_equal(*pair)


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_of_a_model_is_drawn_from(tmp_path, kind):
    config = with_words(KINDS[kind])
    tokenizer = tokenizer_of(config, tmp_path / "source")
    imported = imported_model.make(config, small.numbers(config), tokenizer=tokenizer)
    write_native(imported, tmp_path / "native")
    native = Pipeline(tmp_path / "native")
    expected = draw(native, config)
    assert expected.shape == (1, 16, 16, 3) and expected.std() > 0
    for form in FORMS.get(kind, ["diffusers", "compvis"]):
        target = tmp_path / ("model.safetensors" if form == "compvis" else form)
        run(Arguments(tmp_path / "native", target, form))
        choices = {"tokenizer": tokenizer} if form == "compvis" and tokenizer else {}
        found = Pipeline(target, **choices)
        same_model(found, native)
        if kind == "faces":  # one is enough: equal models draw equal pictures
            np.testing.assert_array_equal(draw(found, config), expected)
