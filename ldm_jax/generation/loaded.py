"""A model of any form on disk with its parameters on the devices: it conditions and decodes."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, UInt8

from ldm_jax import config as cfg
from ldm_jax import convert
from ldm_jax import latent_diffusion as ldm
from ldm_jax.core.sharding import make_mesh, replicated, to_global
from ldm_jax.generation import defaults
from ldm_jax.generation.conditions import InputGroup, encode_conditions, open_tokenizer
from ldm_jax.generation.defaults import NOTHING, Picture
from ldm_jax.generation.guide_models import GuideModels, check_weaker
from ldm_jax.generation.programs import Programs
from ldm_jax.generation.tiles import decode_tiled
from ldm_jax.models.conditioners import Condition, Inputs
from ldm_jax.models.tileable import tileable

COPIERS = 4
"""Threads that bring parameters to the devices."""
PIXELS_AT_ONCE = 2**19
"""Pixels that are decoded together."""


class LoadedModel:
    """Model, parameters and tokenizer of a work directory, a model folder or a single file."""

    def __init__(
        self,
        path: str | Path,
        *,
        dtype: str | None = None,
        clip_skip: int | None = None,
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
            clip_skip: how many layers from CLIP's end the context of prompts, negative ones too, is
                taken; 1 is as trained.
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
        self.origin, self.notes = loaded.origin, loaded.notes
        self.dtype = dtype or loaded.origin.get("dtype", "float32")
        self.config = defaults.skip_layers(loaded.config, clip_skip)
        if not emphasis:
            defaults.require_emphasis(self.config)
        self.model = ldm.build(self.config, self.dtype)
        self.devices = list(devices or jax.local_devices())
        self.params = _stored(loaded.params, self.dtype, self.devices)
        # The first stage is not safe in float16.
        first = "float32" if self.dtype == "float16" else self.dtype
        self.frozen = _stored(loaded.frozen, first, self.devices)
        self.tokenizer = open_tokenizer(self.config.conditioners, loaded.tokenizer, path)
        self.emphasis = emphasis
        self.guide_models = GuideModels.read(
            self.config, loaded.tokenizer, self.dtype, weak_model, classifier
        )
        if self.guide_models.weak is not None:
            check_weaker(self.guide_models.weak, self.params)
        self._textures = tile_textures
        self._programs = Programs(self.dtype, tileable if tile_textures else nullcontext)
        self._placed: dict[Mesh, Any] = {}

    def settle(self, sampling: cfg.Sampling, picture: Picture = NOTHING) -> cfg.Sampling:
        """`sampling` with the usual values of this model, and of those that guide it, where none
        were given; see `defaults.settle`.

        Raises:
            cfg.ConfigError: settings that this model, or this sampler, cannot have.
        """
        sampling = self.guide_models.settle(sampling)
        return defaults.settle(self.config, sampling, picture, textures=self._textures)

    def check_conditions(
        self, conditions: Sequence[str | int | None], negative: str | int | None = None
    ) -> None:
        """Raises ValueError when this model, or its classifier, takes no such values."""
        self.guide_models.check_conditions(conditions)
        _, own = self.guide_models.labels(conditions, self.config)
        self._inputs(own, negative)

    def _inputs(
        self, conditions: Sequence[str | int | None], negative: str | int | None
    ) -> list[InputGroup]:
        return encode_conditions(
            self.config.conditioners, self.tokenizer, conditions, negative, self.emphasis
        )

    def decode(
        self, latents: Float32[np.ndarray, "n zh zw z"], tile: int | None = None
    ) -> UInt8[np.ndarray, "n h w c"]:
        """Images of scaled latents, such as `draw` gives with `decode` off."""
        mesh = self._mesh(len(latents))
        _, frozen = self._place(mesh)
        with jax.set_mesh(mesh):
            return self._decode(frozen, to_global(mesh, latents), tile)

    def _mesh(self, size: int) -> Mesh:
        """As many of the devices as can share `size` examples equally."""
        return make_mesh(cfg.Mesh(), self.devices[: math.gcd(size, len(self.devices))])

    def _place(self, mesh: Mesh) -> tuple[Any, Any]:
        """Parameters and first stage, whole on each device of `mesh`; brought there once."""
        if mesh not in self._placed:
            self._placed[mesh] = jax.device_put((self.params, self.frozen), replicated(mesh))
        return self._placed[mesh]

    def _condition(self, mesh: Mesh, params: Any, frozen: Any, inputs: Inputs) -> Condition:
        program = self._programs.get("condition", lambda: self.model.condition)
        # What has one row serves all examples, whole on every device.
        placed = {n: to_global(mesh, rows) if len(rows) > 1 else rows for n, rows in inputs.items()}
        return self._programs.run("what encodes the condition", program, params, frozen, placed)

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

        program = self._programs.get(("decode", tile), lambda: decode)
        # In parts: the decoder's memory is many times that of the U-Net.
        pixels = latents.shape[1] * latents.shape[2] * factor**2
        at_once = len(latents.sharding.device_set) * max(1, PIXELS_AT_ONCE // pixels)
        images = []
        for begin in range(0, len(latents), at_once):
            some = latents[begin : begin + at_once]
            pixels = self._programs.run("the decoder", program, frozen, some)
            images.append(np.asarray(jax.jit(ldm.to_images)(pixels)))
        return np.concatenate(images)


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
