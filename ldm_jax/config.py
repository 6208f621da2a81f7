"""All that a run needs, as frozen dataclasses that check themselves when they are made.

`configs/*.py` build them, `train.py` overrides single fields from the command line, and every
checkpoint carries them as JSON. Importing this module imports neither JAX nor Flax, so that
`--help` answers at once.
"""

import dataclasses
import difflib
import json
import runpy
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


class ConfigError(ValueError):
    """A setting, or a relation between settings, that cannot work."""


def _require(ok: bool, where: str, value: object, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"{where} is {value!r}; it must be {allowed}")


def _require_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(value > 0, f"{type(config).__name__}.{name}", value, "greater than 0")


def _require_fraction(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(0 <= value <= 1, f"{type(config).__name__}.{name}", value, "between 0 and 1")


# ---------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class DigitScenes:
    """The embedded dataset of composed handwriting; see `ldm_jax.data.digit_scenes`."""

    data_dir: str = "data"
    """Where the built dataset lies; it is built there if it is absent."""
    max_digits: int = 3
    """Only scenes of at most this many digits are used."""

    def __post_init__(self) -> None:
        _require(
            self.max_digits in (1, 2, 3), "DigitScenes.max_digits", self.max_digits, "1, 2 or 3"
        )


@dataclass(frozen=True)
class ImageFolder:
    """A folder of images: class subfolders, `metadata.jsonl`, or a `.txt` beside each image."""

    path: str = ""
    resize: Literal["shorter_side", "exact"] = "shorter_side"
    """`shorter_side` keeps the shape and leaves the rest to the crop; `exact` distorts."""
    crop: Literal["center", "random"] = "center"
    flip: bool = False
    """Mirror half of the training images left to right."""
    on_broken: Literal["stop", "skip"] = "stop"
    """What an unreadable image does to the run; skipped ones are named and counted."""
    validation_fraction: float = 0.05
    """Share of the images kept for validation, chosen by a hash of the name."""

    def __post_init__(self) -> None:
        _require_fraction(self, "validation_fraction")


@dataclass(frozen=True)
class Data:
    source: DigitScenes | ImageFolder = field(default_factory=DigitScenes)
    image_size: int = 32
    """Height and width of the training images in pixels."""
    batch_size: int = 64
    """Examples per optimiser step, over all devices and accumulation steps."""
    workers: int = 0
    """Loader processes; 0 loads in threads of the training process."""

    def __post_init__(self) -> None:
        _require_positive(self, "image_size", "batch_size")
        _require(self.workers >= 0, "data.workers", self.workers, "0 or more")
        if isinstance(self.source, DigitScenes):
            sizes = (16, 32, 64)
            _require(
                self.image_size in sizes, "data.image_size", self.image_size, f"one of {sizes}"
            )


# -------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class Autoencoder:
    """KL autoencoder; the factor between pixels and latents is `patch_size * 2**(levels - 1)`."""

    image_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    mid_attention: bool = True
    patch_size: int = 1
    """Pixels folded into channels before the first convolution, and back after the last."""
    latent_scale: float | None = None
    """What latents are multiplied by; None measures 1/std on the first global batch."""

    def __post_init__(self) -> None:
        _require_positive(
            self, "image_channels", "latent_channels", "layers_per_block", "patch_size"
        )
        _require_groups("Autoencoder", self.block_out_channels, self.norm_num_groups)
        if self.latent_scale is not None:
            _require_positive(self, "latent_scale")

    @property
    def factor(self) -> int:
        """Pixels per latent along one side."""
        return self.patch_size * 2 ** (len(self.block_out_channels) - 1)


@dataclass(frozen=True)
class UNet:
    """Denoising U-Net. Tuples have one entry for each level, finest first."""

    in_channels: int = 4
    out_channels: int = 4
    concat_channels: int = 0
    """Channels of a spatial condition that is concatenated to the latents."""
    patch_size: int = 1
    """Latents folded into channels before the first convolution, and back after the last."""
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    attention: tuple[bool, ...] = (True, True, True, False)
    attention_kind: Literal["transformer", "plain"] = "transformer"
    """`plain` is self-attention alone; `transformer` adds cross-attention and feed-forward."""
    transformer_layers: int = 1
    num_heads: tuple[int, ...] = (8, 8, 8, 8)
    use_linear_projection: bool = False
    """Linear layers around the transformer (SD 2) instead of 1x1 convolutions (SD 1)."""
    context_dim: int | None = 768
    """Width of the cross-attention context; None: the second attention attends to itself."""
    pooled_dim: int | None = None
    """Width of a pooled condition that is added to the time embedding."""
    class_count: int | None = None
    """Number of classes embedded into the time embedding, the unconditional one included."""
    time_scale_shift: bool = False
    """FiLM: the time embedding scales and shifts, instead of being added."""
    norm_num_groups: int = 32
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _require_positive(self, "in_channels", "out_channels", "layers_per_block", "patch_size")
        _require_groups("UNet", self.block_out_channels, self.norm_num_groups)
        _require_fraction(self, "dropout")
        levels = len(self.block_out_channels)
        for name in ("attention", "num_heads"):
            value = getattr(self, name)
            _require(len(value) == levels, f"UNet.{name}", value, f"a tuple of {levels} entries")
        for channels, heads in zip(self.block_out_channels, self.num_heads, strict=True):
            _require(
                heads > 0 and channels % heads == 0,
                "UNet.num_heads",
                self.num_heads,
                f"divisors of block_out_channels {self.block_out_channels}",
            )
        if self.attention_kind == "plain":
            allowed = "None when attention_kind is 'plain', which has no cross-attention"
            _require(self.context_dim is None, "UNet.context_dim", self.context_dim, allowed)

    @property
    def factor(self) -> int:
        """What the sides of the latents must be divisible by."""
        return self.patch_size * 2 ** (len(self.block_out_channels) - 1)


@dataclass(frozen=True)
class TextTransformer:
    """A text encoder that is trained together with the U-Net."""

    vocab_size: int = 256
    max_length: int = 32
    width: int = 128
    layers: int = 2
    num_heads: int = 4
    pooled_dim: int | None = 256
    """Width of the pooled vector read off all positions; None: no pooled vector."""
    map_size: int | None = None
    """Height and width of a map drawn from all positions, which is concatenated to latents of
    that size; None: no map."""
    map_channels: int = 8
    map_width: int = 1024
    """Hidden units of the map."""

    def __post_init__(self) -> None:
        _require_positive(self, "vocab_size", "max_length", "width", "num_heads", "map_channels",
                          "map_width")  # fmt: skip
        if self.map_size is not None:
            _require_positive(self, "map_size")
        _require(self.width % self.num_heads == 0, "TextTransformer.num_heads", self.num_heads,
                 f"a divisor of width {self.width}")  # fmt: skip


@dataclass(frozen=True)
class CLIPText:
    """CLIP's text encoder; the defaults are ViT-L/14, as in Stable Diffusion 1."""

    vocab_size: int = 49408
    max_length: int = 77
    width: int = 768
    layers: int = 12
    num_heads: int = 12
    intermediate: int = 3072
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    skip_last: int = 0
    """How many of the last layers are skipped; 1 is the penultimate output of SD 2."""

    def __post_init__(self) -> None:
        _require_positive(self, "vocab_size", "max_length", "width", "layers", "num_heads")
        _require(self.width % self.num_heads == 0, "CLIPText.num_heads", self.num_heads,
                 f"a divisor of width {self.width}")  # fmt: skip
        _require(0 <= self.skip_last < self.layers, "CLIPText.skip_last", self.skip_last,
                 f"between 0 and {self.layers - 1}")  # fmt: skip


@dataclass(frozen=True)
class Unconditional:
    """No condition."""


@dataclass(frozen=True)
class ClassCondition:
    """A class label, embedded into the time embedding or as a context of one token."""

    num_classes: int = 10
    dropout: float = 0.1
    """Share of training examples whose class is replaced by the unconditional one."""
    context_dim: int | None = None
    """Width of the class token; None: the class joins the time embedding."""

    def __post_init__(self) -> None:
        _require_positive(self, "num_classes")
        _require_fraction(self, "dropout")


@dataclass(frozen=True)
class TextCondition:
    """A caption, tokenised and encoded."""

    encoder: TextTransformer | CLIPText = field(default_factory=TextTransformer)
    tokenizer: Literal["word", "bpe"] = "word"
    """What captions are cut into; the tokenizer is made from the training captions."""
    dropout: float = 0.1
    """Share of training examples whose caption is replaced by the empty one."""

    def __post_init__(self) -> None:
        _require_fraction(self, "dropout")


# ---------------------------------------------------------------------------------- objectives


@dataclass(frozen=True)
class AutoencoderLoss:
    """Terms of stage one, each a mean per pixel or per latent, with their weights."""

    l1_weight: float = 1.0
    l2_weight: float = 0.0
    kl_weight: float = 1e-6

    def __post_init__(self) -> None:
        _require(self.l1_weight + self.l2_weight > 0, "loss.l1_weight", self.l1_weight,
                 "positive unless l2_weight is")  # fmt: skip


@dataclass(frozen=True)
class Diffusion:
    """The forward process and what the network predicts."""

    num_timesteps: int = 1000
    schedule: Literal["linear", "scaled_linear", "cosine"] = "scaled_linear"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    prediction: Literal["eps", "x0", "v"] = "eps"
    min_snr_gamma: float | None = None
    """Caps the weight of easy noise levels (Hang 2023); None: the simple loss."""
    map_weight: float = 0.0
    """Weight of the squared distance of the caption's map from the latents."""

    def __post_init__(self) -> None:
        _require_positive(self, "num_timesteps")
        _require(0 < self.beta_start <= self.beta_end < 1, "diffusion.beta_start",
                 self.beta_start, f"in (0, beta_end = {self.beta_end}]")  # fmt: skip


@dataclass(frozen=True)
class Optim:
    """AdamW with a learning-rate schedule, clipping and gradient accumulation."""

    learning_rate: float = 1e-4
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    accumulation: int = 1
    """Micro-batches per optimiser step; the gradients are averaged under `lax.scan`."""
    ema_decay: float | None = 0.9999
    """Upper bound of the parameter average's decay; None keeps no average."""

    def __post_init__(self) -> None:
        _require_positive(self, "learning_rate", "accumulation", "eps")
        _require_fraction(self, "beta1", "beta2")
        _require(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, "0 or more")


@dataclass(frozen=True)
class Mesh:
    """How devices are arranged; -1 takes those that are left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        _require(
            all(n == -1 or n > 0 for n in sizes) and sizes.count(-1) <= 1,
            "mesh",
            sizes,
            "three positive sizes (data, fsdp, tensor), at most one of them -1",
        )


@dataclass(frozen=True)
class Loop:
    """How long a run lasts and what it leaves behind."""

    steps: int = 1000
    seed: int = 0
    log_every: int = 20
    checkpoint_every: int = 500
    keep: int = 2
    """Checkpoints kept beside the best one."""
    validate_every: int = 500
    validation_batches: int = 8
    sample_every: int = 1000
    """Steps between picture grids (reconstructions or samples)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the networks compute in; parameters stay float32."""
    remat: bool = False
    """Recompute each block in the backward pass instead of keeping its activations."""

    def __post_init__(self) -> None:
        _require_positive(
            self, "steps", "log_every", "checkpoint_every", "keep", "validate_every",
            "validation_batches", "sample_every",
        )  # fmt: skip


# ---------------------------------------------------------------------------------------- runs


@dataclass(frozen=True)
class AutoencoderRun:
    """Stage one: an autoencoder trained on images."""

    data: Data
    autoencoder: Autoencoder
    loss: AutoencoderLoss = field(default_factory=AutoencoderLoss)
    optim: Optim = field(default_factory=Optim)
    loop: Loop = field(default_factory=Loop)
    mesh: Mesh = field(default_factory=Mesh)

    def __post_init__(self) -> None:
        _require_accumulation(self.data, self.optim)
        _require_divisible("data.image_size", self.data.image_size,
                           self.autoencoder.factor, "the autoencoder's factor")  # fmt: skip


@dataclass(frozen=True)
class DiffusionRun:
    """Stage two: a diffusion model on the latents of a trained autoencoder."""

    data: Data
    unet: UNet
    condition: Unconditional | ClassCondition | TextCondition = field(default_factory=Unconditional)
    diffusion: Diffusion = field(default_factory=Diffusion)
    optim: Optim = field(default_factory=Optim)
    loop: Loop = field(default_factory=Loop)
    mesh: Mesh = field(default_factory=Mesh)

    def __post_init__(self) -> None:
        _require_accumulation(self.data, self.optim)
        unet, condition = self.unet, self.condition
        if isinstance(condition, Unconditional):
            wants = {"class_count": None, "context_dim": None, "pooled_dim": None}
            wants["concat_channels"] = 0
        elif isinstance(condition, ClassCondition):
            in_context = condition.context_dim is not None
            wants = {
                "class_count": None if in_context else condition.num_classes + 1,
                "context_dim": condition.context_dim,
                "pooled_dim": None,
                "concat_channels": 0,
            }
        else:
            encoder = condition.encoder
            ours = isinstance(encoder, TextTransformer)
            wants = {
                "class_count": None,
                "context_dim": encoder.width,
                "pooled_dim": encoder.pooled_dim if ours else None,
                "concat_channels": encoder.map_channels if ours and encoder.map_size else 0,
            }
        for name, want in wants.items():
            _require(getattr(unet, name) == want, f"unet.{name}", getattr(unet, name),
                     f"{want} to match condition {type(condition).__name__}")  # fmt: skip

    def check_first_stage(self, autoencoder: Autoencoder) -> None:
        """Raises ConfigError unless the U-Net fits the latents of `autoencoder`."""
        channels = autoencoder.latent_channels
        _require(self.unet.in_channels == channels, "unet.in_channels", self.unet.in_channels,
                 f"{channels}, the latent channels of the first stage")  # fmt: skip
        _require_divisible("data.image_size", self.data.image_size,
                           autoencoder.factor * self.unet.factor,
                           "the first stage's factor times the U-Net's")  # fmt: skip
        map_size = getattr(getattr(self.condition, "encoder", None), "map_size", None)
        side = self.data.image_size // autoencoder.factor
        _require(map_size in (None, side), "condition.encoder.map_size", map_size,
                 f"{side}, the side of the latents, or None")  # fmt: skip
        if self.diffusion.map_weight:
            _require(self.unet.concat_channels == channels, "condition.encoder.map_channels",
                     self.unet.concat_channels,
                     f"{channels}, those of the latents, for diffusion.map_weight")  # fmt: skip


Run = AutoencoderRun | DiffusionRun


def load(path: str | Path) -> Run:
    """What `get_config()` of the Python file `path` returns.

    Raises:
        ConfigError: no such file, or no such function in it.
    """
    if not Path(path).is_file():
        raise ConfigError(f"--config={path}: there is no such file; see configs/")
    module = runpy.run_path(str(path))
    if "get_config" not in module:
        raise ConfigError(f"--config={path} defines no get_config()")
    run = module["get_config"]()
    if not isinstance(run, AutoencoderRun | DiffusionRun):
        raise ConfigError(
            f"get_config() of --config={path} returns a {type(run).__name__}; it must return an "
            "AutoencoderRun or a DiffusionRun"
        )
    return run


def _require_groups(name: str, channels: tuple[int, ...], groups: int) -> None:
    _require(
        len(channels) > 0 and groups > 0 and all(c > 0 and c % groups == 0 for c in channels),
        f"{name}.block_out_channels",
        channels,
        f"at least one entry, each a multiple of norm_num_groups {groups}",
    )


def _require_divisible(where: str, value: int, divisor: int, what: str) -> None:
    _require(value % divisor == 0, where, value, f"a multiple of {divisor}, {what}")


def _require_accumulation(data: Data, optim: Optim) -> None:
    _require_divisible("data.batch_size", data.batch_size, optim.accumulation, "optim.accumulation")


# ---------------------------------------------------------------------------------------- JSON

_CLASSES = {
    cls.__name__: cls
    for cls in (
        DigitScenes, ImageFolder, Data, Autoencoder, UNet, TextTransformer, CLIPText,
        Unconditional, ClassCondition, TextCondition, AutoencoderLoss, Diffusion, Optim, Mesh,
        Loop, AutoencoderRun, DiffusionRun,
    )
}  # fmt: skip


def to_json(config: Any) -> str:
    """The config as JSON text; every object names its class under `type`."""
    return json.dumps(_to_dict(config), indent=2) + "\n"


def from_json(text: str) -> Any:
    """The config that `to_json` wrote.

    Raises:
        ConfigError: unknown class, unknown or missing field, a value of the wrong type, or
            whatever the config's own checks refuse.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"the config is not valid JSON: {error}") from error
    return _from_dict(value, "config")


def _to_dict(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {f.name: _to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__} | fields
    return list(value) if isinstance(value, tuple) else value


def _from_dict(value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        return tuple(value) if isinstance(value, list) else value
    name = value.get("type")
    if name not in _CLASSES:
        raise ConfigError(f"{where}.type is {name!r}; known are {', '.join(_CLASSES)}")
    cls = _CLASSES[name]
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key in value.keys() - {"type"}:
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            hint = f"; perhaps you meant {close[0]!r}" if close else ""
            raise ConfigError(f"{where}.{key} is no field of {name}{hint}")
        arguments[key] = _from_dict(value[key], f"{where}.{key}")
        _check_type(arguments[key], hints[key], f"{where}.{key}")
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _check_type(value: Any, hint: Any, where: str) -> None:
    """Raises ConfigError unless `value` is of the annotated type `hint`."""
    if not _matches(value, hint):
        raise ConfigError(f"{where} is {value!r}; it must be of type {hint}")


def _matches(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, tuple) and all(_matches(v, args[0]) for v in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
