"""Writes what a first stage makes of a data set's images, and a text encoder of its captions, for
stage two to train from.

Processes need not speak with each other: each writes the shards that are its own, and what is
there already stays. What is written depends on neither their number nor the batch size.
"""

import importlib.metadata
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt8

import ldm_jax
from ldm_jax import config as cfg
from ldm_jax.config.checks import require, require_divisible
from ldm_jax.convert.parts import FirstStage, read_first_stage
from ldm_jax.core.progress import Progress
from ldm_jax.core.sharding import batch_sharding, make_mesh, replicated
from ldm_jax.data.buckets import buckets_of
from ldm_jax.data.encoded_latents import (
    Index,
    Kind,
    begin,
    bucket_folder,
    encoder_hash,
    write_shard,
)
from ldm_jax.data.inputs import size_of
from ldm_jax.data.loader import in_order
from ldm_jax.data.sources import DataError, Example, Source, Split, open_source
from ldm_jax.generation.caption_encoder import CaptionEncoder
from ldm_jax.models.autoencoder import Autoencoder
from ldm_jax.models.bottlenecks import Gaussian
from ldm_jax.models.build import build_autoencoder
from ldm_jax.models.pixels import to_pixels

_WHERE = ("path", "data_dir", "validation_path", "index")


class NonFiniteLatents(ValueError):
    """An encoder gave infinity or no number."""


@dataclass(frozen=True)
class Storage:
    """How encoded images are kept."""

    what: Literal["latents", "codes"] = "latents"
    """Moments of the posterior (or latents before quantisation), or numbers of code vectors."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the stored latents and text states; codes are int32."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """What the encoders compute in."""
    shard_size: int = 4096
    """Images in one file; a file that is interrupted is begun again."""
    batch_size: int = 32
    """Images that are encoded at once, over all devices of a process."""


@dataclass(frozen=True)
class Written:
    """What one call did."""

    images: int
    """That were encoded; those of shards that were there already are not counted."""
    seconds: float
    missing: int
    """Shards that other processes have still to write."""

    @property
    def rate(self) -> float:
        """Images per second, reading and compiling included."""
        return self.images / max(self.seconds, 1e-9)


def encode(
    first_stage: str,
    data: cfg.Data,
    splits: Sequence[Split],
    out: Path,
    storage: Storage,
    text_encoder: str | None = None,
    **processes: int,
) -> dict[str, Written]:
    """Encodes splits of a data set with the first stage of any model, and captions with the text
    encoder of any; see `encode_split`.

    Raises:
        ConfigError: codes of a first stage that has none, or a text encoder without captions or
            without a tokenizer.
    """
    _check_still(data)
    stage = read_first_stage(first_stage)
    captions = None if text_encoder is None else CaptionEncoder.read(text_encoder)
    encoder = Encoder(stage, storage, captions)
    sources = {split: open_source(data, split) for split in splits}
    if captions is not None and not all(one.has_captions for one in sources.values()):
        raise cfg.ConfigError(
            f"--text_encoder={text_encoder}: the images have no captions; put them into "
            "metadata.jsonl, metadata.csv, or a .txt beside each image"
        )
    # Splits of one folder say the same of it.
    for found in dict.fromkeys(source.found for source in sources.values()):
        print(f"data: {found}", flush=True)
    return {
        split: encode_split(stage, data, source, out / split, storage, encoder, **processes)
        for split, source in sources.items()
    }


def encode_split(
    stage: FirstStage,
    data: cfg.Data,
    source: Source,
    folder: Path,
    storage: Storage,
    encode: "Encoder",
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Written:
    """Encodes this process's missing shards of one split, the images of `source`, into `folder`;
    those in buckets into a folder in it for each.

    Raises:
        DataError: the images come augmented, the folder holds another encoding, or an image
            cannot be read.
        ConfigError: the first stage cannot halve the images' sides so often.
        NonFiniteLatents: names the image.
    """
    _check_still(data)
    began = time.perf_counter()
    index = partial(_index, stage, data, source, storage, encode)
    parts = [_Part(folder, index(data.sides, len(source)), range(len(source)), data.sides)]
    if (buckets := buckets_of(source)) is not None:
        parts = [
            _Part(bucket_folder(folder, sides), index(sides, len(rows)), rows, sides)
            for sides, rows in buckets
        ]
    every = []
    for part in parts:
        begin(part.folder, part.index)
        missing = {*part.index.missing(part.folder)}
        every += [(part, shard, shard in missing) for shard in range(part.index.shards)]
    own = every[process_index::process_count]
    todo = [(part, shard) for part, shard, is_missing in own if is_missing]
    images = sum(len(part.index.rows(shard)) for part, shard in todo)
    with Progress(f"encoding {folder.name}", images, images=1) as bar:
        for part, shard in todo:
            rows = [int(part.rows[row]) for row in part.index.rows(shard)]
            examples = in_order(source, data, rows, part.sides)
            write_shard(part.folder, part.index, shard, _encoded(encode, examples, bar))
    left = sum(len(part.index.missing(part.folder)) for part in parts)
    return Written(images, time.perf_counter() - began, left)


class _Part(NamedTuple):
    """The images of a split that are encoded at one size."""

    folder: Path
    index: Index
    rows: Int[np.ndarray, " n"] | range
    """Which of the source's they are."""
    sides: tuple[int, int]


class OnDevices:
    """A function `(params, rows) -> arrays`, compiled for batches of some number of rows on this
    process's devices."""

    def __init__(self, function: Callable[[Any, Array], Any], params: Any, batch_size: int) -> None:
        mesh = make_mesh(cfg.Mesh(), jax.local_devices())
        self.rows = -(-batch_size // mesh.size) * mesh.size
        self._sharding = batch_sharding(mesh)
        self._params = jax.device_put(params, replicated(mesh))
        self._program = jax.jit(function)

    def __call__(self, values: Shaped[np.ndarray, "n ..."]) -> Any:
        """Of at most `rows` rows; it comes as soon as it is begun.

        The last row is repeated to fill a batch.
        """
        full = values[np.minimum(np.arange(self.rows), len(values) - 1)]
        return self._program(self._params, jax.device_put(full, self._sharding))


class Encoder:
    """What encodes examples: a first stage's encoder, and a text encoder where there is one."""

    def __init__(
        self, stage: FirstStage, storage: Storage, captions: CaptionEncoder | None = None
    ) -> None:
        autoencoder = build_autoencoder(stage.config, jnp.dtype(storage.compute))
        self.kind: Kind = _kind(stage.config, storage)
        self.text = None if captions is None else captions.index
        require(self.text is None or self.kind != "codes", "--what", storage.what,
                "latents with --text_encoder")  # fmt: skip
        dtype = jnp.dtype("int32" if self.kind == "codes" else storage.dtype)
        program = partial(encoded, autoencoder, self.kind, dtype)
        self._images = OnDevices(program, stage.params, storage.batch_size)
        self._captions = captions
        self.rows = self._images.rows
        if captions is not None:
            program = partial(captions.encoded, dtype, storage.compute)
            self._tokens = OnDevices(program, captions.params, self.rows)

    def __call__(self, examples: Sequence[Example]) -> dict[str, Array]:
        """The arrays of at most `rows` examples, by name as an `Index` has them."""
        found = {"encoded": self._images(np.stack([one["image"] for one in examples]))}
        if self._captions is not None:
            found |= self._tokens(self._captions.tokens([one["caption"] for one in examples]))
        return found


def encoded(
    autoencoder: Autoencoder,
    kind: Kind,
    dtype: Any,
    params: Any,
    images: UInt8[Array, "b h w 3"],
) -> Float[Array, "b zh zw z"] | Int[Array, "b zh zw"]:
    """What `data.latents` stores of images."""
    variables = {"params": params}
    found = autoencoder.apply(variables, to_pixels(images), method="encode")
    if isinstance(found, Gaussian):
        return jnp.concatenate([found.mean, found.logvar], axis=-1).astype(dtype)
    if kind == "codes":
        codes = autoencoder.apply(variables, found.mode, method=lambda m, z: m.quantize(z).indices)
        return codes.astype(dtype)
    return found.mode.astype(dtype)


def _encoded(encode: Encoder, examples: Iterator[Example], bar: Progress) -> Iterator[Example]:
    """Each example with its arrays. A batch is fetched once the next one has been begun."""
    waiting: tuple[list[Example], dict[str, Array]] | None = None
    while True:
        batch = list(islice(examples, encode.rows))
        begun = (batch, encode(batch)) if batch else None
        if waiting is not None:
            done, arrays = waiting
            arrays = {name: np.asarray(array) for name, array in arrays.items()}
            for row, example in enumerate(done):
                own = {name: array[row] for name, array in arrays.items()}
                for name, array in own.items():
                    _check_finite(name, array, example)
                yield {**example, **own, "size": size_of(example)}
            bar.update(len(done))
        if begun is None:
            return
        waiting = begun


def _check_finite(name: str, array: np.ndarray, example: Example) -> None:
    if not np.isfinite(array).all():
        what = "latents" if name == "encoded" else "text states"
        raise NonFiniteLatents(
            f"the {what} of {example['name']} are not all finite; try --compute=float32, and "
            "check that the first stage reconstructs pictures"
        )


def _check_still(data: cfg.Data) -> None:
    """Raises DataError where training would see an image differently every time."""
    source = data.source
    if isinstance(source, cfg.EncodedLatents):
        raise DataError(
            f"data.source.path={source.path} is already encoded; name the folder of the images"
        )
    if isinstance(source, cfg.DreamBooth):
        raise DataError(
            "subjects with pictures of their classes are trained on as images: encoded ones do not "
            "say which is which; encode a folder of images"
        )
    if isinstance(source, cfg.Mixture):
        raise DataError(
            "a mixture is not encoded: encode each of its sources by itself, and mix the latents"
        )
    if isinstance(source, cfg.FittedPictures) and (source.flip or source.crop == "random"):
        raise DataError(
            f"data.source has crop={source.crop!r} and flip={source.flip}: encoded images cannot "
            "be cropped or mirrored. Encode them with --data.source.crop=center "
            "--data.source.flip=False, or train from the images"
        )


def _kind(config: cfg.Autoencoder, storage: Storage) -> Kind:
    quantised = config.codes is not None
    if storage.what == "latents":
        return "point" if quantised else "gaussian"
    require(quantised, "--what", storage.what, "latents: this first stage has no codes")
    return "codes"


def _index(
    stage: FirstStage,
    data: cfg.Data,
    source: Source,
    storage: Storage,
    encode: Encoder,
    sides: tuple[int, int],
    examples: int,
) -> Index:
    kind = encode.kind
    factor, channels = stage.config.factor, stage.config.latent_channels
    require_divisible("data.image_size", sides, factor, "the first stage's factor")
    last = {"gaussian": (2 * channels,), "point": (channels,), "codes": ()}[kind]
    settings = json.loads(cfg.to_json(data.source))
    return Index(
        encoder=encoder_hash(stage.params),
        source={k: v for k, v in settings.items() if k not in _WHERE},
        fingerprint=source.fingerprint,
        image_size=sides,
        kind=kind,
        dtype="int32" if kind == "codes" else storage.dtype,
        shape=(*(side // factor for side in sides), *last),
        latent_scale=stage.latent_scale,
        compute=storage.compute,
        examples=examples,
        shard_size=storage.shard_size,
        class_names=source.class_names,
        has_captions=source.has_captions,
        text=encode.text,
        versions={
            "ldm_jax": ldm_jax.__version__,
            **{name: importlib.metadata.version(name) for name in ("jax", "array_record")},
        },
    )
