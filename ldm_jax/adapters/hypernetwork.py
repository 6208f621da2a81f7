"""Hypernetworks, as the web UI has them: H(x) = x + strength · f(x) before the keys and before the
values of attention, f a small network of its own for each width of x."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from ldm_jax import config as cfg
from ldm_jax.core import rngs
from ldm_jax.models.layers import gelu

BEFORE = {"k": "to_k", "v": "to_v"}
"""What each of a pair of networks stands before."""
_LAYER_NORM_EPSILON = 1e-5

Nets = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]
"""Arrays by width, `k` or `v`, number of the layer in its file, and `weight` ([out, in], or of a
norm [channels]) or `bias`."""

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "leakyrelu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "swish": jax.nn.hard_swish,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "hardswish": jax.nn.hard_swish,
    "silu": jax.nn.silu,
    "gelu": gelu,
    "selu": jax.nn.selu,
    "celu": jax.nn.celu,
    "mish": jax.nn.mish,
    "relu6": jax.nn.relu6,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "hardtanh": jax.nn.hard_tanh,
    "hardsigmoid": jax.nn.hard_sigmoid,
    "tanhshrink": lambda x: x - jnp.tanh(x),
    "logsigmoid": jax.nn.log_sigmoid,
}
"""All of `cfg.Hypernetwork.activation` but `linear`."""


@dataclass(frozen=True)
class Layer:
    """One part of a network."""

    kind: str
    """`linear`, `activation`, `norm` or `dropout`."""
    number: int
    """As files count: parts that are not there have none."""
    sizes: tuple[float, float] = (0, 0)
    """Inputs and outputs of a linear one, as multiples of the network's width."""
    share: float = 0.0
    """What a dropout leaves out."""


def layers_of(config: cfg.Hypernetwork) -> list[Layer]:
    """The parts of each network, in order."""
    found: list[Layer] = []
    sizes = config.layer_structure
    for i in range(len(sizes) - 1):
        found.append(Layer("linear", len(found), (sizes[i], sizes[i + 1])))
        last = i == len(sizes) - 2
        if config.activation != "linear" and (config.activate_output or not last):
            found.append(Layer("activation", len(found)))
        if config.layer_norm:
            found.append(Layer("norm", len(found), (sizes[i + 1], sizes[i + 1])))
        share = config.dropout[i + 1] if config.dropout else 0.0
        if share:
            found.append(Layer("dropout", len(found), share=share))
    return found


def shapes(config: cfg.Hypernetwork, width: int) -> Iterator[tuple[int, str, tuple[int, ...]]]:
    """Number, name and shape of each array of a network of that width."""
    for layer in layers_of(config):
        before, after = (int(width * size) for size in layer.sizes)
        if layer.kind == "linear":
            yield layer.number, "weight", (after, before)
        if layer.kind == "norm":
            yield layer.number, "weight", (after,)
        if layer.kind in ("linear", "norm"):
            yield layer.number, "bias", (after,)


def fresh_nets(config: cfg.Hypernetwork, widths: Sequence[int], seed: int) -> dict[str, Any]:
    """The arrays (`Nets`) before the first step, drawn from streams of `seed`.

    Biases are zero, and norms' weights normal with a deviation of 0.01, as in the web UI.
    """
    return {
        str(width): {side: _fresh(config, width, side, seed) for side in BEFORE} for width in widths
    }


def _fresh(config: cfg.Hypernetwork, width: int, side: str, seed: int) -> dict[str, Any]:
    net: dict[str, dict[str, Array]] = {}
    for number, name, shape in shapes(config, width):
        key = rngs.stream(seed, f"init/hypernetwork/{width}/{side}/{number}")
        array = jnp.zeros(shape)
        if name == "weight":
            kind = config.initialization if len(shape) == 2 else "normal"
            array = _initial(kind, config.activation, key, shape)
        net.setdefault(str(number), {})[name] = array
    return net


def _initial(
    kind: str, activation: str, key: Key[Array, ""], shape: tuple[int, ...]
) -> Float[Array, "..."]:
    if kind == "normal":
        return 0.01 * jax.random.normal(key, shape, jnp.float32)
    out, fan_in = shape
    if kind.startswith("xavier"):
        deviation = math.sqrt(2 / (fan_in + out))
    else:
        # Of a leaky slope of 0, torch's default here, both activations have this gain.
        deviation = math.sqrt(2 / fan_in)
    if kind.endswith("normal"):
        return deviation * jax.random.normal(key, shape, jnp.float32)
    bound = math.sqrt(3) * deviation
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def apply_net(
    config: cfg.Hypernetwork,
    net: Mapping[str, Mapping[str, Array]],
    x: Float[Array, "b l d"],
    strength: ArrayLike = 1.0,
    keys: Key[Array, "b"] | None = None,
) -> Float[Array, "b l d"]:
    """x + strength · f(x), computed in float32; `keys`, one of each example, turn dropout on."""
    h = x.astype(jnp.float32)
    for layer in layers_of(config):
        stored = net.get(str(layer.number), {})
        own = {name: array.astype(jnp.float32) for name, array in stored.items()}
        match layer.kind:
            case "linear":
                h = h @ own["weight"].T + own["bias"][None, None]
            case "activation":
                h = ACTIVATIONS[config.activation](h)
            case "norm":
                h = h - h.mean(-1, keepdims=True)
                h = h * jax.lax.rsqrt((h * h).mean(-1, keepdims=True) + _LAYER_NORM_EPSILON)
                h = h * own["weight"][None, None] + own["bias"][None, None]
            case "dropout" if keys is not None:
                drawn = rngs.uniform(rngs.named(keys, f"layer{layer.number}"), h.shape[1:])
                h = jnp.where(drawn >= layer.share, h / (1 - layer.share), 0)
    return x + (jnp.asarray(strength, jnp.float32) * h).astype(x.dtype)
