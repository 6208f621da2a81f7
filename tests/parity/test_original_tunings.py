"""A LoRA, hypernetworks and a ControlNet of the originals: their files, read here and applied,
change what the networks compute as the originals have it.

`golden/README.md` says how the numbers were made. float32 against float32 in another order of
summation: relative errors are some 1e-6. What is changed differs by 0.4 and more.
"""

import json

import convert_models as small
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tunings
from corpus_controls import MODEL

from ldm_jax.adapters.adapted import Adapted, put_hypernetworks_beside
from ldm_jax.adapters.adapter import AdapterUse
from ldm_jax.adapters.merging import merge
from ldm_jax.convert import imported_model, state_dicts
from ldm_jax.convert.adapters.adapter_files import read_adapter
from ldm_jax.convert.adapters.adapter_writer import write_adapter
from ldm_jax.convert.adapters.module_names import ModuleNames
from ldm_jax.convert.compvis import keys
from ldm_jax.convert.controlnets.control_files import read_control
from ldm_jax.convert.controlnets.control_names import PREFIX
from ldm_jax.convert.file_hashes import short_hash
from ldm_jax.convert.hypernetworks.hypernetwork_files import read_hypernetwork, write_hypernetwork
from ldm_jax.convert.other_kinds import read_saved
from ldm_jax.formats.safetensors_file import read_safetensors, write_safetensors
from ldm_jax.models.build import build_conditioner, build_control, build_unet
from ldm_jax.models.conditioners import Condition
from ldm_jax.models.unet import Control

CLOSE = 1e-5
LORA = tunings.GOLDEN / tunings.LORA
GIVEN = tunings.inputs()
UNET = build_unet(MODEL.unet)
SHAPES = imported_model.unet_shapes(MODEL.unet)


@pytest.fixture(scope="module")
def golden():
    with np.load(tunings.GOLDEN / "tunings.npz") as stored:
        return dict(stored)


def nhwc(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x)


INPUTS = nhwc(GIVEN["x"]), jnp.asarray(GIVEN["t"]), Condition(context=nhwc(GIVEN["context"]))


@jax.jit
def plain(params, control=None):
    return UNET.apply({"params": params}, *INPUTS, control=control)


def check(found, expected, without):
    def apart(one):
        return np.linalg.norm(one - nhwc(expected)) / np.linalg.norm(expected)

    assert apart(found) < CLOSE and apart(nhwc(without)) > 0.3


def tensors(golden, name, prefix):
    return tunings.drawn(prefix, json.loads(str(golden[f"{name}/shapes"])))


@pytest.fixture(scope="module")
def unet(golden):
    """The U-Net of the original's names."""
    places = keys.unet_places([leaf.name for leaf in state_dicts.leaves(SHAPES)], MODEL.unet)
    own, others = keys.read(tensors(golden, "original/unet", "model.diffusion_model."), places)
    assert not others
    return state_dicts.from_torch(own, SHAPES, "the original")[0]


def test_lora(golden, tmp_path):
    """U-Net and text encoder, dense layers, convolutions of one pixel and of 3 x 3, each with an
    alpha; and written again it is the same file."""
    text = build_conditioner(small.TEXT)
    parts = {"unet": SHAPES, "text_encoder": imported_model.conditioner_shapes(small.TEXT)}
    told = {"unet": "kohya/unet", "text_encoder": "kohya/text"}
    trees = {
        name: state_dicts.from_torch(tensors(golden, told[name], "kohya/"), part, name)[0]
        for name, part in parts.items()
    }
    params = imported_model.make(MODEL, trees).params
    adapter = read_adapter(LORA, ModuleNames.of(MODEL, params))
    assert adapter.count() == {"unet": 79, "text_encoder": 12}
    strength = tunings.LORA_STRENGTH
    merged = merge(params, [AdapterUse(adapter, strength, strength)])
    check(plain(merged["unet"]), golden["kohya/unet"], golden["kohya/unet/without"])
    states = text.module.apply(
        {"params": merged["conditioners"]["text_encoder"]}, jnp.asarray(GIVEN["tokens"])
    ).context
    check(states, golden["kohya/text"], golden["kohya/text/without"])

    write_adapter(adapter, tmp_path / "again.safetensors", "kohya")
    (ours, told), (theirs, said) = map(read_safetensors, (tmp_path / "again.safetensors", LORA))
    assert ours.keys() == theirs.keys() and told["sshs_model_hash"] == said["sshs_model_hash"]
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor, name, strict=True)


def test_hypernetworks(golden, unet, tmp_path):
    """Two, one after the other: with norms, Hardswish at the end and dropout, and without; and
    written again their files say the same."""
    read = [read_hypernetwork(tunings.GOLDEN / name) for name in tunings.HYPERNETWORKS]
    assert [one.form.dropout for one in read] == [(0.0, 0.3, 0.1, 0.0), (0.0, 0.3, 0.0)]
    assert [one.name for one in read] == ["normalised", "bare"] and read[0].step == 7
    nets = [(s, one.nets) for s, one in zip(tunings.HYPERNETWORK_STRENGTHS, read, strict=True)]
    beside = put_hypernetworks_beside({"unet": unet}, nets)["unet"]
    adapted = Adapted(UNET, hypernetworks=tuple(one.form for one in read))
    found = jax.jit(adapted.apply)({"params": jax.tree.map(jnp.asarray, beside)}, *INPUTS)
    check(found, golden["webui/unet"], golden["original/unet/without"])
    for one, name in zip(read, tunings.HYPERNETWORKS, strict=True):
        write_hypernetwork(one, tmp_path / name)
        ours, theirs = (
            {str(key): one for key, one in read_saved(path / name)[0].items()}
            for path in (tmp_path, tunings.GOLDEN)
        )
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_control_net(golden, unet, tmp_path):
    path = tmp_path / "edges.safetensors"
    own = tensors(golden, "original/control", PREFIX)
    write_safetensors(path, {PREFIX + name: tensor for name, tensor in own.items()})
    read = read_control(path, MODEL, unet)
    net = build_control(read.config)
    params = jax.tree.map(jnp.asarray, read.params)
    control = jax.jit(net.apply)({"params": params}, *INPUTS, nhwc(GIVEN["hint"]))
    residuals = [*control.skips, control.middle]
    for i, one in enumerate(residuals):
        check(one, golden[f"original/control/{i}"], np.zeros_like(golden[f"original/control/{i}"]))
    *skips, middle = (tunings.CONTROL_STRENGTH * one for one in residuals)
    found = plain(unet, Control(tuple(skips), middle))
    check(found, golden["original/control/unet"], golden["original/unet/without"])
    check(plain(unet), golden["original/unet/without"], golden["original/control/unet"])


def test_short_hashes(golden):
    """As the web UI writes them beside pictures."""
    assert short_hash(LORA, "lora") == str(golden["webui/hash/lora"])
    assert str(golden["webui/hash/bare"]) == str(golden["webui/hash/lora"])
    first = tunings.GOLDEN / tunings.HYPERNETWORKS[0]
    assert short_hash(first, "hypernetwork") == str(golden["webui/hash/hypernetwork"])
