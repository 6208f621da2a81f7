"""One model in memory, whatever file it came from: its config, its parameters, its tokenizer."""

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from ldm_jax import config as cfg
from ldm_jax.core import tree
from ldm_jax.models.build import (
    build_autoencoder,
    build_code_transformer,
    build_conditioner,
    build_control,
    build_unet,
)
from ldm_jax.models.conditioners import Condition

DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
"""What weights may be stored in."""

Dtype = str | None
"""A key of `DTYPES`; None keeps each array's own."""


CHOOSE = "say which to python -m ldm_jax.convert, whose target every command reads, with "
"""Before an option that only `python -m ldm_jax.convert` is sure to have."""


class ConvertError(ValueError):
    """A model that cannot be read, or not be written in the form that is asked for."""


@dataclass(frozen=True)
class Imported:
    """One model, or a first stage alone.

    The leaves are numpy arrays in the layout of this project's modules: float32, float16 or
    bfloat16 as they were stored, read-only views of mapped files wherever that is possible. The
    files must stay as they are until the leaves are copied; `materialize` does that.
    """

    config: cfg.Model | cfg.Autoencoder
    """An `Autoencoder` where the file holds a first stage alone."""
    params: dict[str, Any]
    """`{"unet", "conditioners"}`, these by name; {} for a first stage alone."""
    frozen: dict[str, Any]
    """`{"autoencoder", "latent_scale"}`; without `latent_scale` where that is not known, and with
    `latent_mean` and `latent_std` where channels are normalised."""
    tokenizer: Path | None = None
    """Folder with the tokenizer's files, or one `tokenizer.json`; None where there is none."""
    origin: dict[str, Any] = field(default_factory=dict)
    """Where it came from: `source`, `kind`, `weights` (ema or raw), …; JSON."""
    ignored: dict[str, str] = field(default_factory=dict)
    """Tensors of the source that are not used, and why."""
    notes: tuple[str, ...] = ()
    """What a user should know about this conversion."""

    @property
    def autoencoder(self) -> cfg.FirstStage:
        """The first stage's config."""
        whole = isinstance(self.config, cfg.Model)
        return self.config.autoencoder if whole else self.config

    def components(self) -> dict[str, dict[str, Any]]:
        """Parameters by component: `unet`, `autoencoder` and each conditioner by its name, such as
        `text_encoder`; empty ones left out."""
        unet = {"unet": self.params["unet"]} if self.params else {}
        parts = {
            **unet, **self.params.get("conditioners", {}),
            "autoencoder": self.frozen["autoencoder"],
        }  # fmt: skip
        return {name: part for name, part in parts.items() if part}


def codebook(size: int | None) -> cfg.KL | cfg.VQ:
    """The bottleneck of a published first stage of `size` vectors, or of none.

    Files do not say how vectors were trained; the published ones were with `legacy`.
    """
    return cfg.KL() if size is None else cfg.VQ(size, weighting="legacy")


def architecture_of(config: cfg.FirstStage) -> cfg.FirstStage:
    """A first stage without what tensors do not tell: latent scale, how vectors were trained."""
    if isinstance(config, cfg.Pixels):
        return config
    if isinstance(config.bottleneck, cfg.VQ):
        vq = config.bottleneck
        same = replace(codebook(vq.size), cosine=vq.cosine, code_dim=vq.code_dim)
        config = replace(config, bottleneck=same)
    return replace(config, **NOT_NORMALIZED)


def unet_in_shapes(config: cfg.UNet) -> cfg.UNet:
    """A U-Net without what tensors do not tell: heads, dropout, and which levels attend to the
    context alone where it is as wide as the level."""
    widths = config.block_out_channels
    only = tuple(
        crosses and config.context_dim not in (None, width)
        for crosses, width in zip(config.only_cross_attention, widths, strict=False)
    )
    return replace(
        config, num_heads=(1,) * len(widths), dropout=0.0,
        only_cross_attention=only if any(only) else (),
    )  # fmt: skip


def conditioners_in_shapes(parts: tuple[cfg.Conditioner, ...]) -> tuple[cfg.Conditioner, ...]:
    """Conditioners without what tensors do not tell: how training makes their inputs and drops
    them, what classes are called, and the levels of noise that are used."""
    return tuple(map(_conditioner_in_shapes, parts))


def _conditioner_in_shapes(part: cfg.Conditioner) -> cfg.Conditioner:
    match part:
        case cfg.InpaintingConditioner(form=form):
            return cfg.InpaintingConditioner(form)
        case cfg.LowResConditioner(noise=None):
            return cfg.LowResConditioner()
        case cfg.LowResConditioner(noise=noise):
            return cfg.LowResConditioner(noise=noise_levels(noise.process))
        case cfg.ClassMapConditioner(maps=maps, channels=channels):
            return class_map(maps.num_classes, channels)
        case cfg.LayoutConditioner(tokens=tokens):
            tokens = layout_tokens(tokens.vocab_size, tokens.length)
            return replace(part, tokens=tokens, class_names=(), dropout=0.0)
        case cfg.EditConditioner():
            return cfg.EditConditioner()
        case cfg.TextConditioner():
            return replace(part, dropout=0.0, tags=None, extra_words=())
        case cfg.ClassConditioner():
            return replace(part, dropout=0.0)
    return part


USUAL_LEVEL = 20
"""Of noise on a low-resolution image, where nobody asks for another."""


def noise_levels(process: cfg.Discrete, trained: int = 350) -> cfg.NoiseAugmentation:
    """Noise on a low-resolution image of which no more is known."""
    trained = min(trained, process.num_timesteps)
    return cfg.NoiseAugmentation(process, trained, min(USUAL_LEVEL, trained - 1))


def class_map(num_classes: int, channels: int) -> cfg.ClassMapConditioner:
    """A class map of which no more is known."""
    ignore = 255 if num_classes <= 255 else None
    return cfg.ClassMapConditioner(cfg.ClassMaps(num_classes, ignore), (), channels, dropout=0.0)


def layout_tokens(vocab_size: int, length: int) -> cfg.LayoutTokens:
    """Boxes of which no more is known: their classes are the tokens themselves.

    Raises:
        ConvertError: no layout has `length` tokens.
    """
    objects, corners = divmod(length, 3)
    if not objects or corners == 1:
        raise ConvertError(f"{length} tokens are no layout, which has 3 for each box, or 2 more")
    grid = math.isqrt(vocab_size - 1)
    return cfg.LayoutTokens(
        vocab_size - 1, (), objects, grid, vocab_size, crop=corners == 2, too_many="stop"
    )


NOT_NORMALIZED: dict[str, Any] = {"latent_scale": None, "latent_mean": (), "latent_std": ()}
"""The fields of an `Autoencoder` that say how its latents are normalised, saying nothing."""


def normalization(config: cfg.FirstStage) -> dict[str, np.ndarray]:
    """How its latents are normalised, as `frozen` has it; {} where that is not known yet."""
    said = {name: getattr(config, name) for name in NOT_NORMALIZED}
    return {
        n: np.asarray(value, np.float32) for n, value in said.items() if value not in (None, ())
    }


def make(
    config: cfg.Model | cfg.Autoencoder, components: Mapping[str, Any], **rest: Any
) -> Imported:
    """The bundle of `config`, which says how latents are normalised, and its components' trees."""
    whole = isinstance(config, cfg.Model)
    frozen = {"autoencoder": components.get("autoencoder", {})}
    frozen |= normalization(config.autoencoder if whole else config)
    params = {}
    if whole:
        names = [part.name for part in config.conditioners]
        params = {
            "unet": components["unet"],
            "conditioners": {name: components[name] for name in names if components.get(name)},
        }
    return Imported(config, params, frozen, **rest)


def normalized(config: cfg.FirstStage, frozen: Mapping[str, Any]) -> cfg.FirstStage:
    """`config` with what `frozen` has of its latents' normalisation said, where training measured
    it."""
    if config.latent_scale is not None:
        return config
    found = {name: np.asarray(frozen[name]).tolist() for name in NOT_NORMALIZED if name in frozen}
    return replace(config, **{n: tuple(v) if isinstance(v, list) else v for n, v in found.items()})


def shapes(config: cfg.Model | cfg.Autoencoder | cfg.CodeModel) -> dict[str, Any]:
    """The tree of each component that `config` describes, with shapes for leaves."""
    text = cfg.find(getattr(config, "conditioners", ()), cfg.TextConditioner)
    shapes = {
        name: component_shapes(part, text) for name, part in component_configs(config).items()
    }
    return {name: part for name, part in shapes.items() if part}


def component_configs(config: cfg.Model | cfg.Autoencoder | cfg.CodeModel) -> dict[str, Any]:
    """The config of each component: `unet`, `autoencoder` and the conditioners by their names; of a
    model of codes `transformer`, `autoencoder` and, if it has one, `condition_stage`."""
    if isinstance(config, cfg.CodeModel):
        names = "transformer", "autoencoder", "condition_stage"
        return {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    if isinstance(config, cfg.Autoencoder):
        return {"autoencoder": config}
    return {
        "unet": config.unet, **{part.name: part for part in config.conditioners},
        "autoencoder": config.autoencoder,
    }  # fmt: skip


def component_shapes(
    config: cfg.UNet | cfg.ControlBranch | cfg.CodeTransformer | cfg.Conditioner | cfg.FirstStage,
    text: cfg.TextConditioner | None = None,
) -> dict[str, Any]:
    """The tree of one component, with shapes for leaves; `text` is the model's text encoder, which
    other conditioners may build on."""
    match config:
        case cfg.UNet():
            return unet_shapes(config)
        case cfg.ControlBranch():
            return control_shapes(config)
        case cfg.Autoencoder() | cfg.Pixels():
            return autoencoder_shapes(config)
        case cfg.CodeTransformer():
            return code_transformer_shapes(config)
    return conditioner_shapes(config, text)


@lru_cache(maxsize=16)
def autoencoder_shapes(config: cfg.FirstStage) -> dict[str, Any]:
    """Shapes of the first stage's parameters; {} for pixels."""
    side = config.factor
    return _init_shapes(build_autoencoder(config), _floats(side, side, config.image_channels))


@lru_cache(maxsize=16)
def code_transformer_shapes(config: cfg.CodeTransformer) -> dict[str, Any]:
    """Shapes of the parameters of a transformer over codes."""
    return _init_shapes(build_code_transformer(config), _numbers(1))


@lru_cache(maxsize=16)
def unet_shapes(config: cfg.UNet) -> dict[str, Any]:
    """Shapes of the U-Net's parameters."""
    return _init_shapes(build_unet(config), *_unet_inputs(config))


@lru_cache(maxsize=16)
def control_shapes(config: cfg.ControlBranch) -> dict[str, Any]:
    """Shapes of a ControlNet's parameters."""
    side = config.unet.factor // config.unet.patch_size * config.hint_factor
    hint = _floats(side, side, config.hint_channels)
    return _init_shapes(build_control(config), *_unet_inputs(config.unet), hint)


def _unet_inputs(config: cfg.UNet) -> tuple[Any, ...]:
    """Shapes of noisy latents, time and condition."""
    side = config.factor

    def wide(width: int | None, *shape: int) -> Any:
        return _floats(*shape, width) if width else None

    condition = Condition(
        context=wide(config.context_dim, 1),
        pooled=wide(config.pooled_dim),
        label=_numbers() if config.class_count else None,
        concat=wide(config.concat_channels, side, side),
    )
    return _floats(side, side, config.in_channels), _numbers(), condition


@lru_cache(maxsize=16)
def conditioner_shapes(
    config: cfg.Conditioner, text: cfg.TextConditioner | None = None
) -> dict[str, Any]:
    """Shapes of a conditioner's parameters; {} where it has none."""
    inputs, before = {"label": _numbers(), "class_map": _numbers(1, 1)}, Condition()
    if isinstance(config, cfg.LayoutConditioner):
        inputs |= {"boxes": _numbers(config.tokens.length), "box_map": _numbers(1, 1)}
    text = config if isinstance(config, cfg.TextConditioner) else text
    if text is not None:
        length, width = text.encoder.max_length, text.encoder.width
        inputs["caption"], before = _numbers(length), Condition(context=_floats(length, width))
    init = partial(build_conditioner(config).init, jax.random.key(0))
    return jax.eval_shape(init, inputs, before)


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *shape), jnp.float32)


def _numbers(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *shape), jnp.int32)


def _init_shapes(module: Any, *inputs: Any) -> dict[str, Any]:
    init = partial(module.init, jax.random.key(0))
    return jax.eval_shape(init, *inputs).get("params", {})


def stored(array: np.ndarray, dtype: Dtype = None) -> np.ndarray:
    """`array` in `dtype`; itself where it has that already.

    Raises:
        ConvertError: a value is too large for `dtype`.
    """
    if dtype is None or array.dtype == DTYPES[dtype]:
        return array
    try:
        with np.errstate(over="raise"):
            return np.asarray(array, DTYPES[dtype])
    except FloatingPointError as error:
        raise ConvertError(
            f"a weight is larger than {dtype} can hold; write float32 or bfloat16"
        ) from error


def cast(tensors: Mapping[str, np.ndarray], dtype: Dtype) -> dict[str, np.ndarray]:
    """`tensors` in `dtype`; what is copied is given back to its mapped file."""
    out = {}
    for name, tensor in tensors.items():
        out[name] = stored(tensor, dtype)
        if out[name] is not tensor:
            release(tensor)
    return out


def materialize(leaves: Any, dtype: Dtype = "float32") -> Any:
    """Copies of all leaves, contiguous and in `dtype`, made one after the other.

    Pages of mapped files are given back as they are copied, so that source and copy are never in
    memory together.
    """
    return jax.tree.map(partial(_copy, dtype=dtype), leaves)


def _copy(array: Any, dtype: Dtype) -> np.ndarray:
    array = np.asarray(array)
    # A transposed copy reads here and there, which the file's disk would follow place by place.
    _advise(array, "MADV_WILLNEED")
    copy = np.array(stored(array, dtype), order="C", copy=True)
    release(array)
    return copy


def release(array: np.ndarray) -> None:
    """Gives the memory of an array on a mapped file back; it is read again when it is used."""
    _advise(array, "MADV_DONTNEED")


def _advise(array: np.ndarray, advice: str) -> None:
    """Tells the system how a mapped file's pages below `array` will be used, if it has any."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not hasattr(mmap, advice) or array.size == 0:
        return
    low, high = np.lib.array_utils.byte_bounds(array)
    begin = np.frombuffer(base, np.uint8, 1).__array_interface__["data"][0]
    first = (low - begin) // mmap.PAGESIZE * mmap.PAGESIZE
    base.madvise(getattr(mmap, advice), first, high - begin - first)


def count(imported: Imported) -> dict[str, int]:
    """Number of parameters of each component."""
    return {name: tree.count(part) for name, part in imported.components().items()}
