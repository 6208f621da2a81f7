"""Adapters beside LyCORIS' own modules, which read what is written here.

Compared is what a layer's output has more with the adapter in it, as LyCORIS' forward computes it
(its merging scales LoHa and LoKr by α/r twice). Relative differences: sums of some hundred float32
products, in another order.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
modules = pytest.importorskip("lycoris.modules")

from small_adapters import CONVOLVED, DENSE, RANK, Maker  # noqa: E402

from ldm_jax.adapters.adapter import Adapter  # noqa: E402
from ldm_jax.convert.adapters.kohya_form import kohya_form  # noqa: E402

CLOSE = 1e-5
SHAPES = {"dense": (16, 12), "1x1": (16, 12, 1, 1), "3x3": (16, 12, 3, 3)}
TWICE = [f"dora {axis} {kind}" for axis in ("out", "in") for kind in ("lora", "loha", "lokr")]


def layer(shape):
    out, width, *sides = shape
    if not sides:
        return torch.nn.Linear(width, out)
    return torch.nn.Conv2d(width, out, sides[0], padding=sides[0] // 2)


CLASSES = {"lora": "LoConModule", "hada": "LohaModule", "lokr": "LokrModule", "weight": "IA3Module",
           "on": "IA3Module", "diff": "FullModule"}  # fmt: skip


def peer(tensors, original):
    """LyCORIS' module in the place of the `original`, with the tensors of a file.

    Its own loader takes what its own trainer makes alone: neither norms of inputs, nor factors of
    any shape.
    """
    arrays = {k.partition(".")[2]: torch.from_numpy(np.array(a)) for k, a in tensors.items()}
    scale, alpha = arrays.pop("dora_scale", None), arrays.pop("alpha", None)
    kind = next(iter(arrays)).partition("_")[0].partition(".")[0]
    how = {"use_tucker": any(n in arrays for n in ("lora_mid.weight", "hada_t1", "lokr_t2"))}
    if scale is not None:
        how |= {"weight_decompose": True, "wd_on_out": scale.shape[0] > 1}
    if kind == "weight" or kind == "on":
        how = {"train_on_input": bool(arrays.pop("on_input"))}
    elif kind == "diff":
        how = {}
    elif kind == "lokr":
        how |= {"full_matrix": "lokr_w1" in arrays and "lokr_w2" in arrays,
                "decompose_both": "lokr_w1_a" in arrays}  # fmt: skip
    ranks = {} if alpha is None else {"lora_dim": RANK, "alpha": float(alpha)}
    made = getattr(modules, CLASSES[kind])("name", original, 1.0, **ranks, **how)
    if kind == "lokr":
        made.use_w1, made.use_w2 = "lokr_w1" in arrays, "lokr_w2" in arrays
        if not how["full_matrix"]:
            # Factors of so small a layer it would keep whole.
            made.scale = float(alpha) / RANK
    if kind == "diff":
        arrays = {"weight": arrays["diff"]}
    for name, array in arrays.items():
        owner, _, last = name.rpartition(".")
        setattr(made.get_submodule(owner), last, torch.nn.Parameter(array))
    if scale is not None:
        made.dora_scale = torch.nn.Parameter(scale)
    made.apply_to()
    return made


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(k, s) for s in ("dense", "1x1") for k in sorted({*DENSE, *TWICE})]
    + [(k, "3x3") for k in sorted({*CONVOLVED, *TWICE})],
)
def test_what_a_layer_gives_more(kind, shape):
    shape = SHAPES[shape]
    make = Maker(1)
    one, weight = make.make(kind, shape), make.array(*shape)
    torch.manual_seed(0)
    original, plain = layer(shape), layer(shape)
    for module in (original, plain):
        module.weight.data = torch.from_numpy(weight.copy())
        module.bias.data = torch.zeros(shape[0])
    tensors, _ = kohya_form(Adapter({"unet": {"conv_in": (one,)}}))
    x = torch.from_numpy(make.array(2, 12, *([6, 7] if len(shape) > 2 else [])))
    with torch.no_grad():
        base = plain(x)
        peer(tensors, original)
        expected = original(x) - base
        plain.weight.data = torch.from_numpy(np.array(one.delta(weight)))
        found = plain(x)
    assert torch.linalg.norm(found - expected) <= CLOSE * (
        torch.linalg.norm(expected) + torch.linalg.norm(base)
    )


@pytest.mark.parametrize("kind", ["layer", "group"])
def test_norms(kind):
    make = Maker(1)
    one = make.make("norm", (12,))
    norm = torch.nn.LayerNorm(12) if kind == "layer" else torch.nn.GroupNorm(4, 12)
    norm.weight.data, norm.bias.data = (torch.from_numpy(make.array(12)) for _ in range(2))
    x = torch.from_numpy(make.array(5, 12))
    tensors, _ = kohya_form(Adapter({"unet": {"conv_norm_out": (one,)}}))
    with torch.no_grad():
        base = norm(x)
        made = modules.NormModule("name", norm, 1.0)
        for name in ("w_norm", "b_norm"):
            array = torch.from_numpy(np.array(tensors[f"lora_unet_conv_norm_out.{name}"]))
            setattr(made, name, torch.nn.Parameter(array))
        made.apply_to()
        more = norm(x) - base
        norm.forward = made.org_forward
        norm.weight.data = torch.from_numpy(np.array(one.delta(np.zeros(12, np.float32))))
        norm.bias.data = torch.from_numpy(np.array(one.bias_delta()))
        found = norm(x)
    assert torch.linalg.norm(found - more) <= CLOSE * torch.linalg.norm(base)
