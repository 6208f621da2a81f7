"""Drawing with adapters: named for the model, or by prompts; the model stays what it was."""

from dataclasses import replace

import clip_files
import convert_models as small
import numpy as np
import pytest
from small_adapters import Maker

import ldm_jax
from ldm_jax import config as cfg
from ldm_jax.adapters.adapter import Adapter
from ldm_jax.convert import imported_model
from ldm_jax.convert.__main__ import Arguments, run
from ldm_jax.convert.adapters.adapter_writer import write_adapter
from ldm_jax.convert.adapters.module_names import ModuleNames
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.native import write_native
from ldm_jax.generation.adapter_shelf import Worn
from ldm_jax.generation.pipeline import Pipeline

SAMPLING = cfg.Sampling(steps=2, seed=1, guidance_scale=2.0, batch_size=2)
CAT = "a red cat"
CONFIG = replace(
    small.MODELS["sd1"],
    unet=replace(
        small.UNET, block_out_channels=(32,), attention=(True,), num_heads=(4,)
    ),
    conditioners=(cfg.TextConditioner(replace(small.CLIP, vocab_size=600), tokenizer="clip"),),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and a folder of two adapters for it, of which one has another name inside."""
    folder = tmp_path_factory.mktemp("adapters")
    tokenizer = clip_files.write_clip(folder / "tokenizer")
    numbers = small.numbers(CONFIG)
    numbers = {n: _quiet(part) for n, part in numbers.items()}
    write_native(imported_model.make(CONFIG, numbers, tokenizer=tokenizer), folder / "model")
    params = imported_model.make(CONFIG, numbers).params
    names = ModuleNames.of(CONFIG, params)
    (folder / "loras" / "deep").mkdir(parents=True)
    text = ("text_model.encoder.layers.1.mlp.fc1",)
    unet = ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v", "conv_out", "conv_in")
    for seed, name in enumerate(("loras/one", "loras/deep/two")):
        make = Maker(seed)
        parts = {
            component: {
                names.places[d].path: (make.make("lora", names.places[d].shape),) for d in dotted
            }
            for component, dotted in (("unet", unet), ("text_encoder", text))
        }
        write_adapter(Adapter(parts, f"called {seed}"), folder / f"{name}.safetensors", "kohya")
    return folder


def _quiet(tree):
    import jax

    return jax.tree.map(lambda a: a * np.float32(0.2 if a.ndim > 1 else 1), tree)


@pytest.fixture(scope="module")
def pipeline(folder):
    return Pipeline(folder / "model", lora_dir=folder / "loras")


def draw(pipeline, *prompts, **how):
    return pipeline.generate(prompts, sampling=SAMPLING, **how)


def test_adapters_in_prompts(folder, pipeline):
    """Each picture has its own; those of a choice of the model are the same, bit for bit."""
    base = draw(pipeline, CAT)[0]
    prompts = [f"{CAT}<lora:one:0.5>", CAT, f"<lora:called 1:-1:0.25>{CAT}", f"{CAT}<lora:one:0.5>"]
    drawn = pipeline.generate(prompts, sampling=replace(SAMPLING, batch_size=1), num=1)
    np.testing.assert_array_equal(drawn[1], pipeline.generate(
        [CAT], first_prompt=1, sampling=replace(SAMPLING, batch_size=1))[0])  # fmt: skip
    assert len({image.tobytes() for image in drawn}) == 4  # noise of their own
    np.testing.assert_array_equal(draw(pipeline, CAT)[0], base)
    files = [f"{folder}/loras/one.safetensors:0.5", f"{folder}/loras/deep/two.safetensors:-1:0.25"]
    merged = Pipeline(folder / "model", lora=(files[0],))
    expected = draw(merged, CAT)
    np.testing.assert_array_equal(draw(pipeline, f"{CAT}<lora:one:0.5>"), expected)
    assert np.abs(expected[0].astype(int) - base).max() > 3
    both = draw(pipeline, f"{CAT}<lora:one:0.5><lora:two:-1:0.25>")
    chosen = Pipeline(folder / "model", lora=tuple(files), lora_dir=folder / "loras")
    np.testing.assert_array_equal(both, draw(chosen, CAT))
    np.testing.assert_array_equal(draw(pipeline, CAT)[0], base)


def test_begun_drawings_keep_their_adapters(pipeline):
    plan = pipeline.plan(
        [f"{CAT}<lora:one>"], pipeline.resolve_sampling(SAMPLING), num=1
    )  # fmt: skip
    expected = [drawn.images for drawn in pipeline.run(plan)]
    events = pipeline.watch(plan, seconds=0.0)
    next(events)
    draw(pipeline, CAT)
    found = [event.images for event in events if hasattr(event, "images")]
    np.testing.assert_array_equal(found, expected)


def test_merged_models_draw_the_same(folder, tmp_path):
    one = f"{folder}/loras/one.safetensors:0.5"
    text = run(Arguments(folder / "model", tmp_path / "merged", lora=(one,)))
    assert "wrote" in text
    expected = draw(Pipeline(folder / "model", lora=(one,)), CAT)
    np.testing.assert_array_equal(draw(Pipeline(tmp_path / "merged"), CAT), expected)


def test_from_python(folder, pipeline):
    model = ldm_jax.open(folder / "model", lora=folder / "loras/one.safetensors")
    (sample,) = model.draw(CAT, seed=1, steps=2, guidance_scale=2.0, batch_size=2)
    np.testing.assert_array_equal(sample.array, draw(pipeline, f"{CAT}<lora:one>")[0])
    assert sample.request.model.lora == (f"{folder}/loras/one.safetensors:1.0",)
    with pytest.raises(cfg.ConfigError, match="lora is a choice of the model; give it to"):
        model.draw(CAT, lora=["a"])
    with pytest.raises(cfg.ConfigError, match="<lora:one> in a prompt needs lora_dir"):
        model.draw(f"{CAT}<lora:one>")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("<lora:on>", "<lora:on>: there is no such adapter in .*; perhaps you meant 'one'"),
        ("<lora:>", "<lora:> names no adapter"),
        ("<lora:one:a>", "<lora:one:a>: 'a' is no strength"),
        ("<lora:one:1:2:3>", "has 3 strengths"),
        ("<lora:one:dyn=3>", "'dyn' is not read here"),
        ("<lora:one:nan>", "the strength nan is not within"),
        ("<hypernet:one:1>", "<hypernet:one> in a prompt needs hypernet"),
    ],
)
def test_refused_tags(pipeline, prompt, message):
    with pytest.raises(ValueError, match=message):
        draw(pipeline, prompt)


def test_other_refusals(folder, pipeline):
    with pytest.raises(ValueError, match="negative_prompt has <lora:one> in it"):
        draw(pipeline, CAT, negative="<lora:one>")
    with pytest.raises(cfg.ConfigError, match="lora_dir is .*, which is no folder"):
        Pipeline(folder / "model", lora_dir=folder / "nothing")
    with pytest.raises(ValueError, match="does not exist"):
        Pipeline(folder / "model", lora=(str(folder / "nothing.safetensors"),))
    model = folder / "model" / "weights.safetensors"
    with pytest.raises(ConvertError, match="cannot be placed"):
        Pipeline(folder / "model", lora=(str(model),))
    literal = Pipeline(folder / "model", literal_prompts=True, lora_dir=folder / "loras")
    texts, chosen = literal._shelf.cut([f"{CAT}<lora:one>"], None)
    assert texts == [f"{CAT}<lora:one>"] and chosen == [Worn()]
