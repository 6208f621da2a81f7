"""Text encoders: CLIP's, and a small one that is trained with the U-Net."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from ldm_jax import config as cfg
from ldm_jax.core.sharding import split_batch
from ldm_jax.models.attention import attention
from ldm_jax.models.conditioners import Condition
from ldm_jax.models.layers import Embed, LayerNorm, ModuleList, gelu, lecun, zeros


def quick_gelu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """x · sigmoid(1.702 x), CLIP's approximation of GELU (Hendrycks & Gimpel 2016)."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": quick_gelu,
    "gelu": gelu,
}


class TextEmbeddings(nn.Module):
    """Token plus learned position embedding."""

    vocab_size: int
    max_length: int
    width: int
    token_stddev: float
    position_stddev: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        if tokens.shape[1] > self.max_length:
            raise ValueError(
                f"{tokens.shape[1]} tokens; the text encoder takes at most {self.max_length}"
            )
        normal = nn.initializers.normal
        embed = partial(Embed, features=self.width, dtype=self.dtype)
        words = embed(
            self.vocab_size, embedding_init=normal(self.token_stddev), name="token_embedding"
        )
        places = embed(
            self.max_length, embedding_init=normal(self.position_stddev), name="position_embedding"
        )
        return words(tokens) + places.first(tokens.shape[1])[None]


class SelfAttention(nn.Module):
    """Multi-head self-attention with biases everywhere, named as in CLIP; to keys that are not
    `seen`, nothing attends."""

    heads: int
    causal: bool
    zero_close: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l d"], seen: Bool[Array, "b l"] | None = None
    ) -> Float[Array, "b l d"]:
        width = x.shape[-1]
        q, k, v = (
            nn.Dense(width, dtype=self.dtype, name=name)(x).reshape(*x.shape[:2], self.heads, -1)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        x = attention(q, k, v, causal=self.causal, seen=seen).reshape(x.shape)
        init = zeros if self.zero_close else lecun
        return nn.Dense(width, dtype=self.dtype, kernel_init=init, name="out_proj")(x)


class MLP(nn.Module):
    """Two dense layers with an activation between them."""

    width: int
    activation: str
    zero_close: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        h = nn.Dense(self.width, dtype=self.dtype, name="fc1")(x)
        init = zeros if self.zero_close else lecun
        close = nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=init, name="fc2")
        return close(ACTIVATIONS[self.activation](h))


class TextLayer(nn.Module):
    """Self-attention and MLP, each normalised before and added."""

    heads: int
    intermediate: int
    activation: str
    causal: bool
    zero_close: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        attend = SelfAttention(
            self.heads, self.causal, self.zero_close, self.dtype, name="self_attn"
        )
        mlp = MLP(self.intermediate, self.activation, self.zero_close, self.dtype, name="mlp")
        x = split_batch(x + attend(LayerNorm(self.dtype, name="layer_norm1")(x)))
        return split_batch(x + mlp(LayerNorm(self.dtype, name="layer_norm2")(x)))


class TextLayers(nn.Module):
    """The stack of layers, as the level `layers`."""

    count: int
    layer: Callable[[], nn.Module]

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        layers = ModuleList((self.layer,) * self.count, name="layers")
        for i in range(self.count):
            x = layers(i, x)
        return x


class CLIPTextStack(nn.Module):
    """CLIP's text model without its outermost level."""

    config: cfg.CLIPText
    dtype: DTypeLike
    remat: bool = False

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        config = self.config
        x = TextEmbeddings(
            config.vocab_size, config.max_length, config.width, 0.02, 0.02, self.dtype,
            name="embeddings",
        )(tokens)  # fmt: skip
        layer = partial(
            nn.remat(TextLayer) if self.remat else TextLayer, config.num_heads,
            config.intermediate, config.activation, True, False, self.dtype,
        )  # fmt: skip
        x = TextLayers(config.layers - config.skip_last, layer, name="encoder")(x)
        return LayerNorm(self.dtype, name="final_layer_norm")(x)


class CLIPTextModel(nn.Module):
    """CLIP's causal text encoder (Radford 2021): every token's state after the final norm.

    The last `config.skip_last` layers are skipped and have no parameters.
    """

    config: cfg.CLIPText
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"]) -> Condition:
        x = CLIPTextStack(self.config, self.dtype, name="text_model")(tokens)
        return Condition(context=x.astype(jnp.float32))


class TextTransformerModel(nn.Module):
    """A bidirectional pre-norm transformer over captions of fixed length, trained from scratch.

    The layers start as the identity, so that a fresh encoder shows the U-Net its token and
    position embeddings as they are. The pooled vector and the map are read off the states of all
    positions side by side: each word at each place has weights of its own, which is learnt long
    before cross-attention finds the word. Padding (token 0) is attended like any word, but left
    out there, where it would drown the few words that differ between captions.
    """

    config: cfg.TextTransformer
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"]) -> Condition:
        config = self.config
        if tokens.shape[1] != config.max_length:
            raise ValueError(
                f"captions of {tokens.shape[1]} tokens; the text encoder takes exactly "
                f"max_length {config.max_length}, padded"
            )
        x = TextEmbeddings(
            config.vocab_size, config.max_length, config.width, 1.0, 0.2, self.dtype,
            name="embeddings",
        )(tokens)  # fmt: skip
        layer = partial(
            TextLayer, config.num_heads, 4 * config.width, "gelu", False, True, self.dtype
        )
        x = TextLayers(config.layers, layer, name="encoder")(x)
        x = LayerNorm(self.dtype, name="final_layer_norm")(x)
        pooled = None
        if config.pooled_dim is not None:
            project = nn.Dense(
                config.pooled_dim, dtype=self.dtype, kernel_init=_loud(config.max_length),
                name="pooled_proj",
            )  # fmt: skip
            pooled = project(side_by_side(tokens, x)).astype(jnp.float32)
        return Condition(context=x.astype(jnp.float32), pooled=pooled)


def side_by_side(tokens: Int[Array, "b l"], states: Float[Array, "b l d"]) -> Float[Array, "b f"]:
    """The states of all positions as one vector: each word at each place then has weights of its
    own, which is learnt long before cross-attention finds the word.

    Padding (token 0) is left out, where it would drown the few words that differ between captions.
    """
    return jnp.where(tokens[:, :, None] == 0, 0, states).reshape(states.shape[0], -1)


def _loud(length: int) -> nn.initializers.Initializer:
    """One word is one of many positions: lecun's scale would make it a whisper."""
    return nn.initializers.variance_scaling(length / 4, "fan_in", "normal")


class CaptionMapModel(nn.Module):
    """A rough picture of the caption for the U-Net to start from: its words put in their places.

    One wide hidden layer over the whole caption, in which words meet the words that say where
    they belong. The output starts near zero: what random features draw would first have to be
    unlearnt, which takes ten times as long.
    """

    config: cfg.CaptionMapConditioner
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "b l"], states: Float[Array, "b l d"]
    ) -> Float[Array, "b h w c"]:
        config, loud = self.config, _loud(tokens.shape[1])
        hidden = nn.Dense(config.width, dtype=self.dtype, kernel_init=loud, name="hidden")
        small = nn.initializers.variance_scaling(0.01, "fan_in", "normal")
        shape = (config.size, config.size, config.channels)
        out = nn.Dense(math.prod(shape), dtype=self.dtype, kernel_init=small, name="out")
        words = side_by_side(tokens, states).astype(self.dtype)
        drawn = out(jax.nn.gelu(hidden(words)))
        return drawn.reshape(-1, *shape).astype(jnp.float32)
