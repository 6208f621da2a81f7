"""A model, loaded from any form it may have on disk and ready to draw pictures."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int, UInt8, UInt32

import ldm_jax
from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.config.request import IMAGES_PER_PROMPT, check_numbers
from ldm_jax.core.sharding import to_global
from ldm_jax.core.typing import Level
from ldm_jax.generation import defaults
from ldm_jax.generation.conditions import InputGroup
from ldm_jax.generation.defaults import NOTHING, Picture, check_picture
from ldm_jax.generation.loaded import LoadedModel
from ldm_jax.images import masks
from ldm_jax.models.conditioners import Condition, Inputs


def image_numbers(
    conditions: int, num: int = 1, first_prompt: int = 0, first_image: int = 0
) -> UInt32[np.ndarray, "n"]:
    """The number of each picture, on which its noise depends: image j of prompt p has
    `p * IMAGES_PER_PROMPT + j`, whatever else is drawn.

    `num` images for each of so many conditions, those of one condition side by side. Raises
    ConfigError where two would have the same.
    """
    check_numbers(conditions, num, first_prompt, first_image)
    prompts = np.arange(first_prompt, first_prompt + conditions, dtype=np.uint32)
    images = np.arange(first_image, first_image + num, dtype=np.uint32)
    return (prompts[:, None] * np.uint32(IMAGES_PER_PROMPT) + images[None]).reshape(-1)


def versions() -> dict[str, str]:
    """Versions of what decides a picture's bits, and the devices it is drawn on."""
    devices = jax.devices()
    return (
        {"ldm_jax": ldm_jax.__version__}
        | {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
        | {"devices": f"{len(devices)} x {devices[0].device_kind}"}
    )


class Drawn(NamedTuple):
    """One batch of drawings."""

    rows: Int[np.ndarray, "n"]
    """Which of the conditions they are for."""
    images: UInt8[np.ndarray, "n h w c"] | Float32[np.ndarray, "n zh zw z"]
    """Or scaled latents, where nothing is decoded."""
    previews: UInt8[np.ndarray, "n k h w c"] | None = None
    """What each was to become, as the model saw it at k moments from first to last."""


class Pipeline(LoadedModel):
    """A loaded model as a function from captions, or other conditions, to images."""

    @classmethod
    def open(cls, choice: cfg.ModelChoice) -> "Pipeline":
        """The model that a request names; raises as `LoadedModel` does."""
        names = (
            "weights", "variant", "tokenizer", "prediction", "original_config", "vae",
            "text_encoder",
        )  # fmt: skip
        choices = {name: getattr(choice, name) for name in names}
        return cls(
            choice.model, dtype=choice.dtype, clip_skip=choice.clip_skip,
            tile_textures=choice.tileable, emphasis=not choice.literal_prompts,
            weak_model=choice.weak_model, classifier=choice.classifier,
            **{name: value for name, value in choices.items() if value is not None},
        )  # fmt: skip

    def generate(
        self,
        conditions: Sequence[str | int | None],
        *,
        sampling: cfg.Sampling,
        num: int = 1,
        first_prompt: int = 0,
        first_image: int = 0,
        negative: str | int | None = None,
        picture: Picture = NOTHING,
        progress: Callable[[int], None] = lambda images: None,
        decode: bool = True,
    ) -> UInt8[np.ndarray, "n h w c"] | Float32[np.ndarray, "n zh zw z"]:
        """All that `draw` gives, in the order of `conditions`, those of one side by side.

        `progress` is told after each batch how many images it brought.
        """
        images: list[Any] = [None] * (len(conditions) * num)
        drawn = self.draw(
            conditions, sampling=sampling, num=num, first_prompt=first_prompt,
            first_image=first_image, negative=negative, picture=picture, decode=decode,
        )  # fmt: skip
        for batch in drawn:
            for row, image in zip(batch.rows, batch.images, strict=True):
                images[row] = image
            progress(len(batch.rows))
        return np.stack(images)

    def draw(
        self,
        conditions: Sequence[str | int | None],
        *,
        sampling: cfg.Sampling,
        num: int = 1,
        first_prompt: int = 0,
        first_image: int = 0,
        negative: str | int | None = None,
        picture: Picture = NOTHING,
        decode: bool = True,
        previews: int = 0,
    ) -> Iterator[Drawn]:
        """`num` images for each condition, or with `decode` off scaled latents, batch by batch.

        An image depends on its condition, the seed and its number (`image_numbers`): conditions
        are the prompts from `first_prompt` on, their images those from `first_image` on, as the
        command line counts them. A caption that is listed twice is two prompts. Batches are drawn
        on as many of the devices as can share one equally. With `previews`, so many predictions
        of each image on the way are kept and decoded (fewer where there are fewer evaluations),
        which is another program.

        Raises:
            cfg.ConfigError: settings, or a `picture`, that this model cannot have.
            NonFiniteError: says which network failed.
        """
        index = image_numbers(len(conditions), num, first_prompt, first_image)
        sampling = self.check(conditions, sampling, num, negative, picture)
        conditions = [condition for condition in conditions for _ in range(num)]
        labels, conditions = self.guide_models.labels(conditions, self.config)
        guided = sampling.guidance_scale != 1
        for group in self._inputs(conditions, negative):
            for rows, count in _batches(group.rows, defaults.batch_size(self.config, sampling)):
                images, seen = self._draw_batch(
                    group, rows, index, sampling, guided, picture, decode, labels, previews
                )
                seen = None if seen is None else seen[:count]
                yield Drawn(rows[:count], images[:count], seen)

    def check(
        self,
        conditions: Sequence[str | int | None],
        sampling: cfg.Sampling,
        num: int = 1,
        negative: str | int | None = None,
        picture: Picture = NOTHING,
    ) -> cfg.Sampling:
        """`sampling` settled, for a drawing that is possible; nothing is computed.

        Raises:
            cfg.ConfigError, ValueError: what cannot be drawn, as in `draw`; what conditions say is
                checked by `check_conditions`.
        """
        settled = self.settle(sampling, picture)
        if negative and settled.guidance_scale == 1:
            raise cfg.ConfigError(
                f"negative_prompt is {negative!r}, but guidance_scale is 1, with which nothing "
                "leads away from it"
            )
        check_picture(self.config, settled, picture, len(conditions) * num)
        self.guide_models.check(settled, conditions)
        return settled

    def invert(
        self,
        images: UInt8[np.ndarray, "n h w 3"],
        conditions: Sequence[str | int | None],
        *,
        sampling: cfg.Sampling,
    ) -> Float32[np.ndarray, "n zh zw z"]:
        """Noise from which `draw` with the same conditions and settings draws `images` again.

        By DDIM's steps upwards (`ldm_jax.sampling.loop.invert`), along the levels of `sampling`,
        without guidance; it comes back up to the error of as many steps. It is of about unit
        variance, as `Picture.noise` has to be.

        Raises:
            cfg.ConfigError: settings with which nothing can be inverted, or images of another
                size than theirs.
        """
        sampling = defaults.settle_inversion(self.config, sampling, textures=self._textures)
        wanted = (len(conditions), sampling.height, sampling.width)
        if images.shape[:3] != wanted:
            raise cfg.ConfigError(
                f"the images have shape {images.shape}; for these conditions and settings it must "
                f"be {(*wanted, 3)}"
            )
        path = defaults.path(self.config, self.model.process, sampling)
        size = defaults.batch_size(self.config, sampling)
        found: list[Any] = [None] * len(conditions)
        for inputs in self._inputs(conditions, None):
            for rows, count in _batches(inputs.rows, size):
                noise = self._invert_batch(inputs.of(rows), images[rows], path)
                for row, one in zip(rows[:count], noise[:count], strict=True):
                    found[row] = one
        return np.stack(found)

    def _draw_batch(
        self,
        group: InputGroup,
        rows: np.ndarray,
        index: np.ndarray,
        sampling: cfg.Sampling,
        guided: bool,
        picture: Picture,
        decode: bool,
        labels: np.ndarray | None,
        previews: int,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The images, or latents, of `rows`, all drawn together, and their previews."""
        size = len(rows)
        mesh = self._mesh(size)
        params, frozen = self._place(mesh)
        index = index[rows]
        with jax.set_mesh(mesh):
            start, shown = self._start(mesh, frozen, picture, rows, index, sampling)
            inputs = group.of(rows) | shown
            cond, uncond = self._condition(mesh, params, frozen, inputs), None
            if guided:
                inputs |= group.negative(size)
                uncond = self._condition(mesh, params, frozen, inputs)
            numbers = defaults.guidance_numbers(self.config, sampling)
            guiding = self.guide_models.arguments(
                *to_global(mesh, (group.of(rows), None if labels is None else labels[rows]))
            )
            eta = None if sampling.eta is None else jnp.float32(sampling.eta)
            path = defaults.path(self.config, self.model.process, sampling, picture)
            latents, x0s = self._programs.run(
                "the U-Net", self._draw_program(sampling, previews), params, cond, uncond,
                to_global(mesh, index), start, np.uint32(sampling.seed), eta, path, numbers,
                guiding,
            )  # fmt: skip
            if not decode:
                return np.asarray(latents), None
            images = self._decode(frozen, latents, sampling.tile)
            if x0s is None or not len(x0s):
                return images, None
            return images, np.stack([self._decode(frozen, x0, sampling.tile) for x0 in x0s], 1)

    def _invert_batch(self, inputs: Inputs, images: np.ndarray, path: Level) -> np.ndarray:
        """The noise of `images`, all inverted together."""
        mesh = self._mesh(len(images))
        params, frozen = self._place(mesh)

        def encode(frozen: Any, images: Array) -> Array:
            # Nothing but the mean of the posterior is one picture's alone.
            shape = self.model.latent_shape_of(*images.shape[1:3])
            zeros = jnp.zeros((len(images), *shape), jnp.float32)
            return self.model.encode(frozen, ldm.to_pixels(images), zeros)

        def invert(params: Any, condition: Condition, latents: Array, path: Level) -> Array:
            return ldm.invert(self.model, params, condition, latents, path)

        with jax.set_mesh(mesh):
            condition = self._condition(mesh, params, frozen, inputs)
            encoder = self._programs.get(("encode", "mean"), lambda: encode)
            given = to_global(mesh, images)
            latents = self._programs.run("the encoder", encoder, frozen, given)
            program = self._programs.get("invert", lambda: invert)
            return np.asarray(
                self._programs.run("the U-Net", program, params, condition, latents, path)
            )

    def _start(
        self,
        mesh: Mesh,
        frozen: Any,
        picture: Picture,
        rows: np.ndarray,
        index: np.ndarray,
        sampling: cfg.Sampling,
    ) -> tuple[ldm.Start, dict[str, Any]]:
        """What `draw` starts from, and the inputs of a model that is shown the picture."""
        noise = None if picture.noise is None else to_global(mesh, picture.noise[rows])
        if picture.image is None:
            return ldm.Start(noise=noise), {}
        pixels = picture.image.astype(np.float32) / 127.5 - 1
        latents = self._encode(mesh, frozen, pixels, "image", index, sampling.seed)
        if picture.mask is None:
            return ldm.Start(noise=noise, latents=latents), {}
        partly = sampling.strength < 1
        mask = masks.latent_mask(picture.mask, self.config.autoencoder.factor)
        mask = np.repeat(mask[None, ..., None], len(rows), axis=0)
        start = ldm.Start(noise=noise, latents=latents if partly else None)
        if not defaults.is_inpainting(self.config):
            return start._replace(original=latents, mask=to_global(mesh, mask)), {}
        shape = self.model.latent_shape_of(sampling.height, sampling.width)
        kept = masks.masked_pixels(pixels, picture.mask)
        return start, {
            "mask": mask,
            "masked_image": kept[None],  # one for all
            "masked_image_noise": np.asarray(
                ldm.noise_of(sampling.seed, "sample/masked", jnp.asarray(index), shape)
            ),
        }

    def _encode(
        self, mesh: Mesh, frozen: Any, pixels: np.ndarray, name: str, index: np.ndarray, seed: int
    ) -> Array:
        """Scaled latents of one picture, for each image from a posterior sample of its own."""

        def encode(frozen: Any, pixels: Array, index: Array, seed: Array) -> Array:
            shape = self.model.latent_shape_of(*pixels.shape[1:3])
            noise = ldm.noise_of(seed, f"sample/{name}", index, shape)
            return jnp.broadcast_to(self.model.encode(frozen, pixels, noise), noise.shape)

        program = self._programs.get(("encode", name), lambda: encode)
        return self._programs.run(
            "the encoder", program, frozen, pixels[None], to_global(mesh, index), np.uint32(seed)
        )

    def _draw_program(self, sampling: cfg.Sampling, previews: int) -> Callable[..., Any]:
        """The compiled sampler: a new one only for another size, number of levels or previews, or
        for settings that are no numbers."""
        shape = self.model.latent_shape_of(sampling.height, sampling.width)
        # All that the program knows of the settings; their numbers are its arguments.
        fixed = replace(sampling.program, height=None, width=None)

        def make() -> Callable[..., Any]:
            def draw(
                params, cond, uncond, index, start, seed, eta, path, numbers, guiding
            ):  # fmt: skip
                solver = defaults.solver(self.model.process, fixed, eta)
                guidance = self.guide_models.guidance(
                    guiding, numbers, fixed.guidance_schedule, fixed.classifier_form
                )
                return ldm.sample_latents(
                    self.model, params, cond, uncond, solver=solver, levels=path,
                    seed=seed, index=index, shape=shape, start=start, guidance=guidance,
                    resample=fixed.resample, jump=fixed.resample_jump, previews=previews,
                )  # fmt: skip

            return draw

        return self._programs.get(("draw", fixed, shape, previews), make)


def _batches(rows: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """`rows` in batches that are filled up to `size` with repetitions, and how many are real."""
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        yield np.resize(some, size), len(some)
