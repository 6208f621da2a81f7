"""A model's networks on the devices, as compiled programs: condition, encode, draw, decode."""

import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, UInt8

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.core.command import FAILED
from ldm_jax.core.sharding import make_mesh, replicated, to_global
from ldm_jax.core.typing import Level
from ldm_jax.generation import defaults
from ldm_jax.generation.control_hints import ControlNumbers
from ldm_jax.generation.guide_models import GuideModels
from ldm_jax.generation.tiles import TiledAutoencoder, TiledUNet
from ldm_jax.models.conditioners import Condition, Hint, Inputs
from ldm_jax.models.pixels import to_images, to_pixels
from ldm_jax.models.tileable import tileable
from ldm_jax.sampling import scan

ADVICE = {
    "float16": "; try --dtype=bfloat16 or --dtype=float32",
    "bfloat16": "; try --dtype=float32",
}
STEPS_TOGETHER = 64
"""Numbers of evaluations up to each multiple of this share a compiled sampler."""
PIXELS_AT_ONCE = 2**19
"""Pixels that are decoded together."""


class NonFiniteError(ValueError):
    """A network gave infinity or no number."""

    status = FAILED


class SamplerRun:
    """The sampler of one batch, which is run whole or in parts; both give the same bits, for the
    same compiled program does both."""

    def __init__(
        self,
        advance: Callable[[scan.State, int, int], scan.State],
        state: scan.State,
        total: int,
        program: Hashable,
    ) -> None:
        """From `state` on; `advance` gives the state after evaluations from one to another.
        `program` is the same for runs of the same compiled program."""
        self._advance, self._state, self.program = advance, state, program
        self.done, self.total = 0, total
        """Evaluations of the network, so far and in all."""

    def advance(self, count: int | None = None) -> None:
        """Makes `count` more evaluations, or as many as are left; None is all of these."""
        end = self.total if count is None else min(self.total, self.done + count)
        if end > self.done:
            self._state = self._advance(self._state, self.done, end)
            self.done = end

    @property
    def x(self) -> Array:
        """Scaled latents at the level reached."""
        return self._state.carry.x

    @property
    def x0(self) -> Array:
        """Scaled latents as the last evaluation predicts them in the end; zero before the first."""
        return self._state.carry.x0

    @property
    def x0s(self) -> Array | None:
        """The predictions that are kept, [k, b, ...]."""
        return self._state.x0s


class Programs:
    """What a model computes, each program compiled once, with the parameters where it runs.

    Every method runs on a mesh of `mesh`, inside `jax.set_mesh`, and raises NonFiniteError where
    results have infinities or NaNs; its text says whose.
    """

    def __init__(
        self,
        model: ldm.LatentDiffusion,
        params: Any,
        frozen: Any,
        guide_models: GuideModels,
        *,
        dtype: str,
        devices: Sequence[jax.Device],
        textures: bool,
    ) -> None:
        """Of `model` with its parameters, and of those that guide it.

        Args:
            model: the model, whose networks compute in `dtype`.
            params: what was trained.
            frozen: the first stage.
            guide_models: with their parameters.
            dtype: named in errors.
            devices: those to run on, or on some of them.
            textures: opposite edges of pictures fit each other.
        """
        self._model, self._guide_models = model, guide_models
        self._everything = params, frozen, guide_models.params
        self._dtype, self._devices, self._textures = dtype, list(devices), textures
        self._placed: dict[Mesh, Any] = {}
        self.compiled: dict[Any, Callable[..., Any]] = {}

    def use(self, params: Any) -> None:
        """Other parameters of the same model in the place of `params`, for whatever begins now."""
        self._everything = params, *self._everything[1:]
        self._placed.clear()

    def mesh(self, size: int) -> Mesh:
        """As many of the devices as can share `size` examples equally."""
        return make_mesh(cfg.Mesh(), self._devices[: math.gcd(size, len(self._devices))])

    def condition(self, mesh: Mesh, inputs: Inputs, tile: int | None) -> Condition:
        """What the U-Net is conditioned on; pictures among `inputs` are encoded in tiles."""
        params, frozen, _ = self._place(mesh)
        # What has one row serves all examples, whole on every device.
        placed = {n: to_global(mesh, rows) if len(rows) > 1 else rows for n, rows in inputs.items()}
        return self._run(
            "what encodes the condition", ("condition", tile),
            lambda: self._tiled(tile).condition, params, frozen, placed,
        )  # fmt: skip

    def hints(
        self,
        mesh: Mesh,
        conditions: ldm.Conditions,
        pictures: Sequence[UInt8[np.ndarray, "h w 3"]],
        numbers: ControlNumbers,
        count: int,
    ) -> ldm.Conditions:
        """The conditions of `count` images with what ControlNets are shown, encoded once."""
        params, *_ = self._place(mesh)
        pixels = [picture[None].astype(np.float32) / 255 for picture in pictures]
        found = self._run(
            "a ControlNet", "hints", lambda: self._model.embed_hints, params, tuple(pixels)
        )

        def rows(array: np.ndarray) -> Array:
            return to_global(mesh, np.repeat(array, count, axis=0))

        features = [rows(np.asarray(one)) for one in found]

        def hints(strengths: Sequence[np.ndarray]) -> tuple[Hint, ...]:
            return tuple(
                Hint(own, rows(strength[None]), rows(times[None]))
                for own, strength, times in zip(features, strengths, numbers.times, strict=True)
            )

        return ldm.with_hints(conditions, hints(numbers.cond), hints(numbers.uncond))

    def encode(
        self,
        mesh: Mesh,
        pixels: np.ndarray,
        stream: str,
        index: np.ndarray,
        seed: int,
        tile: int | None,
    ) -> Array:
        """Scaled latents of one picture, pixels [1, h, w, c] in [-1, 1], for each image of `index`
        from a posterior sample of its own, of the stream of random numbers with that name."""
        model = self._tiled(tile)

        def encode(frozen: Any, pixels: Array, index: Array, seed: Array) -> Array:
            shape = model.latent_shape_of(*pixels.shape[1:3])
            noise = ldm.noise_of(seed, stream, index, shape)
            return jnp.broadcast_to(model.encode(frozen, pixels, noise), noise.shape)

        _, frozen, _ = self._place(mesh)
        return self._run(
            "the encoder", ("encode", stream, tile), lambda: encode,
            frozen, pixels, to_global(mesh, index), np.uint32(seed),
        )  # fmt: skip

    def draw(
        self,
        mesh: Mesh,
        conditions: ldm.Conditions,
        index: np.ndarray,
        start: ldm.Start,
        sampling: cfg.Sampling,
        levels: Level,
        numbers: dict[str, Any],
        guide_inputs: tuple[Inputs, np.ndarray | None],
        previews: int,
    ) -> "SamplerRun":
        """The sampler before its first step: a new program only for another size, number of
        previews, or settings that are no numbers; and for more steps (see STEPS_TOGETHER).

        Args:
            mesh: where.
            conditions: the condition, and those that guidance compares it with.
            index: the images' numbers.
            start: what is drawn from.
            sampling: resolved.
            levels: the noise levels that it visits.
            numbers: as `defaults.guidance_numbers` gives.
            guide_inputs: named inputs for a weaker model, and labels for a classifier.
            previews: how many predictions on the way are kept.
        """
        shape = self._model.latent_shape_of(sampling.height, sampling.width)
        model = self._model
        if sampling.unet_tile is not None:
            side = sampling.unet_tile // model.config.autoencoder.factor
            model = replace(model, unet=TiledUNet(model.unet, side))
        # All that the programs know of the settings; their numbers are arguments.
        fixed = replace(sampling.program, height=None, width=None)

        def drawing(
            levels, params, guide_params, guide_inputs, conditions, index, start, seed, eta,
            numbers,
        ):  # fmt: skip
            solver = defaults.solver(self._model.process, fixed, eta)
            guidance = self._guide_models.guidance(
                guide_params, *guide_inputs, numbers, fixed.guidance_schedule, fixed.classifier_form
            )
            return ldm.drawing(
                model, params, conditions.cond, conditions.uncond, solver=solver, levels=levels,
                seed=seed, index=index, shape=shape, pictured=conditions.pictured, start=start,
                guidance=guidance,
                resample=fixed.resample, jump=fixed.resample_jump,
            )  # fmt: skip

        def start_program(levels: Level, *arguments: Any) -> tuple[scan.State, scan.Path, Array]:
            solver, _, x, levels, _ = drawing(levels, *arguments)
            count = scan.evaluations(solver, levels)
            path = scan.path_along(solver, levels, previews, STEPS_TOGETHER)
            return scan.start(solver, x, count, previews), path, jnp.int32(count)

        def part_program(
            state: scan.State, begin: Array, end: Array, path: scan.Path, *arguments: Any
        ) -> scan.State:
            solver, denoise, _, _, keys = drawing(path.here, *arguments)
            after = scan.advance(solver, denoise, state, path, keys, begin=begin, end=end)
            # What comes out goes in again.
            return jax.lax.with_sharding_constraint(after, shardings)

        params, _, guide_params = self._place(mesh)
        arguments = (
            params, guide_params, to_global(mesh, guide_inputs), conditions,
            to_global(mesh, index), start, np.uint32(sampling.seed),
            None if sampling.eta is None else jnp.float32(sampling.eta), numbers,
        )  # fmt: skip
        key = fixed, shape, previews
        state, path, total = self._run(
            "the U-Net", ("start", *key), lambda: start_program, levels, *arguments
        )
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)

        def advance(state: scan.State, begin: int, end: int) -> scan.State:
            bounds = np.int32(begin), np.int32(end)
            with jax.set_mesh(mesh):
                return self._run(
                    "the U-Net", ("draw", mesh, *key), lambda: part_program, state, *bounds, path,
                    *arguments,
                )  # fmt: skip

        sizes = [np.shape(leaf) for leaf in jax.tree.leaves((path, arguments[2:]))]
        return SamplerRun(advance, state, int(total), program=(mesh, *key, *sizes))

    def decode(self, mesh: Mesh, latents: Array, tile: int | None) -> UInt8[np.ndarray, "b h w c"]:
        """Images of scaled latents, a few at a time: the decoder's memory is many times that of
        the U-Net."""
        _, frozen, _ = self._place(mesh)
        pixels = latents.shape[1] * latents.shape[2] * self._model.config.autoencoder.factor**2
        at_once = len(latents.sharding.device_set) * max(1, PIXELS_AT_ONCE // pixels)
        images = []
        for begin in range(0, len(latents), at_once):
            decoded = self._run(
                "the decoder", ("decode", tile), lambda: self._tiled(tile).decode,
                frozen, latents[begin : begin + at_once],
            )  # fmt: skip
            images.append(np.asarray(jax.jit(to_images)(decoded)))
        return np.concatenate(images)

    def invert(
        self, mesh: Mesh, inputs: Inputs, images: np.ndarray, levels: Level, tile: int | None
    ) -> Array:
        """The noise of uint8 images under the condition of `inputs`, along `levels`."""
        params, frozen, _ = self._place(mesh)

        def encode(frozen: Any, images: Array) -> Array:
            # Nothing but the mean of the posterior is one picture's alone.
            shape = self._model.latent_shape_of(*images.shape[1:3])
            zeros = jnp.zeros((len(images), *shape), jnp.float32)
            return self._tiled(tile).encode(frozen, to_pixels(images), zeros)

        def invert(params: Any, condition: Condition, latents: Array, levels: Level) -> Array:
            return ldm.invert(self._model, params, condition, latents, levels)

        condition = self.condition(mesh, inputs, tile)
        latents = self._run(
            "the encoder", ("encode", "mean", tile), lambda: encode,
            frozen, to_global(mesh, images),
        )  # fmt: skip
        return self._run("the U-Net", "invert", lambda: invert, params, condition, latents, levels)

    def _tiled(self, tile: int | None) -> ldm.LatentDiffusion:
        """The model, whose first stage works in tiles of so many pixels."""
        if tile is None:
            return self._model
        return replace(self._model, autoencoder=TiledAutoencoder(self._model.autoencoder, tile))

    def _place(self, mesh: Mesh) -> Any:
        """All parameters, whole on each device of `mesh`; brought there once."""
        if mesh not in self._placed:
            self._placed[mesh] = jax.device_put(self._everything, replicated(mesh))
        return self._placed[mesh]

    def _run(
        self, stage: str, key: Any, make: Callable[[], Callable[..., Any]], *arguments: Any
    ) -> Any:
        """What the function that `make` makes gives, compiled once for each `key`.

        Raises NonFiniteError where it has infinities or NaNs; `stage` says whose they are.
        """
        if key not in self.compiled:
            function, around = make(), tileable if self._textures else nullcontext

            @jax.jit
            def program(*arguments: Any) -> tuple[Any, Array]:
                with around():
                    result = function(*arguments)
                return result, _finite(result)

            self.compiled[key] = program
        result, finite = self.compiled[key](*arguments)
        if not bool(finite):
            raise NonFiniteError(
                f"{stage} gave values that are not finite, computing in {self._dtype}"
                + ADVICE.get(self._dtype, "; are the weights damaged, or a guidance scale huge?")
            )
        return result


def _finite(tree: Any) -> Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in leaves], bool))
