"""Adapters before their first step: a change of nothing, from which the gradients lead away."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ldm_jax import config as cfg
from ldm_jax.adapters.adapter import UNET, Adapter
from ldm_jax.adapters.dora import DoRA, norms
from ldm_jax.adapters.ia3 import IA3
from ldm_jax.adapters.kind import Kind
from ldm_jax.adapters.loha import LoHa
from ldm_jax.adapters.lokr import LoKr
from ldm_jax.adapters.lora import LoRA
from ldm_jax.adapters.weights import float32, weight_of
from ldm_jax.adapters.whole_differences import BiasDifference, FullDifference, NormDifference
from ldm_jax.config.adapters import rank_rule
from ldm_jax.core import rngs, tree

Draw = Callable[[str], Key[Array, ""]]
"""The key of one of a module's arrays by its name."""


def fresh(
    config: cfg.ModuleAdapter, params: Mapping[str, Any], text: str | None, seed: int
) -> Adapter:
    """The adapter that `config` describes, for a model of `params`, drawn from streams of `seed`.

    Initial values are those of the methods' own programs: of LoRA `down` uniform within
    1/sqrt(fan_in) and `up` zero; of LoHa normal with deviations of 1 and 0.1 and one factor zero;
    of LoKr as LoRA's; of all others zero.

    Args:
        params: `{"unet", "conditioners"}`, or shapes of them.
        text: the conditioner that encodes text, which may be changed beside the U-Net.

    Raises:
        cfg.ConfigError: the model has no such modules, or none that a pattern of ranks fits.
    """
    components: dict[str, dict[str, tuple[Kind, ...]]] = {}
    names = []
    for component, path, own in _modules(params, text):
        names.append(name := f"{component}/{path}")
        chosen = config.takes(name) and config.rank_of(name)
        if chosen and (kinds := _kinds(config, name, own, *chosen, seed)):
            components.setdefault(component, {})[path] = kinds
    if not components:
        raise cfg.ConfigError(
            f"adapter.modules is {' '.join(config.modules)!r}, of which this model has none that "
            f"can be changed so; choose others, such as {', '.join(cfg.MODULES)}"
        )
    for entry in config.ranks:
        pattern, *_ = rank_rule(entry)
        if not any(config.takes(name) and re.fullmatch(pattern, name) for name in names):
            raise cfg.ConfigError(
                f"adapter.ranks has {entry!r}, whose pattern fits none of the modules of "
                f"adapter.modules; they are named as {names[0]}"
            )
    return Adapter(components)


def _modules(
    params: Mapping[str, Any], text: str | None
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Component, path and own parameters of each module that adapters may change."""
    components = {UNET: params[UNET]}
    if text is not None:
        components[text] = params["conditioners"][text]
    for component, nested in components.items():
        modules: dict[str, dict[str, Any]] = {}
        for leaf, array in tree.flatten(nested).items():
            path, _, name = leaf.rpartition("/")
            modules.setdefault(path, {})[name] = array
        for path, own in modules.items():
            if "kernel" in own or "scale" in own:
                yield component, path, own


def _kinds(
    config: cfg.ModuleAdapter, module: str, own: Mapping[str, Any], rank: int, alpha: float | None,
    seed: int,
) -> tuple[Kind, ...]:  # fmt: skip
    """The changes of one module; () where it is of a sort that this kind of change leaves out."""
    kind = config.kind
    if "kernel" not in own:
        if not isinstance(kind, cfg.FullDifference) or not kind.norms:
            return ()
        return (NormDifference(*(jnp.zeros_like(own[n]) for n in ("scale", "bias"))),)
    weight = weight_of(own["kernel"])
    shape = tuple(weight.shape)

    def draw(name: str) -> Key[Array, ""]:
        return rngs.stream(seed, f"init/adapter/{module}/{name}")

    # What is no factor of low rank takes no more than the weight has of these.
    rank = min(rank, shape[0], math.prod(shape[1:]))
    match kind:
        case cfg.IA3():
            axis = 1 if re.fullmatch(kind.on_input, module) else 0
            return (IA3(jnp.zeros([n if i == axis else 1 for i, n in enumerate(shape)])),)
        case cfg.FullDifference():
            bias = (BiasDifference(jnp.zeros_like(own["bias"])),) if "bias" in own else ()
            return (FullDifference(jnp.zeros(shape)), *(bias if kind.biases else ()))
        case cfg.LoRA():
            made = _lora(kind, shape, rank, draw, _alpha(alpha, rank, kind.rank_stabilized))
        case cfg.LoHa():
            made = _loha(kind, shape, rank, draw, _alpha(alpha, rank))
        case cfg.LoKr():
            made = _lokr(kind, shape, rank, draw, _alpha(alpha, rank))
    return (DoRA(norms(float32(weight), of_outputs=True), made) if config.magnitude else made,)


def _alpha(alpha: float | None, rank: int, stabilized: bool = False) -> np.float32:
    """What files say: the change is multiplied by this / rank."""
    alpha = rank if alpha is None else alpha
    return np.float32(alpha * math.sqrt(rank) if stabilized else alpha)


def _lora(kind: cfg.LoRA, shape: tuple[int, ...], rank: int, draw: Draw, alpha: np.float32) -> LoRA:
    out, width, *sides = shape
    if not (kind.tucker and _is_spatial(sides)):
        down = _kaiming(draw("down"), (rank, width, *sides))
        return LoRA(down, jnp.zeros((out, rank)), None, alpha)
    down = _kaiming(draw("down"), (rank, width))
    return LoRA(down, jnp.zeros((out, rank)), _kaiming(draw("mid"), (rank, rank, *sides)), alpha)


def _loha(kind: cfg.LoHa, shape: tuple[int, ...], rank: int, draw: Draw, alpha: np.float32) -> LoHa:
    out, width, *sides = shape
    spatial = kind.tucker and _is_spatial(sides)
    a = (rank, out) if spatial else (out, rank)
    b = (rank, width) if spatial else (rank, width * math.prod(sides))
    core = (rank, rank, *sides)
    return LoHa(
        w1_a=_normal(draw("w1_a"), a, 0.1),
        w1_b=_normal(draw("w1_b"), b, 1.0),
        w2_a=jnp.zeros(a),
        w2_b=_normal(draw("w2_b"), b, 1.0),
        t1=_normal(draw("t1"), core, 0.1) if spatial else None,
        t2=_normal(draw("t2"), core, 0.1) if spatial else None,
        alpha=alpha,
    )


def _lokr(kind: cfg.LoKr, shape: tuple[int, ...], rank: int, draw: Draw, alpha: np.float32) -> LoKr:
    out, width, *sides = shape
    (a, c), (b, d) = (divisors(n, kind.factor) for n in (out, width))
    first: dict[str, Any] = {"w1": _kaiming(draw("w1"), (a, b))}
    if kind.decompose_both and rank < max(a, b) / 2:
        first = {"w1_a": _kaiming(draw("w1_a"), (a, rank)),
                 "w1_b": _kaiming(draw("w1_b"), (rank, b))}  # fmt: skip
    if rank >= max(c, d) / 2:
        second: dict[str, Any] = {"w2": jnp.zeros((c, d, *sides))}
    elif kind.tucker and _is_spatial(sides):
        second = {"w2_a": _kaiming(draw("w2_a"), (rank, c)), "w2_b": jnp.zeros((rank, d)),
                  "t2": _kaiming(draw("t2"), (rank, rank, *sides))}  # fmt: skip
    else:
        second = {"w2_a": _kaiming(draw("w2_a"), (c, rank)),
                  "w2_b": jnp.zeros((rank, d * math.prod(sides)))}  # fmt: skip
    return LoKr(**first, **second, alpha=alpha)


def divisors(n: int, largest: int = -1) -> tuple[int, int]:
    """Two numbers whose product is `n`, the smaller one first and as large as can be, of at most
    `largest` unless that is -1: 320 is 16 · 20."""
    most = math.isqrt(n) if largest == -1 else min(largest, math.isqrt(n))
    small = next(i for i in range(most, 0, -1) if n % i == 0)
    return small, n // small


def _is_spatial(sides: list[int]) -> bool:
    return math.prod(sides) > 1


def _kaiming(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Uniform within 1/sqrt(fan_in), as torch's layers begin."""
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def _normal(key: Key[Array, ""], shape: tuple[int, ...], deviation: float) -> Float[Array, "..."]:
    return deviation * jax.random.normal(key, shape, jnp.float32)
