"""The transformer over codes: who sees whom; caching, windows and batches change nothing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_codes
from jax.sharding import PartitionSpec as P

from ldm_jax import code_model
from ldm_jax import config as cfg
from ldm_jax.core import rngs
from ldm_jax.core.sharding import make_mesh, state_sharding
from ldm_jax.models.code_transformer import CodeTransformer, empty_caches

CODES = jnp.asarray(np.random.default_rng(1).integers(0, 12, (3, 16)), jnp.int32)
LABELS = jnp.asarray([1, 3, 4], jnp.int32)


@pytest.fixture(scope="module")
def made():
    """The model, its parameters, and the prefix of three classes."""
    config = tiny_codes.config()
    model = code_model.build(config)
    params, frozen = jax.tree.map(jnp.asarray, tiny_codes.params_of(config))
    return model, params, frozen, model.prefix({}, {"label": LABELS}, 3)


@pytest.fixture(scope="module")
def drawn(made):
    """A compiled drawing of three pictures of one class each."""
    model = made[0]
    return jax.jit(lambda params, labels, number, choice: model.draw(
        params, model.prefix({}, {"label": labels}, 3), 7, number, choice))  # fmt: skip


def test_cached_logits_are_those_of_the_whole_sequence_also_behind_an_open_prefix():
    transformer = cfg.CodeTransformer(12, 16, layers=2, width=16, num_heads=2, n_unmasked=3)
    module = CodeTransformer(transformer)
    params, _ = tiny_codes.params_of(tiny_codes.config())
    variables = {"params": jax.tree.map(jnp.asarray, params["transformer"])}
    whole = jax.jit(partial(module.apply, variables))
    extend = jax.jit(partial(module.apply, variables, method="extend"))
    expected = whole(CODES)
    caches = empty_caches(transformer, 3, 16)
    logits, caches = extend(CODES[:, :4], caches, 0)
    np.testing.assert_allclose(logits, expected[:, 3], atol=1e-5)
    for i in range(4, 16):
        logits, caches = extend(CODES[:, i : i + 1], caches, i)
        np.testing.assert_allclose(logits, expected[:, i], atol=1e-5)
    # The third token is seen by the first two, the fourth by none before it.
    for changed, seen in ((2, True), (3, False)):
        other = whole(CODES.at[:, changed].add(1) % 12)
        assert (not np.allclose(other[:, 0], expected[:, 0], atol=1e-4)) == seen


def test_a_code_depends_on_the_class_and_on_the_codes_before_it_alone(made):
    model, params, _, prefix = made
    logits = jax.jit(model.logits)
    whole = logits(params, prefix, CODES)
    assert whole.shape == (3, 16, 12)
    other = logits(params, prefix, CODES.at[:, 8].add(1) % 12)
    np.testing.assert_allclose(other[:, :9], whole[:, :9], atol=1e-6)
    assert not np.allclose(other[:, 9], whole[:, 9], atol=1e-3)
    assert not np.allclose(logits(params, prefix[::-1], CODES)[0], whole[0], atol=1e-3)
    # All probabilities of the next code add up to one: the likelihood is exact.
    nats_of = jax.jit(model.nats)
    nats = jnp.stack([
        nats_of(params, prefix, CODES.at[:, 5].set(code))[:, 5] for code in range(12)
    ])  # fmt: skip
    np.testing.assert_allclose(jnp.exp(-nats).sum(0), 1, atol=1e-5)


def test_the_likeliest_codes_follow_each_other(made, drawn):
    model, params, _, prefix = made
    numbers = jnp.arange(3, dtype=jnp.uint32)
    codes = drawn(params, LABELS, numbers, tiny_codes.choice(model.config, top_k=1))
    logits = model.logits(params, prefix, codes.reshape(3, -1))
    np.testing.assert_array_equal(logits.argmax(-1), codes.reshape(3, -1))


def test_a_picture_is_the_same_in_any_company_and_order(made, drawn):
    model, params, frozen, _ = made
    choice = tiny_codes.choice(model.config, top_k=8, top_p=0.9)
    numbers = jnp.asarray([4, 2, 9], jnp.uint32)
    codes = drawn(params, LABELS, numbers, choice)
    turned = drawn(params, LABELS[::-1], numbers[::-1], choice)
    np.testing.assert_array_equal(turned[::-1], codes)
    other = drawn(params, LABELS.at[1:].set(0), numbers.at[1:].set(0), choice)
    np.testing.assert_array_equal(other[0], codes[0])
    assert len({row.tobytes() for row in np.asarray(codes)}) == 3
    images = model.images(frozen, codes)
    assert images.shape == (3, 8, 8, 3) and images.dtype == jnp.uint8


def test_a_larger_picture_begins_as_the_trained_size_and_is_drawn_in_windows(made, drawn):
    model, params, _, prefix = made
    choice = tiny_codes.choice(model.config, top_k=1)
    numbers = jnp.arange(3, dtype=jnp.uint32)
    small = drawn(params, LABELS, numbers, choice)
    large = model.draw(params, prefix, 7, numbers, choice, (6, 5))
    assert large.shape == (3, 6, 5)
    np.testing.assert_array_equal(large[:, 0, :3], small[:, 0, :3])
    for (y, x), (top, left) in {(3, 2): (1, 0), (5, 4): (2, 1), (1, 4): (0, 1)}.items():
        window = large[:, top : top + 4, left : left + 4].reshape(3, -1)
        place = (y - top) * 4 + x - left
        logits = model.logits(params, prefix, window)[:, place]
        np.testing.assert_array_equal(logits.argmax(-1), large[:, y, x])
    with pytest.raises(ValueError, match="3 x 4 codes are asked for"):
        code_model.windows((3, 4), (4, 4))


def test_dropout_is_the_examples_own(made):
    model, params, _, prefix = made
    rates = dict.fromkeys(("embedding_dropout", "residual_dropout", "attention_dropout"), 0.5)
    model = code_model.build(tiny_codes.config(**rates))
    keys = rngs.example_keys(rngs.stream(0, "dropout"), jnp.arange(3))
    found = model.logits(params, prefix, CODES, keys)
    turned = model.logits(params, prefix[::-1], CODES[::-1], keys[::-1])
    np.testing.assert_allclose(turned[::-1], found, atol=1e-5)
    assert not np.allclose(found, model.logits(params, prefix, CODES), atol=1e-2)


def test_parameters_are_divided_among_devices():
    shapes = jax.eval_shape(
        lambda: code_model.init_params(code_model.build(tiny_codes.config(width=64)), 0)
    )
    mesh = make_mesh(cfg.Mesh(fsdp=2, tensor=2))
    found = state_sharding(mesh, shapes["transformer"], min_size=1)["blocks"]["0"]
    assert found["attn"]["key"]["kernel"].spec == P("fsdp", "tensor")
    assert found["attn"]["proj"]["kernel"].spec == P("tensor", "fsdp")
    assert found["mlp"]["0"]["kernel"].spec == P("fsdp", "tensor")
    assert found["mlp"]["2"]["kernel"].spec == P("tensor", "fsdp")


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(cfg.ConfigError, match="one with codes"):
        cfg.CodeTransformerRun(cfg.Data(), tiny_codes.TRANSFORMER).model(cfg.Autoencoder())
    with pytest.raises(cfg.ConfigError, match=r"transformer.block_size is 15; it must be 16"):
        tiny_codes.config(block_size=15)
    with pytest.raises(cfg.ConfigError, match=r"transformer.n_unmasked is 2; .* at most 1"):
        tiny_codes.config(n_unmasked=2)
