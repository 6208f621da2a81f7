"""Adapters merged into parameters, and applied from outside: the same networks."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convert_models import MODELS
from flax import linen as nn
from small_adapters import (
    BLOCK,
    CONVOLVED,
    DENSE,
    QUERY,
    TEXT,
    Maker,
    loras,
    mixed,
    names,
    params,
    shape_of,
)

from ldm_jax import latent_diffusion as ldm
from ldm_jax.adapters.adapted import ADAPTERS, Adapted, adapt, put_beside
from ldm_jax.adapters.adapter import Adapter, AdapterUse
from ldm_jax.adapters.lora import LoRA
from ldm_jax.adapters.merging import MergeError, merge
from ldm_jax.adapters.weights import weight_of
from ldm_jax.core import tree
from ldm_jax.models.conditioners import Condition
from ldm_jax.models.layers import Conv, GroupNorm
from ldm_jax.models.tileable import tileable

CLOSE = 2e-5
"""Relative; the changes are about as large as the weights, and products are summed in another
order."""


def quiet(tree_):
    """Parameters with which a network neither grows nor dies out."""
    return jax.tree.map(lambda a: a * np.float32(0.1 if a.ndim > 1 else 1), tree_)


def kernel(merged, path):
    return weight_of(tree.flatten(merged["unet"])[f"{path}/kernel"])


def test_changes_are_summed_in_float32_and_nothing_else_is_touched():
    base = params()
    first, second = Maker(1).make("lora", shape_of(QUERY)), Maker(2).make("full", shape_of(QUERY))
    uses = [
        AdapterUse(Adapter({"unet": {QUERY: (first,)}}), unet=0.75, text=9.0),
        AdapterUse(Adapter({"unet": {QUERY: (second,)}}), unet=-2.0),
    ]
    merged = merge(base, uses)
    before, after = tree.flatten(base), tree.flatten(merged)
    changed = {path for path in before if before[path] is not after[path]}
    assert changed == {f"unet/{QUERY}/kernel"}
    weight = np.asarray(weight_of(before[f"unet/{QUERY}/kernel"]), np.float64)
    expected = weight + 0.75 * np.asarray(first.delta(weight)) - 2 * second.diff
    np.testing.assert_allclose(kernel(merged, QUERY), expected, atol=1e-5)
    assert kernel(merged, QUERY).dtype == np.float32


@pytest.mark.parametrize("strengths", [None, (0.0, 0.0)])
def test_no_strength_is_the_base_bit_for_bit(strengths):
    uses = [] if strengths is None else [AdapterUse(mixed(), *strengths)]
    merged = merge(params(), uses)
    same = jax.tree.map(lambda a, b: a is b, params(), merged)
    assert jax.tree.all(same)


def test_strengths_of_unet_and_text_encoder():
    merged = merge(params(), [AdapterUse(loras(), unet=0.0, text=1.0)])
    before, after = tree.flatten(params()), tree.flatten(merged)
    changed = {path for path in before if before[path] is not after[path]}
    assert changed == {f"conditioners/text_encoder/{TEXT}/kernel"}


def test_half_precision_base():
    half = jax.tree.map(lambda a: a.astype(np.float16), params())
    one = Maker().make("lora", shape_of(QUERY))
    merged = merge(half, [AdapterUse(Adapter({"unet": {QUERY: (one,)}}))])
    wanted = np.float32(kernel(half, QUERY)) + np.asarray(one.delta(kernel(half, QUERY)))
    np.testing.assert_array_equal(kernel(merged, QUERY), wanted)


def test_nine_channels_keep_those_of_the_mask():
    base, make = params("inpainting"), Maker()
    one = make.make("lora", (32, 4, 3, 3))
    merged = merge(base, [AdapterUse(Adapter({"unet": {"conv_in": (one,)}}))])
    change = kernel(merged, "conv_in") - kernel(base, "conv_in")
    assert not change[:, 4:].any()
    np.testing.assert_allclose(change[:, :4], np.asarray(one.delta(change[:, :4])), atol=1e-6)


def test_what_the_model_does_not_have_is_named():
    one = Maker().make("lora", (16, 12))
    with pytest.raises(MergeError, match="has no mid_block/nothing"):
        merge(params(), [AdapterUse(Adapter({"unet": {"mid_block/nothing": (one,)}}))])
    with pytest.raises(MergeError, match="has no other"):
        merge(params(), [AdapterUse(Adapter({"other": {"a": (one,)}}))])
    with pytest.raises(MergeError, match="has no other"):
        put_beside(params(), [AdapterUse(Adapter({"other": {"a": (one,)}}))])


def apart(a, b):
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


def test_a_network_from_outside_as_merged():
    """Where activations are computed again, as in training, and convolutions are periodic."""
    base = quiet(params())
    uses = [AdapterUse(mixed(1), unet=0.7), AdapterUse(loras(2), unet=-0.4)]
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((1, 4, 4, 4)), jnp.float32)
    context = jnp.asarray(random.standard_normal((1, 7, 64)), jnp.float32)
    model = ldm.build(MODELS["sd1"], remat=True)

    def run(model, params):
        @jax.jit
        def program(params):
            with tileable():
                return model.network(params, x, jnp.array([500]), Condition(context=context))

        return program(params)

    merged = run(model, merge(base, uses))
    assert apart(run(adapt(model), put_beside(base, uses)), merged) < CLOSE


LAYERS = {
    "dense": (nn.Dense(16), (2, 5, 12), DENSE),
    "strided": (Conv(16, stride=2, padding=(0, 1)), (1, 6, 8, 12), CONVOLVED),
    "norm": (GroupNorm(4, 1e-5, jnp.float32), (2, 5, 12), ("norm",)),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_each_kind_from_outside_as_merged(layer):
    module, shape, kinds = LAYERS[layer]

    class Network(nn.Module):
        only: nn.Module

        def __call__(self, x):
            return self.only(x)

    x = jnp.asarray(Maker(9).array(*shape))
    own = {"bias": np.zeros(16, np.float32), "kernel": Maker(8).array(12, 16)}
    if layer == "strided":
        own["kernel"] = Maker(8).array(3, 3, 12, 16)
    elif layer == "norm":
        own = {"scale": Maker(8).array(12), "bias": Maker(7).array(12)}
    own = jax.tree.map(jnp.asarray, own)
    weight = own["scale"] if layer == "norm" else weight_of(own["kernel"])
    for kind in kinds:
        one = Maker(3).make(kind, tuple(weight.shape))
        uses = [AdapterUse(Adapter({"unet": {"only": (one,)}}), unet=0.5)]
        base = {"unet": {"only": own}}
        merged = jax.tree.map(jnp.asarray, merge(base, uses)["unet"])
        expected = Network(module).apply({"params": merged}, x)
        beside = put_beside(base, uses)["unet"]
        assert apart(Adapted(Network(module)).apply({"params": beside}, x), expected) < CLOSE, kind


@pytest.fixture(scope="module")
def tokens():
    return {"caption": jnp.arange(16, dtype=jnp.int32).reshape(2, 8)}


def test_the_text_encoder_from_outside(tokens):
    base, uses = quiet(params()), [AdapterUse(loras(), text=0.5)]
    model = ldm.build(MODELS["sd1"])
    expected = model.condition(merge(base, uses), {}, tokens).context
    assert (
        apart(adapt(model).condition(put_beside(base, uses), {}, tokens).context, expected) < CLOSE
    )
    assert apart(expected, model.condition(base, {}, tokens).context) > 1e-2
    half = adapt(ldm.build(MODELS["sd1"], "bfloat16"))
    # bfloat16 has eight bits.
    assert apart(half.condition(put_beside(base, uses), {}, tokens).context, expected) < 0.05


def test_gradients_of_the_adapter_alone(tokens):
    """What training will hold is the subtree of that name, told by a rule over names."""
    base = jax.tree.map(jnp.asarray, quiet(params()))
    (one,) = loras().components["text_encoder"][TEXT]
    beside = put_beside(base, [AdapterUse(Adapter({"text_encoder": {TEXT: (one,)}}))])
    pattern = rf"conditioners/text_encoder/{ADAPTERS}/\d+/modules/.*/(down|up)"
    trained, rest = tree.split(beside, ((pattern, True), (r".*", False)))
    assert {path.rpartition("/")[2] for path in tree.flatten(trained)} == {"down", "up"}
    plain = ldm.build(MODELS["sd1"])
    model = adapt(plain)

    @jax.grad
    def gradient(trained):
        params = tree.join(trained, rest)
        return jnp.sum(jnp.sin(model.condition(params, {}, tokens).context))

    @jax.grad
    def through_merging(one):
        flat = tree.flatten(base["conditioners"])
        path = f"text_encoder/{TEXT}/kernel"
        flat[path] = (weight_of(flat[path]) + one.delta(weight_of(flat[path]))).T
        params = {"conditioners": tree.unflatten(flat)}
        return jnp.sum(jnp.sin(plain.condition(params, {}, tokens).context))

    found, expected = tree.flatten(gradient(trained)), through_merging(one)
    for path, array in found.items():
        assert apart(array, getattr(expected, path.rpartition("/")[2])) < 1e-3


def test_modules_are_those_of_the_model():
    places = names().places
    assert places["lora_unet_" + BLOCK.replace("/", "_") + "_attn1_to_q"].path == QUERY
    assert isinstance(mixed().components["unet"][QUERY][0], LoRA)
    assert replace(AdapterUse(mixed()), unet=2.0).strength("unet") == 2.0
