"""What tells the U-Net what to draw: the condition, and the conditioners that make it of inputs.

An input is what an example, or a request, is conditioned on, as arrays by name: the tokens of its
`caption`, its `label`, a `mask`. A model runs its conditioners in order, each of which adds to the
condition what the slots of its config say.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from ldm_jax.config.conditioning import ENCODED_CAPTION
from ldm_jax.models.emphasis import weigh
from ldm_jax.models.layers import Embed

Inputs = Mapping[str, Any]
"""Arrays by name, one row for each example."""


class Encoder(NamedTuple):
    """The first stage's encoder, as conditioners use it; pixels are in [-1, 1]."""

    sampled: Callable[
        [Float[Array, "#b h w c"], Float[Array, "#b zh zw z"]], Float[Array, "b zh zw z"]
    ]
    """Pixels and noise to scaled latents."""
    mode: Callable[[Float[Array, "b h w c"]], Float[Array, "b zh zw z"]]
    """Pixels to the most likely latents, unscaled."""


class Hint(NamedTuple):
    """What one ControlNet is told, encoded, and how strongly it acts."""

    features: Float[Array, "b h w c"]
    """Of the hint, of the size and width of what the first convolution gives."""
    strengths: Float[Array, "b n"]
    """What each of its residuals is multiplied by, that of the middle last."""
    times: Float[Array, "b 2"]
    """It acts from the first of these times down to the second, which is not among them."""


class Condition(NamedTuple):
    """What the U-Net is conditioned on; what is None is absent."""

    context: Float[Array, "b l d"] | None = None
    """Tokens for cross-attention."""
    pooled: Float[Array, "b p"] | None = None
    """A vector that is projected and added to the time embedding."""
    label: Int[Array, " b"] | None = None
    """A class whose embedding is added to the time embedding."""
    concat: Float[Array, "b h w c"] | None = None
    """An image of the latents' size that is concatenated to them."""
    hints: tuple[Hint, ...] = ()
    """One for each of the model's ControlNets."""

    def joined(self, other: "Condition") -> "Condition":
        """Both: tokens one after the other, vectors and channels side by side, one label."""
        return Condition(
            _joined(self.context, other.context, axis=1),
            _joined(self.pooled, other.pooled, axis=-1),
            other.label if self.label is None else self.label,
            _joined(self.concat, other.concat, axis=-1),
            (*self.hints, *other.hints),
        )


def _joined(a: Array | None, b: Array | None, axis: int) -> Array | None:
    some = [array for array in (a, b) if array is not None]
    return jnp.concatenate(some, axis) if len(some) == 2 else next(iter(some), None)


@runtime_checkable
class Conditioner(Protocol):
    """Makes a part of the condition; a pure function of its parameters and the inputs."""

    name: str
    """Of its parameters; a conditioner that has none is not found there."""

    def init(self, key: Key[Array, ""], inputs: Inputs, before: Condition) -> Any:
        """Fresh parameters; {} where it has none."""
        ...

    def __call__(
        self, params: Any, inputs: Inputs, before: Condition, encoder: Encoder
    ) -> Condition:
        """What it adds to the condition that the conditioners `before` it have made."""
        ...


@runtime_checkable
class Network(Protocol):
    """A Flax module, or what is used like one."""

    def init(self, key: Key[Array, ""], *arguments: Any) -> Any:
        """As Flax's."""
        ...

    def apply(self, variables: Any, *arguments: Any) -> Any:
        """As Flax's."""
        ...


@dataclass(frozen=True)
class TextEncoder:
    """Tokens of the `caption` [b l], encoded; or what was made of them before, `caption_states`
    [b l d] and `caption_pooled` [b p].

    With `caption_weights` [b k l] the caption is k chunks of tokens, [b k l], whose states are
    weighed (`emphasis.weigh`) and put one after the other.
    """

    name: str
    module: Network

    def init(self, key: Key[Array, ""], inputs: Inputs, before: Condition) -> Any:
        return self.module.init(key, inputs["caption"])["params"]

    def __call__(
        self, params: Any, inputs: Inputs, before: Condition, encoder: Encoder
    ) -> Condition:
        if "caption_states" in inputs:
            found = (inputs.get(name) for name in ENCODED_CAPTION)
            return Condition(*(one if one is None else one.astype(jnp.float32) for one in found))
        tokens, weights = inputs["caption"], inputs.get("caption_weights")
        if weights is None:
            return self.module.apply({"params": params}, tokens)
        b, k, length = tokens.shape
        condition = self.module.apply({"params": params}, tokens.reshape(b * k, length))
        context = weigh(condition.context, weights.reshape(b * k, length))
        return condition._replace(context=context.reshape(b, k * length, -1))

    def encoded(
        self, params: Any, tokens: Int[Array, "n l"], dtype: DTypeLike
    ) -> dict[str, Float[Array, "n ..."]]:
        """What is kept of captions that are read once and for all, as inputs by name."""
        condition = self.module.apply({"params": params}, tokens)
        found = zip(ENCODED_CAPTION, (condition.context, condition.pooled), strict=True)
        return {name: array.astype(dtype) for name, array in found if array is not None}


@dataclass(frozen=True)
class CaptionMap:
    """A picture drawn from the states of all of a caption's words, for the U-Net to start from."""

    name: str
    module: nn.Module

    def init(self, key: Key[Array, ""], inputs: Inputs, before: Condition) -> Any:
        return self.module.init(key, inputs["caption"], before.context)["params"]

    def __call__(
        self, params: Any, inputs: Inputs, before: Condition, encoder: Encoder
    ) -> Condition:
        drawn = self.module.apply({"params": params}, inputs["caption"], before.context)
        return Condition(concat=drawn)


@dataclass(frozen=True)
class Label:
    """The `label` as it is, for the U-Net's own class embedding; has no parameters."""

    name: str

    def init(self, key: Key[Array, ""], inputs: Inputs, before: Condition) -> Any:
        return {}

    def __call__(
        self, params: Any, inputs: Inputs, before: Condition, encoder: Encoder
    ) -> Condition:
        return Condition(label=inputs["label"])


@dataclass(frozen=True)
class ClassToken:
    """A learned context of one token for each class; the last class is the unconditional one."""

    name: str
    module: nn.Module

    def init(self, key: Key[Array, ""], inputs: Inputs, before: Condition) -> Any:
        return self.module.init(key, inputs["label"])["params"]

    def __call__(
        self, params: Any, inputs: Inputs, before: Condition, encoder: Encoder
    ) -> Condition:
        return Condition(context=self.module.apply({"params": params}, inputs["label"]))


class ClassEmbedding(nn.Module):
    """One token for each class."""

    class_count: int
    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, labels: Int[Array, " b"]) -> Float[Array, "b 1 d"]:
        init = nn.initializers.normal(1.0)
        embedding = Embed(
            self.class_count, self.width, dtype=self.dtype, embedding_init=init, name="embedding"
        )
        return embedding(labels)[:, None]


def run(
    conditioners: Sequence[Conditioner],
    params: Mapping[str, Any],
    inputs: Inputs,
    encoder: Encoder,
) -> Condition:
    """What all `conditioners`, whose parameters `params` has by name, make of `inputs`."""
    condition = Condition()
    for conditioner in conditioners:
        own = params.get(conditioner.name, {})
        condition = condition.joined(conditioner(own, inputs, condition, encoder))
    return condition
