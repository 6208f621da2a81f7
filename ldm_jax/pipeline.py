"""A model, loaded from any form it may have on disk and ready to draw pictures."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, UInt8, UInt32

import ldm_jax
from ldm_jax import config as cfg
from ldm_jax import convert, masks, settings
from ldm_jax import latent_diffusion as ldm
from ldm_jax.conditions import Inputs, encode_conditions, open_tokenizer
from ldm_jax.helpers import Helpers
from ldm_jax.models.conditioners import Condition
from ldm_jax.models.tileable import tileable
from ldm_jax.settings import NOTHING, Picture, check_picture
from ldm_jax.sharding import make_mesh, replicated, to_global
from ldm_jax.tiles import decode_tiled

IMAGES_PER_PROMPT = 1 << 16
"""Image j of prompt p has index `p * IMAGES_PER_PROMPT + j`, whatever else is drawn."""
COPIERS = 4
"""Threads that bring parameters to the devices."""
PIXELS_AT_ONCE = 2**19
"""Pixels that are decoded together."""


class NonFiniteError(ValueError):
    """A network gave infinity or no number."""


def versions() -> dict[str, str]:
    """Versions of what decides a picture's bits, and the devices it is drawn on."""
    devices = jax.devices()
    return (
        {"ldm_jax": ldm_jax.__version__}
        | {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
        | {"devices": f"{len(devices)} x {devices[0].device_kind}"}
    )


class Pipeline:
    """Model, parameters and tokenizer of a work directory, a model folder or a single file."""

    def __init__(
        self,
        path: str | Path,
        *,
        dtype: str | None = None,
        clip_skip: int = 1,
        tile_textures: bool = False,
        emphasis: bool = True,
        devices: Sequence[jax.Device] | None = None,
        weak_model: str | Path | None = None,
        classifier: str | Path | None = None,
        **choices: Any,
    ) -> None:
        """Loads `path`.

        Args:
            path: whatever `convert.load` reads.
            dtype: what the networks compute in; None is that of training, or float32.
            clip_skip: how many layers from CLIP's end the context is taken; 1 is as trained.
            tile_textures: pictures whose opposite edges fit each other.
            emphasis: whether brackets in prompts are syntax (CLIP's text encoder only).
            devices: those of this process to draw on; None is all of them.
            weak_model: a weaker model of the same task, for autoguidance.
            classifier: the work directory of a classifier that guides.
            choices: further arguments of `convert.load`: `weights`, `tokenizer`, ….

        Raises:
            FileNotFoundError, ValueError: nothing that can be read; the text says what and why.
        """
        loaded = convert.load(path, **choices)
        if not isinstance(loaded.config, cfg.Model):
            raise cfg.ConfigError(
                f"{path} holds a first stage alone, not a diffusion model; name the work "
                "directory, folder or file of a whole model"
            )
        self.origin = loaded.origin
        self.dtype = dtype or loaded.origin.get("dtype", "float32")
        self.config = _skip_layers(loaded.config, clip_skip)
        self.model = ldm.build(self.config, self.dtype)
        self.devices = list(devices or jax.local_devices())
        self.params = _stored(loaded.params, self.dtype, self.devices)
        # The first stage is not safe in float16.
        first = "float32" if self.dtype == "float16" else self.dtype
        self.frozen = _stored(loaded.frozen, first, self.devices)
        self.tokenizer = open_tokenizer(self.config.condition, loaded.tokenizer, path)
        self.emphasis = emphasis
        self.helpers = Helpers.read(
            self.config, loaded.tokenizer, self.dtype, weak_model, classifier
        )
        self._around = tileable if tile_textures else nullcontext
        self._programs: dict[Any, Callable[..., Any]] = {}
        self._placed: dict[Mesh, Any] = {}

    def settle(self, sampling: cfg.Sampling) -> cfg.Sampling:
        """`sampling` with this model's usual values where none were given; see `settings.settle`.

        Raises:
            cfg.ConfigError: settings that this model, or this sampler, cannot have.
        """
        return settings.settle(self.config, sampling, textures=self._around is tileable)

    def check_conditions(self, conditions: Sequence[str | int | None]) -> None:
        """Raises ValueError when this model is not conditioned on such values."""
        self._inputs(conditions, None)

    def _inputs(
        self, conditions: Sequence[str | int | None], negative: str | int | None
    ) -> list[Inputs]:
        return encode_conditions(
            self.config.condition, self.tokenizer, conditions, negative, self.emphasis
        )

    # ----------------------------------------------------------------------------- drawing

    def generate(
        self,
        conditions: Sequence[str | int | None],
        index: UInt32[np.ndarray, "n"] | None = None,
        *,
        sampling: cfg.Sampling,
        negative: str | int | None = None,
        picture: Picture = NOTHING,
        progress: Callable[[int], None] = lambda images: None,
        decode: bool = True,
    ) -> UInt8[np.ndarray, "n h w c"] | Float32[np.ndarray, "n zh zw z"]:
        """All that `draw` gives, in the order of `conditions`.

        `progress` is told after each batch how many images it brought.
        """
        images: list[Any] = [None] * len(conditions)
        drawn = self.draw(
            conditions, index, sampling=sampling, negative=negative, picture=picture, decode=decode
        )
        for rows, batch in drawn:
            for row, image in zip(rows, batch, strict=True):
                images[row] = image
            progress(len(rows))
        return np.stack(images)

    def draw(
        self,
        conditions: Sequence[str | int | None],
        index: UInt32[np.ndarray, "n"] | None = None,
        *,
        sampling: cfg.Sampling,
        negative: str | int | None = None,
        picture: Picture = NOTHING,
        decode: bool = True,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """One image for each condition, or with `decode` off its scaled latents, batch by batch.

        Yields the rows of `conditions` that a batch holds, and their images. Image i depends on
        its condition, seed and `index[i]`. Batches are drawn on as many of the devices as can
        share one equally.

        Raises:
            cfg.ConfigError: settings, or a `picture`, that this model cannot have.
            NonFiniteError: says which network failed.
        """
        sampling = self.settle(sampling)
        check_picture(self.config, sampling, picture, len(conditions))
        self.helpers.check(sampling, conditions)
        labels, conditions = self.helpers.labels(conditions, self.config.condition)
        if index is None:
            index = np.arange(len(conditions), dtype=np.uint32)
        guided = sampling.guidance_scale != 1 and not isinstance(
            self.config.condition, cfg.Unconditional
        )
        for inputs in self._inputs(conditions, negative):
            for rows, count in _batches(inputs.rows, settings.batch_size(self.config, sampling)):
                batch = self._draw_batch(
                    inputs, rows, index, sampling, guided, picture, decode, labels
                )
                yield rows[:count], batch[:count]

    def decode(
        self, latents: Float32[np.ndarray, "n zh zw z"], tile: int | None = None
    ) -> UInt8[np.ndarray, "n h w c"]:
        """Images of scaled latents, such as `draw` gives with `decode` off."""
        mesh = make_mesh(cfg.Mesh(), self.devices[: math.gcd(len(latents), len(self.devices))])
        _, frozen = self._place(mesh)
        with jax.set_mesh(mesh):
            return self._decode(frozen, to_global(mesh, latents), tile)

    def _draw_batch(
        self,
        inputs: Inputs,
        rows: np.ndarray,
        index: np.ndarray,
        sampling: cfg.Sampling,
        guided: bool,
        picture: Picture,
        decode: bool,
        labels: np.ndarray | None,
    ) -> np.ndarray:
        """The images, or latents, of `rows`, all drawn together."""
        size = len(rows)
        mesh = make_mesh(cfg.Mesh(), self.devices[: math.gcd(size, len(self.devices))])
        params, frozen = self._place(mesh)
        index = index[rows]
        with jax.set_mesh(mesh):
            condition = self._condition(mesh, params, *inputs.of(rows))
            nothing = self._condition(mesh, params, *inputs.negative(size)) if guided else None
            start, concat = self._start(mesh, frozen, picture, rows, index, sampling)
            if concat is not None:
                condition = condition._replace(concat=concat)
                nothing = nothing and nothing._replace(concat=concat)
            scalars = np.uint32(sampling.seed), np.float32(sampling.guidance_scale)
            numbers = settings.guidance_numbers(self.config, sampling)
            helping = self.helpers.arguments(
                *to_global(mesh, (*inputs.of(rows), None if labels is None else labels[rows]))
            )
            eta = None if sampling.eta is None else jnp.float32(sampling.eta)
            path = settings.path(self.config, self.model.process, sampling, picture)
            latents = self._run(
                "the U-Net", self._draw_program(sampling), params, condition, nothing,
                to_global(mesh, index), start, *scalars, eta, path, numbers, helping,
            )  # fmt: skip
            return self._decode(frozen, latents, sampling.tile) if decode else np.asarray(latents)

    def _condition(self, mesh: Mesh, params: Any, inputs: Any, weights: Any) -> Condition:
        program = self._program("condition", lambda: self.model.condition)
        arguments = to_global(mesh, (inputs, weights))
        return self._run("the text encoder", program, params, *arguments)

    def _start(
        self,
        mesh: Mesh,
        frozen: Any,
        picture: Picture,
        rows: np.ndarray,
        index: np.ndarray,
        sampling: cfg.Sampling,
    ) -> tuple[ldm.Start, Array | None]:
        """What `draw` starts from, and what is concatenated for a U-Net that paints."""
        noise = None if picture.noise is None else to_global(mesh, picture.noise[rows])
        if picture.image is None:
            return ldm.Start(noise=noise), None
        pixels = picture.image.astype(np.float32) / 127.5 - 1
        latents = self._encode(mesh, frozen, pixels, "image", index, sampling.seed)
        partly = sampling.strength < 1
        if picture.mask is None:
            return ldm.Start(noise=noise, latents=latents), None
        mask = masks.latent_mask(picture.mask, self.config.autoencoder.factor)
        mask = to_global(mesh, np.repeat(mask[None, ..., None], len(rows), axis=0))
        start = ldm.Start(noise=noise, latents=latents if partly else None)
        if not settings.paints(self.config):
            return start._replace(known=latents, mask=mask), None
        kept = masks.masked_pixels(pixels, picture.mask)
        masked = self._encode(mesh, frozen, kept, "masked", index, sampling.seed)
        return start, jnp.concatenate([mask, masked], axis=-1)

    def _encode(
        self, mesh: Mesh, frozen: Any, pixels: np.ndarray, name: str, index: np.ndarray, seed: int
    ) -> Array:
        """Scaled latents of one picture, for each image from a posterior sample of its own."""

        def encode(frozen: Any, pixels: Array, index: Array, seed: Array) -> Array:
            shape = self.model.latent_shape_of(*pixels.shape[1:3])
            noise = ldm.noise_of(seed, f"sample/{name}", index, shape)
            return jnp.broadcast_to(self.model.encode(frozen, pixels, noise), noise.shape)

        program = self._program(("encode", name), lambda: encode)
        return self._run(
            "the encoder", program, frozen, pixels[None], to_global(mesh, index), np.uint32(seed)
        )

    def _decode(
        self, frozen: Any, latents: Array, tile: int | None
    ) -> UInt8[np.ndarray, "b h w c"]:
        factor = self.config.autoencoder.factor

        def decode(frozen: Any, latents: Array) -> Array:
            def plain(latents: Array) -> Array:
                return self.model.decode(frozen, latents)

            if tile is None:
                return plain(latents)
            return decode_tiled(plain, latents, tile // factor, tile // factor // 4, factor)

        program = self._program(("decode", tile), lambda: decode)
        # In parts: the decoder's memory is many times that of the U-Net.
        pixels = latents.shape[1] * latents.shape[2] * factor**2
        at_once = len(latents.sharding.device_set) * max(1, PIXELS_AT_ONCE // pixels)
        images = []
        for begin in range(0, len(latents), at_once):
            pixels = self._run("the decoder", program, frozen, latents[begin : begin + at_once])
            images.append(np.asarray(jax.jit(ldm.to_images)(pixels)))
        return np.concatenate(images)

    # ---------------------------------------------------------------------------- programs

    def _draw_program(self, sampling: cfg.Sampling) -> Callable[..., Any]:
        """The compiled sampler, of the list of levels and eta; a new one only for another solver,
        another number of levels or another size."""
        shape = self.model.latent_shape_of(sampling.height, sampling.width)
        how = (sampling.guidance_schedule, sampling.classifier_form)
        again = sampling.resample, sampling.resample_jump
        steps = sampling.sampler, sampling.corrector, sampling.corrector_steps, sampling.snr
        key = ("draw", steps, shape, how, again)

        def make() -> Callable[..., Any]:
            def draw(
                params, condition, nothing, index, start, seed, guidance_scale, eta, path,
                numbers, helping,
            ):  # fmt: skip
                solver = settings.solver(self.model.process, sampling, eta)
                guides = self.helpers.guides(helping, numbers, *how)
                return ldm.draw(
                    self.model, params, condition, nothing, solver=solver, levels=path,
                    seed=seed, index=index, guidance_scale=guidance_scale, shape=shape,
                    start=start, guides=guides, resample=again[0], jump=again[1],
                )  # fmt: skip

            return draw

        return self._program(key, make)

    def _program(self, key: Any, make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        """The function that `make` makes, compiled, with whether all its results are finite."""
        if key not in self._programs:
            function = make()

            @jax.jit
            def program(*arguments: Any) -> tuple[Any, Array]:
                with self._around():
                    result = function(*arguments)
                return result, _finite(result)

            self._programs[key] = program
        return self._programs[key]

    def _run(self, stage: str, program: Callable[..., Any], *arguments: Any) -> Any:
        """The program's result.

        Raises:
            NonFiniteError: it has infinities or NaNs.
        """
        result, finite = program(*arguments)
        if not bool(finite):
            advice = {
                "float16": "; try --dtype=bfloat16 or --dtype=float32",
                "bfloat16": "; try --dtype=float32",
            }
            raise NonFiniteError(
                f"{stage} gave values that are not finite, computing in {self.dtype}"
                + advice.get(self.dtype, "; are the weights damaged?")
            )
        return result

    def _place(self, mesh: Mesh) -> tuple[Any, Any]:
        """Parameters and first stage, whole on each device of `mesh`; brought there once."""
        if mesh not in self._placed:
            self._placed[mesh] = jax.device_put((self.params, self.frozen), replicated(mesh))
        return self._placed[mesh]


def _stored(tree: Any, dtype: str, devices: Sequence[jax.Device]) -> Any:
    """All leaves on each of `devices`: matrices in `dtype`, vectors and scalars in float32.

    A few leaves at a time, so that there is never a second copy of all.
    """
    everywhere = replicated(make_mesh(cfg.Mesh(), devices))

    def put(leaf: Any) -> Array:
        copy = convert.materialize(leaf, dtype if np.ndim(leaf) > 1 else "float32")
        return jax.device_put(copy, everywhere)

    leaves, structure = jax.tree.flatten(tree)
    # Copies turn kernels around; numpy does that without holding Python's lock.
    with ThreadPoolExecutor(COPIERS) as pool:
        return structure.unflatten(list(pool.map(put, leaves)))


def _finite(tree: Any) -> Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in leaves], bool))


def _batches(rows: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """`rows` in batches that are filled up to `size` with repetitions, and how many are real."""
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        yield np.resize(some, size), len(some)


def _skip_layers(config: cfg.Model, clip_skip: int) -> cfg.Model:
    """`config` with a text encoder that stops `clip_skip` - 1 layers earlier than in training."""
    if clip_skip == 1:
        return config
    encoder = getattr(config.condition, "encoder", None)
    if not isinstance(encoder, cfg.CLIPText):
        raise cfg.ConfigError("clip_skip is for models with CLIP's text encoder; leave it out")
    most = encoder.layers - encoder.skip_last
    if not 1 <= clip_skip <= most:
        raise cfg.ConfigError(f"clip_skip is {clip_skip}; it must lie in 1..{most}")
    encoder = replace(encoder, skip_last=encoder.skip_last + clip_skip - 1)
    return replace(config, condition=replace(config.condition, encoder=encoder))
