"""Adapters with numbers in them, of every kind, for the small models of `convert_models`."""

from functools import cache
from typing import Any

import numpy as np
from convert_models import MODELS, TASKS, numbers

from ldm_jax.adapters.adapter import Adapter
from ldm_jax.adapters.dora import DoRA
from ldm_jax.adapters.ia3 import IA3
from ldm_jax.adapters.loha import LoHa
from ldm_jax.adapters.lokr import LoKr
from ldm_jax.adapters.lora import LoRA
from ldm_jax.adapters.whole_differences import BiasDifference, FullDifference, NormDifference
from ldm_jax.convert import imported_model
from ldm_jax.convert.adapters.module_names import ModuleNames

BLOCK = "down_blocks/0/attentions/0/transformer_blocks/0"
QUERY, KEY, OUT, FEED = (
    f"{BLOCK}/{name}" for name in ("attn1/to_q", "attn2/to_k", "attn1/to_out/0", "ff/net/0/proj")
)
POINTWISE = "down_blocks/0/attentions/0/proj_in"
CONVOLUTION = "down_blocks/0/resnets/0/conv1"
NORM = "down_blocks/0/resnets/0/norm1"
TEXT = "text_model/encoder/layers/0/self_attn/q_proj"
RANK = 3


@cache
def params(name: str = "sd1") -> dict[str, Any]:
    """All parameters `{"unet", "conditioners"}` of a small model."""
    config = (MODELS | TASKS)[name]
    return imported_model.make(config, numbers(config)).params


@cache
def names(name: str = "sd1") -> ModuleNames:
    """The modules of a small model."""
    return ModuleNames.of((MODELS | TASKS)[name], params(name))


def shape_of(path: str, model: str = "sd1") -> tuple[int, ...]:
    return names(model).places[path.replace("/", ".")].shape


class Maker:
    """Changes of random numbers, each another."""

    def __init__(self, seed: int = 0, dtype: Any = np.float32) -> None:
        self.random, self.dtype = np.random.default_rng(seed), dtype

    def array(self, *shape: int) -> np.ndarray:
        return (0.5 * self.random.standard_normal(shape)).astype(self.dtype)

    def alpha(self) -> np.ndarray:
        return np.asarray(self.random.integers(1, 9) / 2, self.dtype)

    def make(self, kind: str, shape: tuple[int, ...]) -> Any:
        """A change of a weight of `shape`."""
        if kind == "norm":
            return NormDifference(self.array(*shape), self.array(*shape))
        out, width, *sides = shape
        ones, pixels, r = [1] * len(sides), int(np.prod(sides, dtype=int)), RANK
        match kind:
            case "lora":
                down, up = self.array(r, width, *sides), self.array(out, r, *ones)
                return LoRA(down, up, alpha=self.alpha())
            case "lora mid":
                down, up = self.array(r, width, *ones), self.array(out, r, *ones)
                return LoRA(down, up, self.array(r, r, *sides), self.alpha())
            case "loha":
                a, b = (out, r), (r, width * pixels)
                return LoHa(*(self.array(*s) for s in (a, b, a, b)), alpha=self.alpha())
            case "loha tucker":
                a, b, t = (r, out), (r, width), (r, r, *sides)
                return LoHa(*(self.array(*s) for s in (a, b, a, b, t, t)), alpha=self.alpha())
            case "lokr whole":
                w2 = self.array(out // 4, width // 2, *sides)
                return LoKr(w1=self.array(4, 2), w2=w2, alpha=self.alpha())
            case "lokr":
                return self._lokr(out, width * pixels, w1=self.array(4, 2))
            case "lokr both":
                return self._lokr(out, width * pixels, w1_a=self.array(4, r), w1_b=self.array(r, 2))
            case "lokr tucker":
                return LoKr(
                    w1=self.array(4, 2), w2_a=self.array(r, out // 4),
                    w2_b=self.array(r, width // 2), t2=self.array(r, r, *sides), alpha=self.alpha(),
                )  # fmt: skip
            case "lokr small":
                return LoKr(
                    w1_a=self.array(4, r), w1_b=self.array(r, 2),
                    w2=self.array(out // 4, width // 2, *sides), alpha=self.alpha(),
                )  # fmt: skip
            case "ia3 out":
                return IA3(self.array(out, 1, *ones))
            case "ia3 in":
                return IA3(self.array(1, width, *ones))
            case "full":
                return FullDifference(self.array(*shape))
        dora, axis, inner = kind.split(" ", 2)
        assert dora == "dora"
        magnitude = self.array(out, 1, *ones) if axis == "out" else self.array(1, width, *ones)
        return DoRA(np.abs(magnitude) + self.dtype(0.5), self.make(inner, shape))

    def _lokr(self, out: int, columns: int, **first: np.ndarray) -> LoKr:
        second = {"w2_a": self.array(out // 4, RANK), "w2_b": self.array(RANK, columns // 2)}
        return LoKr(**first, **second, alpha=self.alpha())


DENSE = ("lora", "loha", "lokr", "lokr both", "lokr whole", "lokr small", "ia3 out", "ia3 in",
         "full", "dora out lora", "dora in lora", "dora out loha", "dora in lokr")  # fmt: skip
"""Kinds of change of a dense layer."""
CONVOLVED = (*DENSE, "lora mid", "loha tucker", "lokr tucker", "dora out lora mid")


def mixed(seed: int = 0, dtype: Any = np.float32) -> Adapter:
    """An adapter for "sd1" with many kinds."""
    make = Maker(seed, dtype)
    chosen = {
        QUERY: "lora", KEY: "loha", OUT: "lokr", FEED: "dora out lora", POINTWISE: "dora in lora",
        CONVOLUTION: "lora mid", NORM: "norm", "conv_in": "full",
        "mid_block/resnets/0/conv1": "loha tucker", "mid_block/resnets/1/conv1": "lokr tucker",
        "up_blocks/0/resnets/0/time_emb_proj": "ia3 out", "conv_out": "ia3 in",
    }  # fmt: skip
    unet = {path: (make.make(kind, shape_of(path)),) for path, kind in chosen.items()}
    unet["conv_in"] += (BiasDifference(make.array(shape_of("conv_in")[0])),)
    text = {TEXT: (make.make("lora", shape_of(TEXT)),)}
    return Adapter({"unet": unet, "text_encoder": text}, "mixed")


def loras(seed: int = 0, dtype: Any = np.float32) -> Adapter:
    """An adapter for "sd1" of plain LoRA alone, in both components."""
    make = Maker(seed, dtype)
    unet = {path: (make.make("lora", shape_of(path)),) for path in (QUERY, KEY, OUT, CONVOLUTION)}
    return Adapter({"unet": unet, "text_encoder": {TEXT: (make.make("lora", shape_of(TEXT)),)}},
                   "loras")  # fmt: skip
