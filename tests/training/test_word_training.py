"""Textual inversion: runs that train vectors of new words beside a model."""

import dataclasses

import clip_files
import convert_models as small
import jax
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model, load
from ldm_jax.convert.embeddings.embedding_files import read_embeddings
from ldm_jax.convert.embeddings.embedding_writer import write_embeddings
from ldm_jax.convert.imported_model import ConvertError, materialize
from ldm_jax.convert.native import write_native
from ldm_jax.core import tree
from ldm_jax.data.random_stream import RandomStream
from ldm_jax.data.taught_words import TEMPLATES, TaughtWords, initial_tokens
from ldm_jax.data.tokenizer import read_tokenizer, train_tokenizer
from ldm_jax.formats.safetensors_file import write_safetensors
from ldm_jax.generation.pipeline import Pipeline

LOOP = dataclasses.replace(tiny.LOOP, steps=2, checkpoint_every=1, sample_every=0)
RATE = 1e-2
CONFIG = dataclasses.replace(
    small.MODELS["sd1"],
    unet=dataclasses.replace(
        small.UNET, block_out_channels=(32,), attention=(True,), num_heads=(4,)
    ),
    conditioners=(
        cfg.TextConditioner(
            dataclasses.replace(small.CLIP, vocab_size=600, max_length=24), tokenizer="clip"
        ),
    ),
)  # fmt: skip
(TEXT,) = CONFIG.conditioners


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    tokenizer = clip_files.write_clip(folder / "tokenizer")
    # Of the size that layers have at first: larger ones enlarge roundings, layer by layer.
    numbers = jax.tree.map(
        lambda a: a * np.float32(0.2 if a.ndim > 1 else 1), small.numbers(CONFIG)
    )
    write_native(imported_model.make(CONFIG, numbers, tokenizer=tokenizer), folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def tokenizer(model):
    return read_tokenizer(model / "tokenizer", TEXT)


def run_on(pictures, **adapter):
    return cfg.DiffusionRun(
        tiny.data(pictures, validation=0.0), CONFIG.unet, CONFIG.conditioners, CONFIG.diffusion,
        cfg.Optim(learning_rate=RATE, ema_decay=None), LOOP, train=("adapter",),
        adapter=cfg.TextualInversion(("zork", "blub"), 2, "red cat bird", **adapter),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(model, pictures, tmp_path_factory):
    """The work directory and the state of the whole run, on one device."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    return workdir, tiny.fit(run_on(pictures), workdir, init=model)


def test_eight_devices_train_as_one_does(model, pictures, trained, tmp_path):
    eight = tiny.fit(run_on(pictures), tmp_path / "run", init=model, alone=False)
    tiny.trained_alike((tmp_path / "run", eight), trained, RATE)


def test_vectors_alone_train_and_a_run_goes_on(model, tokenizer, pictures, trained, tmp_path):
    run, (workdir, state) = run_on(pictures), trained
    assert {path.rsplit("/", 1)[-1] for path in tree.flatten(state.params)} == {"zork", "blub"}
    whole = load(workdir)
    tiny.same_bits(materialize(whole.params), materialize(load(model).params))
    assert any("--embeddings" in note for note in whole.notes)

    found = {one.name: one for one in read_embeddings(workdir)}
    tokens = initial_tokens(run.adapter, tokenizer)
    path = "text_model/embeddings/token_embedding/embedding"
    table = tree.flatten(whole.params["conditioners"]["text_encoder"])[path]
    for word in ("zork", "blub"):
        moved = np.abs(found[word].vectors - table[[*tokens[:2]]])
        assert found[word].step == 2 and 1e-3 < moved.max() < 0.05

    short = dataclasses.replace(run, loop=dataclasses.replace(LOOP, steps=1))
    tiny.fit(short, tmp_path / "parts", init=model)
    resumed = tiny.fit(run, tmp_path / "parts")
    tiny.same_bits(jax.device_get(resumed.params), jax.device_get(state.params))

    write_embeddings([*found.values()], tmp_path / "words.safetensors", "diffusers")
    for again in read_embeddings(tmp_path / "words.safetensors"):
        tiny.same_bits(again.vectors, found[again.name].vectors)
    with pytest.raises(ConvertError, match="trains no new words"):
        plain = dataclasses.replace(run, adapter=None, train=("unet",))
        tiny.fit(dataclasses.replace(plain, loop=short.loop), tmp_path / "plain", init=model)
        read_embeddings(tmp_path / "plain")


def test_words_stand_for_the_rows_behind_the_table(tokenizer):
    config = cfg.TextualInversion(("zork", "blub"), 2, captions="own")
    words = TaughtWords(config, tokenizer, TEXT)
    first = TEXT.encoder.vocab_size
    tokens = words.tokens("zork blub")
    assert tokens.shape == (TEXT.encoder.max_length,)
    there = [number for number in tokens.tolist() if number >= first]
    assert there == [first + 2, first + 3, first, first + 1]  # rows are in the names' order
    plain = tokenizer.encode(["a cat"], TEXT.encoder.max_length)[0]
    np.testing.assert_array_equal(words.tokens("a cat"), plain)
    assert words.caption("as it is", RandomStream(0, 0, "template")) == "as it is"
    words.check_captions(["a cat", "a zork"])
    with pytest.raises(cfg.ConfigError, match="no caption has zork or blub in it"):
        words.check_captions(["a cat", ""])


@pytest.mark.parametrize("captions", ["object", "style"])
def test_templates_are_drawn_for_each_example(tokenizer, captions):
    words = TaughtWords(cfg.TextualInversion(captions=captions), tokenizer, TEXT)
    drawn = [words.caption("", RandomStream(0, i, "template")) for i in range(400)]
    assert {*drawn} == {template.format("sks") for template in TEMPLATES[captions]}
    assert drawn[7] == words.caption("", RandomStream(0, 7, "template"))


def test_what_cannot_be_taught_is_refused(tokenizer, pictures):
    for wrong in ((), ("",), ("a", "a"), ("a/b",), (" a",)):
        with pytest.raises(cfg.ConfigError, match="adapter.words is"):
            cfg.TextualInversion(wrong)
    with pytest.raises(cfg.ConfigError, match="init_text is '', which has no tokens"):
        initial_tokens(cfg.TextualInversion(init_text=""), tokenizer)
    with pytest.raises(cfg.ConfigError, match="another one for a model without a text encoder"):
        tiny.diffusion_run(
            pictures, adapter=cfg.TextualInversion(), train=("adapter",), conditioners=()
        )


def test_words_of_a_text_encoder_that_was_trained_with_its_model(
    pictures, trained_text2img, tmp_path
):
    """Whose tokenizer knows words as wholes: a new one, and one that it has, are read in captions
    of the folder and in prompts."""
    run = tiny.diffusion_run(
        pictures, adapter=cfg.TextualInversion(("zork", "red"), 2, "blue", captions="own"),
        train=("adapter",), optim=cfg.Optim(learning_rate=1e-2, ema_decay=None), loop=LOOP,
    )  # fmt: skip
    state = tiny.fit(run, tmp_path / "words", init=trained_text2img)
    assert {path.rsplit("/", 1)[-1] for path in tree.flatten(state.params)} == {"zork", "red"}
    found = {one.name: one.vectors for one in read_embeddings(tmp_path / "words")}
    # No caption has the first.
    assert (found["zork"][0] == found["zork"][1]).all()
    assert np.abs(found["red"] - found["zork"]).max() > 1e-3

    plain = Pipeline(trained_text2img)
    taught = Pipeline(trained_text2img, embeddings=(str(tmp_path / "words"),))

    def draw(pipeline, prompt):
        return pipeline.generate([prompt], sampling=cfg.Sampling(steps=2, seed=1))[0]

    same = "a green three"
    np.testing.assert_array_equal(draw(taught, same), draw(plain, same))
    np.testing.assert_array_equal(draw(taught, "a Zork three"), draw(plain, "a blue blue three"))
    assert (draw(taught, "a red three") != draw(plain, "a red three")).any()
    with pytest.raises(ValueError, match="does not know 'zork'"):
        draw(plain, "a zork three")
    with pytest.raises(ValueError, match="does not know 'blub' .* known are .*zork"):
        draw(taught, "a blub zork")


def test_templates_and_words_must_be_known_to_a_tokenizer_of_words():
    known = train_tokenizer(["a red three", "a blue one"], 64)
    text = cfg.TextConditioner(cfg.TextTransformer(vocab_size=64, max_length=4))
    with pytest.raises(cfg.ConfigError, match="does not know: 'photo', 'of', .*captions=own"):
        TaughtWords(cfg.TextualInversion(), known, text).check_captions([])
    with pytest.raises(cfg.ConfigError, match="adapter.words has 'red zork', which is no single"):
        TaughtWords(cfg.TextualInversion(("red zork",)), known, text)
    words = TaughtWords(cfg.TextualInversion(("red three",), captions="own"), known, text)
    assert words.tokens("a red three").tolist()[1:] == [64, 0, 0]


def test_words_of_bert(tmp_path):
    """With its own names, and its frame around captions."""
    encoder = cfg.BERTText(vocab_size=20, max_length=8, width=64, layers=1, num_heads=2)
    model = dataclasses.replace(
        CONFIG, conditioners=(cfg.TextConditioner(encoder, tokenizer="bert"),)
    )
    tokenizer = clip_files.write_bert(tmp_path / "bert")
    made = imported_model.make(model, small.numbers(model), tokenizer=tokenizer)
    write_native(made, tmp_path / "model")
    table = tree.flatten(small.numbers(model)["text_encoder"])["model/embed_tokens/embedding"]
    write_safetensors(tmp_path / "cats.safetensors", {"emb_params": table[7:8]})
    plain, taught = (
        Pipeline(tmp_path / "model"),
        Pipeline(tmp_path / "model", embeddings=(str(tmp_path / "cats.safetensors"),)),
    )
    sampling = cfg.Sampling(steps=2, seed=1)
    np.testing.assert_array_equal(
        taught.generate(["a red cats"], sampling=sampling),
        plain.generate(["a red cat"], sampling=sampling),
    )
