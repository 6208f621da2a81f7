"""Networks compute what the original code computes with the same weights, for every published kind.

`golden/README.md` says how the numbers were made. float32 against float32 in another order of
summation: the relative error of an output is some 1e-6.
"""

from pathlib import Path

import compvis
import jax
import jax.numpy as jnp
import numpy as np
import originals
import pytest

from ldm_jax import config as cfg
from ldm_jax.core import tree
from ldm_jax.models.bottlenecks import gaussian
from ldm_jax.models.build import build_autoencoder, build_conditioner, build_unet
from ldm_jax.models.conditioners import ClassEmbedding, Condition

GOLDEN = Path(__file__).with_name("golden")


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def drawn(name):
    """The inputs of `name`."""
    return {key: nhwc(value) for key, value in originals.inputs(name).items()}


def nhwc(x):
    """What is NCHW as NHWC; integers as JAX has them."""
    x = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
    return jnp.asarray(x, jnp.float32 if x.dtype.kind == "f" else jnp.int32)


def filled(module, rename, *inputs, heads=None):
    """Variables of `module`; `rename` gives the full original name of a dotted one of ours."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    flat = {}
    for path, leaf in tree.flatten(shapes).items():
        *levels, last = path.split("/")
        value = compvis.parameter(rename(".".join(levels)), last, leaf.shape, heads)
        assert value.shape == leaf.shape, path
        flat[path] = jnp.asarray(value)
    return {"params": tree.unflatten(flat)}


def relative_error(ours, theirs):
    """‖ours − theirs‖ / ‖theirs‖."""
    assert ours.shape == theirs.shape
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def check_autoencoder(stage, prefix, given, want):
    config = compvis.autoencoder_config(stage)
    module = build_autoencoder(config)

    def rename(name):
        return prefix + compvis.autoencoder_name(config, name)

    variables = filled(module, rename, given["image"], given["z"])

    @jax.jit
    def both(variables):
        encoded = module.apply(variables, given["image"], method="encode")
        return encoded, module.apply(variables, given["z"], method="decode")

    encoded, decoded = both(variables)
    assert relative_error(decoded, nhwc(want["decoded"])) < 1e-5
    expected = nhwc(want["encoded"])
    if config.codes is None:
        # The logarithms of variances were not clamped yet.
        for ours, theirs in zip(encoded, gaussian(expected), strict=True):
            assert relative_error(ours, theirs) < 1e-5
    else:
        assert relative_error(encoded.mode, expected) < 1e-5
        found = module.apply(variables, given["z"], method=lambda m, z: m.quantize(z))
        np.testing.assert_array_equal(found.indices.ravel(), want["indices"])


@pytest.mark.parametrize("name", originals.FIRST_STAGES)
def test_first_stage(name):
    check_autoencoder(name, "", drawn(name), golden(name))


@pytest.mark.parametrize("name", originals.MODELS)
def test_model(name):
    given, want = drawn(name), golden(name)
    config, classes = compvis.unet_config(name), originals.MODELS[name].get("classes")
    context = given.get("context")
    if classes is not None:
        token = ClassEmbedding(*classes)
        prefix = "cond_stage_model."
        variables = filled(token, lambda name: prefix + name, given["labels"])
        context = token.apply(variables, given["labels"])
    split = config.in_channels
    x, concat = given["x"][..., :split], given["x"][..., split:]
    condition = Condition(context=context, concat=concat if config.concat_channels else None)
    inputs = x, given["t"], condition
    unet = build_unet(config)
    prefix = "model.diffusion_model."
    variables = filled(
        unet, lambda name: prefix + compvis.unet_name(config, name), *inputs,
        heads=dict(zip(config.block_out_channels, config.num_heads, strict=True)),
    )  # fmt: skip
    assert relative_error(jax.jit(unet.apply)(variables, *inputs), nhwc(want["unet"])) < 1e-5


@pytest.mark.parametrize("name", [n for n, m in originals.MODELS.items() if "text" in m])
def test_text_encoder(name):
    (kind, width), tokens = originals.MODELS[name]["text"], drawn(name)["tokens"]
    clip = {"vocab_size": 50, "width": width, "num_heads": width // 64, "intermediate": 4 * width}
    match kind:
        case "clip":
            config, rename = cfg.CLIPText(**clip, layers=2), "transformer.{}".format
        case "openclip":
            config = cfg.CLIPText(**clip, layers=3, activation="gelu", skip_last=1)

            def rename(name):
                return f"model.{compvis.openclip_name(name)}"
        case "bert":
            config = cfg.BERTText(vocab_size=50, width=width, layers=2)

            def rename(name):
                return f"transformer.{compvis.bert_name(name)}"

    module = build_conditioner(cfg.TextConditioner(config)).module
    variables = filled(module, lambda name: f"cond_stage_model.{rename(name)}", tokens)
    context = jax.jit(module.apply)(variables, tokens).context
    assert relative_error(context, golden(name)["text"]) < 1e-5
