"""VQGAN's transformers of class maps, depth and coordinates: their files, read here, compute what
the original computes."""

import json

import conditional_codes as codes
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from PIL import Image

from ldm_jax import code_model
from ldm_jax import config as cfg
from ldm_jax.convert.code_models import load_code_model
from ldm_jax.data.coordinates import whole_coordinates
from ldm_jax.formats.safetensors_file import write_safetensors
from ldm_jax.generation.code_conditions import read_condition

FIRST = cfg.CodeSampling(top_k=1)


@pytest.fixture(scope="module")
def golden():
    with np.load(codes.GOLDEN) as stored:
        return dict(stored)


def mask(name, shape):
    """A buffer, as the original has it; all others are weights."""
    if name.endswith("attn.mask"):
        return np.tril(np.ones(shape, np.float32))
    return codes.weight(name, tuple(shape))


def opened(name, golden, folder):
    """The original's file, read with its settings."""
    tensors = {n: mask(n, shape) for n, shape in json.loads(str(golden[f"{name}/shapes"])).items()}
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "model.yaml").write_text(yaml.safe_dump({"model": {"params": codes.settings(name)}}))
    return load_code_model(folder / "model.safetensors", original_config=folder / "model.yaml")


def condition(name, config, sides, folder):
    """Of a file, as a user has it."""
    if name == "faceshq":
        return read_condition(config, height=sides[0], width=sides[1])
    path = folder / f"{sides[0]}.png"
    if name == "drin":
        Image.fromarray(codes.depth(sides)).save(path)
        return read_condition(config, depth=path)
    numbers = codes.class_map(name, sides)
    # The original adds 1 to what files of COCO-Stuff say, 255 becoming 0.
    numbers = numbers - 1 if name == "coco" else numbers
    Image.fromarray(numbers.astype(np.uint8)).save(path)
    return read_condition(config, class_map=path)


@pytest.mark.parametrize("name", codes.CHANNELS)
def test_codes_logits_and_windows_are_those_of_the_original(name, golden, tmp_path):
    model = opened(name, golden, tmp_path)
    bundle = code_model.build(model.config)
    params, frozen = jax.tree.map(jnp.asarray, (model.params, model.frozen))
    assert model.config.transformer.num_heads == codes.HEADS
    found = bundle.codes(frozen, jnp.asarray(codes.picture()[None]))
    np.testing.assert_array_equal(found.reshape(-1), golden[f"{name}/image"])

    def prefix(sides):
        given = condition(name, model.config, sides, tmp_path)
        assert given.drawn == given.shown == sides
        inputs = {n: jnp.asarray(value[None]) for n, value in given.inputs.items()}
        return bundle.prefix(frozen, inputs, 1)

    before, around = prefix((codes.SIDE, codes.SIDE)), prefix(codes.LARGE)
    np.testing.assert_array_equal(before[0], golden[f"{name}/condition"])
    np.testing.assert_array_equal(around[0], golden[f"{name}/large_condition"].reshape(-1))
    logits = bundle.logits(params, before, found.reshape(1, -1))
    np.testing.assert_allclose(logits[0], golden[f"{name}/logits"], atol=1e-4)
    large = golden[f"{name}/large"]
    drawn = jax.jit(bundle.draw, static_argnums=5)(
        params, around, jnp.uint32(0), jnp.zeros(1, jnp.uint32),
        code_model.choice_of(FIRST, model.config), large.shape,
    )  # fmt: skip
    np.testing.assert_array_equal(drawn[0], large)
    images = np.asarray(bundle.images(frozen, found)[0]).astype(int)
    expected = np.clip(np.round((golden[f"{name}/decoded"] + 1) * 127.5), 0, 255)
    assert np.abs(images - expected).max() <= 1  # where a half is rounded


def test_coordinates_are_those_of_the_original(golden):
    for height, width, factor, size in codes.SIZES:
        found = whole_coordinates((height, width), factor, size)
        np.testing.assert_array_equal(found, golden[f"coordinates/{height}x{width}"])
