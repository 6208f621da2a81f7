"""Hypernetworks: their layers, their files, and attention that they change."""

import dataclasses

import convert_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import linen as nn

from ldm_jax import config as cfg
from ldm_jax.adapters.adapted import Adapted, put_hypernetworks_beside
from ldm_jax.adapters.hypernetwork import ACTIVATIONS, apply_net, fresh_nets, layers_of
from ldm_jax.convert.hypernetworks.hypernetwork_files import (
    HypernetworkFile,
    read_hypernetwork,
    write_hypernetwork,
)
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core import rngs, tree
from ldm_jax.formats.torch_writer import write_torch
from ldm_jax.models.transformer import Attention

FORM = cfg.Hypernetwork((6,), (1.0, 2.0, 3.0, 1.0), "relu", True, False, (0.0, 0.3, 0.0, 0.0))


def test_files_count_the_parts_that_are_there():
    found = [(layer.kind, layer.number) for layer in layers_of(FORM)]
    assert found == [
        ("linear", 0), ("activation", 1), ("norm", 2), ("dropout", 3), ("linear", 4),
        ("activation", 5), ("norm", 6), ("linear", 7), ("norm", 8),
    ]  # fmt: skip
    plain = layers_of(cfg.Hypernetwork())
    assert [(layer.kind, layer.number) for layer in plain] == [("linear", 0), ("linear", 1)]
    assert {*ACTIVATIONS} | {"linear"} == {
        *cfg.Hypernetwork.__dataclass_fields__["activation"].type.__args__
    }


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x, context):
        return Attention(1, name="attn2")(Attention(1, name="attn1")(x), context)


def test_keys_and_values_change_by_their_width():
    """Self-attention of width 4, and attention to a context of width 6, which alone has nets."""
    x, context = jnp.ones((2, 3, 4)), jax.random.normal(jax.random.key(0), (2, 5, 6))
    network = Pair()
    params = network.init(jax.random.key(1), x, context)["params"]
    nets = [jax.tree.map(lambda a: a + 0.1, fresh_nets(FORM, (6,), seed)) for seed in (0, 1)]
    beside = put_hypernetworks_beside({"unet": params}, [(0.5, nets[0]), (2.0, nets[1])])["unet"]
    found = Adapted(network, hypernetworks=(FORM, FORM)).apply({"params": beside}, x, context)

    between = Attention(1).apply({"params": params["attn1"]}, x)
    own = params["attn2"]

    def hyper(side):
        once = apply_net(FORM, nets[0]["6"][side], context, 0.5)
        return apply_net(FORM, nets[1]["6"][side], once, 2.0)

    q = between @ own["to_q"]["kernel"]
    k, v = (hyper(side) @ own[f"to_{side}"]["kernel"] for side in "kv")
    weights = jax.nn.softmax(jnp.einsum("bld,bmd->blm", q, k) / 2.0)
    expected = weights @ v @ own["to_out"]["0"]["kernel"] + own["to_out"]["0"]["bias"][None, None]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    off = put_hypernetworks_beside({"unet": params}, [(0.0, nets[0])])["unet"]
    np.testing.assert_array_equal(
        Adapted(network, hypernetworks=(FORM,)).apply({"params": off}, x, context),
        network.apply({"params": params}, x, context),
    )


def test_dropout_is_of_the_example():
    (net,) = (jax.tree.map(lambda a: a + 0.1, fresh_nets(FORM, (6,), 0)["6"]["k"]),)
    x = jax.random.normal(jax.random.key(0), (3, 2, 6))
    keys = rngs.example_keys(rngs.stream(0, "dropout"), np.arange(3, dtype=np.uint32))
    dropped = apply_net(FORM, net, x, keys=keys)
    assert not np.allclose(dropped, apply_net(FORM, net, x))
    np.testing.assert_array_equal(apply_net(FORM, net, x[1:], keys=keys[1:]), dropped[1:])


@pytest.fixture
def file(tmp_path):
    nets = jax.tree.map(np.asarray, fresh_nets(FORM, (6,), 0))
    one = HypernetworkFile(FORM, nets, "mine", 7, {"sd_checkpoint": "ab12"})
    write_hypernetwork(one, tmp_path / "mine.pt")
    return tmp_path / "mine.pt"


def test_files_are_read_as_they_were_written(file, tmp_path):
    one = read_hypernetwork(file)
    assert (one.form, one.name, one.step) == (FORM, "mine", 7)
    assert one.about == {"sd_checkpoint": "ab12"}
    write_hypernetwork(one, tmp_path / "again.pt")
    again = read_hypernetwork(tmp_path / "again.pt")
    assert (again.form, again.name, again.step, again.about) == (FORM, "mine", 7, one.about)
    tiny.same_bits(again.nets, one.nets)


@pytest.mark.parametrize("kind", ["normal", "xavier_uniform", "xavier_normal", "kaiming_uniform",
                                  "kaiming_normal"])  # fmt: skip
def test_initial_values(kind):
    form = dataclasses.replace(FORM, initialization=kind)
    flat = tree.flatten(fresh_nets(form, (200,), 0)["200"]["k"])
    deviation = {"normal": 0.01, "xavier": (2 / 600) ** 0.5, "kaiming": (2 / 200) ** 0.5}
    expected = deviation[kind.split("_")[0]]
    np.testing.assert_allclose(flat["0/weight"].std(), expected, rtol=0.02)
    np.testing.assert_allclose(flat["2/weight"].std(), 0.01, rtol=0.2)  # of a norm, as they do
    assert not flat["0/bias"].any()


def test_old_files_and_what_dropout_they_meant(tmp_path):
    arrays = {f"linear{n}.{kind}": np.ones(shape, np.float32)
              for n, sizes in (("1", (12, 6)), ("2", (6, 12)))
              for kind, shape in (("weight", sizes), ("bias", sizes[:1]))}  # fmt: skip
    write_torch(tmp_path / "old.pt", {6: (arrays, arrays), "step": 3})
    one = read_hypernetwork(tmp_path / "old.pt")
    assert one.form == cfg.Hypernetwork((6,)) and (one.name, one.step) == ("old", 3)
    assert one.nets["6"]["k"].keys() == {"0", "1"}


def test_networks_for_another_family_beside_the_models_own_are_told_of(file, tmp_path):
    model = convert_models.MODELS["sd1"]
    widths = (6, model.unet.context_dim)
    form = dataclasses.replace(FORM, widths=widths)
    nets = jax.tree.map(np.asarray, fresh_nets(form, widths, 0))
    write_hypernetwork(HypernetworkFile(form, nets, "both"), tmp_path / "both.pt")
    assert read_hypernetwork(tmp_path / "both.pt").notes == ()
    (note,) = read_hypernetwork(tmp_path / "both.pt", model).notes
    assert note == "both: its networks of width 6 are not used here"


def test_networks_for_another_model_are_refused(file):
    with pytest.raises(ConvertError, match="attention of width 6, which this model has not"):
        read_hypernetwork(file, convert_models.MODELS["sd1"])
