"""Hypernetworks beside torch's layers: networks of the web UI's form before the keys and values of
diffusers' attention, from a file that was written here and read by torch.

The U-Net's output differs by float32's rounding over its layers: 1e-4.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from tiny_pipelines import shallow_unet  # noqa: E402

from ldm_jax import config as cfg  # noqa: E402
from ldm_jax.adapters.adapted import Adapted, put_hypernetworks_beside  # noqa: E402
from ldm_jax.adapters.hypernetwork import fresh_nets  # noqa: E402
from ldm_jax.convert.diffusers.architectures import read_unet  # noqa: E402
from ldm_jax.convert.diffusers.pipeline_folders import read_component  # noqa: E402
from ldm_jax.convert.fields import Fields  # noqa: E402
from ldm_jax.convert.hypernetworks.hypernetwork_files import (  # noqa: E402
    HypernetworkFile,
    read_hypernetwork,
    write_hypernetwork,
)
from ldm_jax.convert.imported_model import materialize  # noqa: E402
from ldm_jax.models.build import build_unet  # noqa: E402
from ldm_jax.models.conditioners import Condition  # noqa: E402

WIDTHS, STRENGTH = (32, 64), 0.7
SIDES = ("to_k", "to_v")
LAYERS = {
    "linear": None, "relu": torch.nn.ReLU, "leakyrelu": torch.nn.LeakyReLU, "elu": torch.nn.ELU,
    "swish": torch.nn.Hardswish, "tanh": torch.nn.Tanh, "sigmoid": torch.nn.Sigmoid,
    "hardswish": torch.nn.Hardswish, "silu": torch.nn.SiLU, "gelu": torch.nn.GELU,
    "selu": torch.nn.SELU, "celu": torch.nn.CELU, "mish": torch.nn.Mish, "relu6": torch.nn.ReLU6,
    "softplus": torch.nn.Softplus, "softsign": torch.nn.Softsign, "hardtanh": torch.nn.Hardtanh,
    "hardsigmoid": torch.nn.Hardsigmoid, "tanhshrink": torch.nn.Tanhshrink,
    "logsigmoid": torch.nn.LogSigmoid,
}  # fmt: skip


def network(form, width, arrays):
    """f, put together as the web UI does."""
    layers = []
    sizes = form.layer_structure
    for i in range(len(sizes) - 1):
        layers.append(torch.nn.Linear(int(width * sizes[i]), int(width * sizes[i + 1])))
        act = LAYERS[form.activation]
        if act is not None and (form.activate_output or i < len(sizes) - 2):
            layers.append(act())
        if form.layer_norm:
            layers.append(torch.nn.LayerNorm(int(width * sizes[i + 1])))
        if form.dropout and form.dropout[i + 1]:
            layers.append(torch.nn.Dropout(form.dropout[i + 1]))
    found = torch.nn.Sequential(*layers)
    state = {name.removeprefix("linear."): tensor for name, tensor in arrays.items()}
    found.load_state_dict(state, strict=True)
    return found.eval()


def before(pairs, side):
    """What changes the input of a layer."""

    def hook(module, arguments):
        (x,) = arguments
        return (x + STRENGTH * pairs[x.shape[-1]][side](x),)

    return hook


@pytest.mark.parametrize("form", [
    cfg.Hypernetwork(WIDTHS, (1.0, 2.0, 1.0), "swish", True, True),
    cfg.Hypernetwork(WIDTHS, (1.0, 1.5, 2.0, 1.0), "leakyrelu", False, False, (0.0, 0.3, 0.1, 0.0)),
], ids=["normalised", "dropout"])  # fmt: skip
def test_a_unet_with_one(form, tmp_path):
    nets = jax.tree.map(lambda a: np.asarray(a) + 0.05, fresh_nets(form, WIDTHS, 0))
    write_hypernetwork(HypernetworkFile(form, nets, "tiny"), tmp_path / "tiny.pt")
    saved = torch.load(tmp_path / "tiny.pt", weights_only=True)

    peer = shallow_unet()
    peer.save_pretrained(tmp_path / "unet")
    pairs = {width: [network(form, width, arrays) for arrays in saved[width]] for width in WIDTHS}
    for name, module in peer.named_modules():
        end = name.rsplit(".", 1)[-1]
        if end in SIDES:
            module.register_forward_pre_hook(before(pairs, SIDES.index(end)))
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 8, 8, 4)).astype(np.float32)
    context = random.normal(size=(2, 5, 64)).astype(np.float32)
    with torch.no_grad():
        expected = peer(
            torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.tensor([10, 500]),
            torch.from_numpy(context),
        ).sample.permute(0, 2, 3, 1).numpy()  # fmt: skip

    config = read_unet(Fields.read(tmp_path / "unet" / "config.json"))
    params = materialize(read_component(tmp_path / "unet", config)[0])
    one = read_hypernetwork(tmp_path / "tiny.pt")
    assert one.form == form
    beside = put_hypernetworks_beside({"unet": params}, [(STRENGTH, one.nets)])["unet"]
    found = Adapted(build_unet(config), hypernetworks=(form,)).apply(
        {"params": jax.tree.map(jnp.asarray, beside)}, jnp.asarray(x), jnp.array([10, 500]),
        Condition(context=jnp.asarray(context)),
    )  # fmt: skip
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-4


@pytest.mark.parametrize("activation", [name for name in LAYERS if name != "linear"])
def test_activations(activation):
    from ldm_jax.adapters.hypernetwork import ACTIVATIONS

    x = np.linspace(-8, 8, 97, dtype=np.float32)
    expected = LAYERS[activation]()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ACTIVATIONS[activation](jnp.asarray(x)), expected, atol=2e-6)
