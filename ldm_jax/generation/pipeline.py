"""A model, loaded from any form it may have on disk and ready to draw pictures."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int, UInt8, UInt32

import ldm_jax
from ldm_jax import config as cfg
from ldm_jax import convert
from ldm_jax import latent_diffusion as ldm
from ldm_jax.adapters.adapted import (
    adapt,
    put_embeddings_beside,
    put_hypernetworks_beside,
    without_hypernetworks,
)
from ldm_jax.config.control_choice import ControlChoice
from ldm_jax.config.request import IMAGES_PER_PROMPT, UnknownWordsChoice, check_numbers
from ldm_jax.convert.controlnets.control_files import read_control
from ldm_jax.core import tree
from ldm_jax.core.sharding import make_mesh, replicated, to_global
from ldm_jax.data.embedding_words import EmbeddingWords
from ldm_jax.data.inputs import drawn_size, empty_views
from ldm_jax.generation import defaults
from ldm_jax.generation.adapter_shelf import AdapterShelf, Worn
from ldm_jax.generation.conditions import (
    NO_PICTURE,
    InputGroup,
    Picture,
    encode_conditions,
    open_tokenizer,
)
from ldm_jax.generation.control_hints import ControlNumbers, control_numbers
from ldm_jax.generation.defaults import Resolved
from ldm_jax.generation.drawing_progress import Moment, Pace, Progress
from ldm_jax.generation.embedding_shelf import EmbeddingShelf
from ldm_jax.generation.guide_models import GuideModels, check_weaker
from ldm_jax.generation.programs import Programs, SamplerRun
from ldm_jax.generation.refusals import check_controls, check_picture
from ldm_jax.images import masks
from ldm_jax.models.build import build_control

COPIERS = 4
"""Threads that bring parameters to the devices."""
TEXT_CHOICES = {
    "clip_skip": (defaults.has_clip, "has no CLIP text encoder"),
    "literal_prompts": (defaults.takes_captions, "takes no prompts"),
    "embeddings_dir": (defaults.takes_captions, "takes no prompts"),
}
"""Choices that not every model has: which have it, and why another does not."""


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


@dataclass(frozen=True, eq=False)
class Plan:
    """A drawing that a model can do: all that is the same for each of its batches, made once."""

    resolved: Resolved
    """Settings, with usual values filled in, and noise levels."""
    numbers: dict[str, Any]
    """Of guidance; see `defaults.guidance_numbers`."""
    index: UInt32[np.ndarray, "n"]
    """The number of each image."""
    num: int
    """Images for each condition."""
    groups: tuple[InputGroup, ...]
    """The conditions as the model takes them."""
    labels: Int[np.ndarray, "c"] | None
    """What a classifier is shown of each condition."""
    picture: Picture
    pixels: Float32[np.ndarray, "h w 3"] | None
    """Of the picture, in [-1, 1]."""
    latent_mask: Float32[np.ndarray, "zh zw"] | None
    control: ControlNumbers | None


class Drawn(NamedTuple):
    """One batch of a drawing."""

    rows: Int[np.ndarray, "n"]
    """Which of all the images they are."""
    images: UInt8[np.ndarray, "n h w c"] | Float32[np.ndarray, "n zh zw z"]
    """Or scaled latents, where nothing is decoded."""
    previews: UInt8[np.ndarray, "n k h w c"] | None = None
    """What each was to become, as the model saw it at k moments from first to last."""


class Pipeline:
    """A model with its tokenizer as a function from captions, or other conditions, to images."""

    def __init__(
        self,
        path: str | Path,
        *,
        devices: Sequence[jax.Device] | None = None,
        optional: Collection[str] = (),
        **choices: Any,
    ) -> None:
        """Loads `path`.

        Args:
            path: whatever `convert.load` reads.
            devices: those of this process to draw on; None is all of them.
            optional: those of TEXT_CHOICES that are left out, with a note, for a model without it.
            choices: the settings of `cfg.ModelChoice`: `dtype`, `weights`, `weak_model`, ….

        Raises:
            FileNotFoundError, ValueError: nothing that can be read; the text says what and why.
        """
        choice = cfg.ModelChoice.of(path, **choices)
        loading = choice.loading()
        bundle = convert.load(
            path, **{n: value for n, value in loading.items() if value is not None}
        )
        if not isinstance(bundle.config, cfg.Model):
            raise cfg.ConfigError(
                f"{path} holds a first stage alone, not a diffusion model; name the work "
                "directory, folder or file of a whole model"
            )
        self.choice, notes = _applicable(choice, bundle.config, optional)
        self._shelf = AdapterShelf(bundle.config, bundle.params, self.choice)
        self._worn = Worn(self.choice.lora, self.choice.hypernetwork)
        self.origin = bundle.origin
        self._controls = [ControlChoice.parse(one) for one in self.choice.control]
        controls = [
            read_control(one.file, bundle.config, bundle.params["unet"]) for one in self._controls
        ]
        told = (f"{one.name}: {note}" for one in controls for note in one.notes)
        self.notes = (*bundle.notes, *notes, *self._shelf.notes, *told)
        self.dtype = choice.dtype or bundle.origin.get("dtype", "float32")
        self.config = defaults.skip_layers(bundle.config, self.choice.clip_skip)
        if self.choice.literal_prompts and not defaults.takes_captions(self.config):
            raise cfg.ConfigError("literal_prompts: this model takes no prompts, so leave it out")
        nets = tuple(build_control(one.config, self.dtype) for one in controls)
        self.model = replace(ldm.build(self.config, self.dtype), controls=nets)
        nets = self._shelf.hypernetworks
        chain = nets.chain(self.choice.hypernetwork)
        self.notes += nets.notes
        self.tokenizer = open_tokenizer(self.config.conditioners, bundle.tokenizer, path)
        self.embeddings = EmbeddingShelf(
            self.config, self.tokenizer, self.choice, self._shelf.bundled()
        )
        self.notes += self.embeddings.notes
        self.tokenizer = self.embeddings.tokenizer
        rows = self.embeddings.rows
        if rows is not None and self.choice.weak_model is not None:
            raise cfg.ConfigError(
                "embeddings: a weak_model does not know their words; leave it out"
            )
        self._bare = self.model
        if chain or rows is not None:
            self.model = adapt(self.model, hypernetworks=[one.form for one, _ in chain])
        self._devices = devices = list(devices or jax.local_devices())
        params = self._shelf.merged(self._worn.lora) if self._worn.lora else bundle.params
        params = put_hypernetworks_beside(params, [(s, one.nets) for one, s in chain])
        if rows is not None:
            params = put_embeddings_beside(params, {"all": rows})
        if controls:
            own = {str(i): one.params for i, one in enumerate(controls)}
            params = {**params, "adapters": {"control": own}}
        self.params = _on_devices(params, self.dtype, devices)
        # The first stage is not safe in float16.
        first_stage = "float32" if self.dtype == "float16" else self.dtype
        self.frozen = _on_devices(bundle.frozen, first_stage, devices)
        self.guide_models = GuideModels.read(
            self.config, bundle.tokenizer, self.dtype, choice.weak_model, choice.classifier
        ).with_params(lambda tree: _on_devices(tree, "float32", devices))
        if self.guide_models.weak is not None:
            check_weaker(self.guide_models.weak, self.params)
        self._textures = choice.tileable
        self.programs = self._programs_of(self.model)
        self._forms = tuple(one.form for one, _ in chain)
        self._of_chains = {self._forms: self.programs}
        self._paces: dict[Any, Pace] = {}

    @classmethod
    def open(cls, choice: cfg.ModelChoice, optional: Collection[str] = ()) -> "Pipeline":
        """The model that a request names; arguments and errors are those of `Pipeline`."""
        choices = {name: value for name, value in vars(choice).items() if value is not None}
        return cls(choices.pop("model"), optional=optional, **choices)

    @property
    def words(self) -> EmbeddingWords | None:
        """The words of prompts that stand for embeddings."""
        return self.embeddings.words

    def rescale(self, control: tuple[str, ...]) -> None:
        """Other scales for the same ControlNets, spelled as in `ModelChoice.control`. Raises
        ConfigError for other ControlNets."""
        choices = [ControlChoice.parse(one) for one in control]
        if [one.file for one in choices] != [one.file for one in self._controls]:
            raise cfg.ConfigError("control: these are other ControlNets; open the model with them")
        self.choice, self._controls = replace(self.choice, control=control), choices

    def unused_embeddings(self, plan: Plan) -> list[str]:
        """The words of the embeddings of the model's choice that no prompt of a plan has."""
        inputs = (one for group in plan.groups for one in (group.inputs, group.uncond))
        return self.embeddings.unused(one["caption"] for one in inputs if "caption" in one)

    def generate(
        self,
        conditions: Sequence[str | int | None],
        *,
        progress: Callable[[int], None] = lambda images: None,
        **how: Any,
    ) -> UInt8[np.ndarray, "n h w c"] | Float32[np.ndarray, "n zh zw z"]:
        """All that `draw` gives, in the order of `conditions`, those of one side by side.

        `how` is as in `draw`; `progress` is called after each batch with the number of its images.
        """
        images: dict[int, Any] = {}
        for batch in self.draw(conditions, **how):
            images |= zip(batch.rows.tolist(), batch.images, strict=True)
            progress(len(batch.rows))
        return np.stack([images[row] for row in sorted(images)])

    def draw(
        self,
        conditions: Sequence[str | int | None],
        *,
        sampling: cfg.Sampling,
        num: int = 1,
        first_prompt: int = 0,
        first_image: int = 0,
        negative: str | int | None = None,
        unknown_words: UnknownWordsChoice = "refuse",
        picture: Picture = NO_PICTURE,
        decode: bool = True,
        previews: int = 0,
    ) -> Iterator[Drawn]:
        """`num` images for each condition, or with `decode` off scaled latents, batch by batch:
        what `run` draws of the plan that `plan` makes.

        Raises:
            cfg.ConfigError, ValueError: as `resolve_sampling` and `plan`.
            NonFiniteError: says which network failed.
        """
        plan = self.plan(
            conditions, self.resolve_sampling(sampling, picture), num=num,
            first_prompt=first_prompt, first_image=first_image, negative=negative,
            unknown_words=unknown_words, picture=picture,
        )  # fmt: skip
        yield from self.run(plan, decode=decode, previews=previews)

    def resolve_sampling(self, sampling: cfg.Sampling, picture: Picture = NO_PICTURE) -> Resolved:
        """`sampling` with the usual values of this model, and of those that guide it, where it has
        none; see `defaults.resolve`.

        Raises:
            cfg.ConfigError: settings that this model, or this sampler, cannot have.
        """
        sampling = self.guide_models.default_scales(sampling)
        return defaults.resolve_sampling(
            self.config, sampling, picture, textures=self.choice.tileable
        )

    def plan(
        self,
        conditions: Sequence[str | int | None],
        resolved: Resolved,
        *,
        num: int = 1,
        first_prompt: int = 0,
        first_image: int = 0,
        negative: str | int | None = None,
        unknown_words: UnknownWordsChoice = "refuse",
        picture: Picture = NO_PICTURE,
    ) -> Plan:
        """A drawing of `num` images for each condition; no network is run.

        An image depends on its condition, the seed and its number (`image_numbers`): conditions
        are the prompts from `first_prompt` on, their images those from `first_image` on, as the
        command line counts them. A caption that is listed twice is two prompts.

        Raises:
            cfg.ConfigError, ValueError: conditions, or a `picture`, that this model cannot have.
        """
        sampling = resolved.sampling
        index = image_numbers(len(conditions), num, first_prompt, first_image)
        if negative and sampling.guidance_scale == 1:
            raise cfg.ConfigError(
                f"negative_prompt is {negative!r}, but guidance_scale is 1, with which it has no "
                "effect; use a larger scale, or leave it out"
            )
        check_picture(self.config, sampling, picture, len(index))
        check_controls(self.model.controls, sampling, picture)
        self.guide_models.check(sampling, conditions)
        pixels = mask = None
        if picture.image is not None:
            pixels = picture.image.astype(np.float32) / 127.5 - 1
        if picture.mask is not None:
            mask = masks.latent_mask(picture.mask, self.config.autoencoder.factor)
        control = None
        if picture.hints is not None:
            control = control_numbers(
                [net.branch for net in self.model.controls], self._controls, picture.hints,
                resolved.levels, self.model.process,
            )  # fmt: skip
        labels, own = self.guide_models.labels(conditions, self.config)
        return Plan(
            resolved, defaults.guidance_numbers(self.config, sampling), index, num,
            self._inputs(own, negative, unknown_words), labels, picture, pixels, mask,
            control,
        )  # fmt: skip

    def run(self, plan: Plan, *, decode: bool = True, previews: int = 0) -> Iterator[Drawn]:
        """The images of a plan that this pipeline made, or with `decode` off scaled latents, batch
        by batch.

        Batches are drawn on as many of the devices as can share one equally. With `previews`, so
        many predictions of each image on the way are kept and decoded (fewer where there are fewer
        evaluations), which is another program.

        Raises:
            NonFiniteError: says which network failed.
        """
        for event in self.watch(plan, decode=decode, previews=previews, seconds=None):
            if isinstance(event, Drawn):
                yield event

    def watch(
        self,
        plan: Plan,
        *,
        decode: bool = True,
        previews: int = 0,
        seconds: float | None = 0.5,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Progress | Drawn]:
        """As `run`, whose batches are drawn in parts that take about so many `seconds`, with the
        progress between parts; None draws each batch as a whole.

        Who takes no more events stops the drawing. The images are the same, bit for bit. With
        `share` (i, n) only every n-th batch is drawn, from the i-th on.
        """
        index, count = share
        batches = _batches_of(plan)[index::count]
        moment = Moment(batches=len(batches), pictures=sum(real for *_, real in batches))
        for group, rows, count in batches:
            run = self._sampler(plan, group, rows, previews)
            pace = self._paces.setdefault((run.program, self._forms), Pace())
            moment.turn_to(rows[:count], pace, run.total, partial(self._preview, plan, run))
            yield moment.progress("drawing" if pace.steps.begun else "compiling")
            while run.done < run.total:
                steps = run.total if seconds is None else pace.steps_in(seconds)
                steps = min(steps, run.total - run.done)
                with pace.steps.timing(steps):
                    run.advance(steps)
                moment.steps_done += steps
                yield moment.progress("drawing" if run.done < run.total else "decoding")
            with pace.decoding.timing():
                drawn, seen = self._finish(run, plan, decode)
            moment.finish_batch()
            yield Drawn(rows[:count], drawn[:count], None if seen is None else seen[:count])

    def decode(
        self, latents: Float32[np.ndarray, "n zh zw z"], tile: int | None = None
    ) -> UInt8[np.ndarray, "n h w c"]:
        """Images of scaled latents, such as `draw` gives with `decode` off."""
        mesh = self.programs.mesh(len(latents))
        with jax.set_mesh(mesh):
            return self.programs.decode(mesh, to_global(mesh, latents), tile)

    def invert(
        self,
        images: UInt8[np.ndarray, "n h w 3"],
        conditions: Sequence[str | int | None],
        *,
        sampling: cfg.Sampling,
        unknown_words: UnknownWordsChoice = "refuse",
    ) -> Float32[np.ndarray, "n zh zw z"]:
        """Noise from which `draw` with the same conditions and settings draws `images` again.

        By DDIM's steps upwards (`ldm_jax.sampling.scan.invert`), along the levels of `sampling`,
        without guidance; it comes back up to the error of as many steps. It is of about unit
        variance, as `Picture.noise` has to be.

        Raises:
            cfg.ConfigError: settings with which nothing can be inverted, or images of another
                size than theirs.
        """
        if self.model.controls:
            raise cfg.ConfigError(
                "control: the noise of a picture is found without ControlNets; leave it out"
            )
        resolved = defaults.resolve_inversion(self.config, sampling, textures=self.choice.tileable)
        sampling = resolved.sampling
        wanted = (len(conditions), sampling.height, sampling.width)
        if images.shape[:3] != wanted:
            raise cfg.ConfigError(
                f"the images have shape {images.shape}; for these conditions and settings it must "
                f"be {(*wanted, 3)}"
            )
        found: dict[int, Any] = {}
        for group in self._inputs(conditions, None, unknown_words):
            self._wear(group.worn)
            for rows, count in _batches(group.rows, sampling.batch_size):
                mesh = self.programs.mesh(len(rows))
                with jax.set_mesh(mesh):
                    noise = self.programs.invert(
                        mesh, group.of(rows), images[rows], resolved.levels, sampling.tile
                    )
                found |= zip(rows[:count].tolist(), np.asarray(noise), strict=False)
        return np.stack([found[row] for row in sorted(found)])

    def _inputs(
        self,
        conditions: Sequence[str | int | None],
        negative: str | int | None,
        unknown_words: UnknownWordsChoice,
    ) -> tuple[InputGroup, ...]:
        texts, worn = self._shelf.cut(conditions, negative)
        groups = encode_conditions(
            self.config.conditioners,
            self.tokenizer,
            texts,
            negative,
            emphasis=not self.choice.literal_prompts,
            skip_unknown=unknown_words == "skip",
            words=self.words,
        )
        divided = [part for group in groups for part in group.divided(worn)]
        # Those with the same adapters one after the other, so that these are merged once.
        return tuple(sorted(divided, key=lambda group: worn.index(group.worn)))

    def _wear(self, worn: Worn) -> None:
        """Brings the parameters with these adapters in them, and hypernetworks beside them, to the
        devices, in the place of those that are there; what has begun to be drawn keeps its own."""
        if worn == self._worn:
            return
        params = self.params
        if worn.lora != self._worn.lora:
            flat = tree.flatten(params)
            changes = self._shelf.leaves(worn.lora, self._worn.lora)
            flat |= _on_devices(changes, self.dtype, self._devices)
            params = tree.unflatten(flat)
        if worn.hypernetwork != self._worn.hypernetwork:
            params = self._with_chain(params, worn.hypernetwork)
        self.params = params
        self.programs.use(self.params)
        self._worn = worn

    def _with_chain(self, params: Any, chosen: tuple[str, ...]) -> Any:
        """Parameters with these hypernetworks, and no others, beside them; turns to the programs
        of hypernetworks of such forms."""
        chain = self._shelf.hypernetworks.chain(chosen)
        own = put_hypernetworks_beside({"unet": {}}, [(s, one.nets) for one, s in chain])
        own = _on_devices(own, self.dtype, self._devices)
        flat = tree.flatten(without_hypernetworks(params)) | tree.flatten(own)
        self._forms = tuple(one.form for one, _ in chain)
        adapted = chain or self.embeddings.rows is not None
        self.model = adapt(self._bare, hypernetworks=self._forms) if adapted else self._bare
        if self._forms not in self._of_chains:
            self._of_chains[self._forms] = self._programs_of(self.model)
        self.programs = self._of_chains[self._forms]
        return tree.unflatten(flat)

    def _programs_of(self, model: ldm.LatentDiffusion) -> Programs:
        return Programs(
            model, self.params, self.frozen, self.guide_models, dtype=self.dtype,
            devices=self._devices, textures=self._textures,
        )  # fmt: skip

    def _sampler(
        self, plan: Plan, group: InputGroup, rows: np.ndarray, previews: int
    ) -> SamplerRun:
        """The sampler of the images, or latents, of `rows`, all drawn together."""
        self._wear(group.worn)
        programs, (sampling, levels) = self.programs, plan.resolved
        mesh, conditions = programs.mesh(len(rows)), rows // plan.num
        own = group.of(conditions)
        labels = None if plan.labels is None else plan.labels[conditions]
        with jax.set_mesh(mesh):
            start, shown = self._start(mesh, plan, rows)
            inputs, condition = own | shown, partial(programs.condition, mesh, tile=sampling.tile)
            if sampling.guides_freely:
                sides = sampling.height, sampling.width
                nothing = _rows(empty_views(self.config.conditioners, sides), len(rows))
                nothing |= group.negative(len(rows))
                conditions = ldm.conditions_of(self.config, condition, inputs, nothing)
            else:
                conditions = ldm.Conditions(condition(inputs))
            if plan.control is not None:
                pictures = plan.picture.hints.pictures
                conditions = programs.hints(mesh, conditions, pictures, plan.control, len(rows))
            return programs.draw(
                mesh, conditions, plan.index[rows], start, sampling, levels, plan.numbers,
                (own, labels), previews,
            )  # fmt: skip

    def _preview(self, plan: Plan, run: SamplerRun) -> UInt8[np.ndarray, "n h w c"]:
        return self.decode(np.asarray(run.x0), plan.resolved.sampling.tile)

    def _finish(
        self, run: SamplerRun, plan: Plan, decode: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The images, or latents, of a sampler at its end, and their previews."""
        latents, tile = np.asarray(run.x), plan.resolved.sampling.tile
        if not decode:
            return latents, None
        images = self.decode(latents, tile)
        if run.x0s is None or not len(run.x0s):
            return images, None
        return images, np.stack([self.decode(x0, tile) for x0 in np.asarray(run.x0s)], axis=1)

    def _start(
        self, mesh: Mesh, plan: Plan, rows: np.ndarray
    ) -> tuple[ldm.Start, dict[str, np.ndarray]]:
        """What is drawn from, and the inputs of a model that is shown the picture."""
        picture, sampling, index = plan.picture, plan.resolved.sampling, plan.index[rows]
        told = {}
        if cfg.find(self.config.conditioners, cfg.SizeConditioner) is not None:
            told["size"] = drawn_size((sampling.height, sampling.width))
        shown = _rows({**picture.shown, **told}, len(rows))
        noise = None if picture.noise is None else to_global(mesh, picture.noise[rows])
        if plan.pixels is None:
            return ldm.Start(noise=noise), self._with_noise(shown, plan, index)
        masked, latents = plan.latent_mask is not None, None
        is_inpainting = self.config.is_inpainting
        partly = sampling.strength < 1 or not masked
        if partly or not is_inpainting:
            latents = self.programs.encode(
                mesh, plan.pixels[None], "sample/image", index, sampling.seed, sampling.tile
            )
        start = ldm.Start(noise=noise, latents=latents if partly else None)
        if masked and not is_inpainting:
            mask = np.repeat(plan.latent_mask[None, ..., None], len(rows), axis=0)
            start = start._replace(original=latents, mask=to_global(mesh, mask))
        elif masked:
            # One for all.
            mask = picture.mask.astype(np.uint8)[None, ..., None]
            shown |= {"mask": mask, "image": picture.image[None]}
        return start, self._with_noise(shown, plan, index)

    def _with_noise(
        self, shown: dict[str, np.ndarray], plan: Plan, index: UInt32[np.ndarray, "n"]
    ) -> dict[str, np.ndarray]:
        """What the model is shown, with the noise that it takes beside it."""
        sampling = plan.resolved.sampling
        shape = self.model.latent_shape_of(sampling.height, sampling.width)
        inputs = self.model.with_noise(shown, sampling.seed, "sample", jnp.asarray(index), shape)
        return {name: np.asarray(rows) for name, rows in inputs.items()}


def _applicable(
    choice: cfg.ModelChoice, config: cfg.Model, optional: Collection[str]
) -> tuple[cfg.ModelChoice, list[str]]:
    """`choice` without those of `optional` that the model does not have, and notes of them."""
    neutral = cfg.ModelChoice()
    left_out = {
        name: getattr(neutral, name) for name, (has, _) in TEXT_CHOICES.items()
        if name in optional and getattr(choice, name) != getattr(neutral, name) and not has(config)
    }  # fmt: skip
    notes = [f"{name} is left out: this model {TEXT_CHOICES[name][1]}" for name in left_out]
    return replace(choice, **left_out), notes


def _rows(inputs: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Inputs of one example, so many times."""
    return {name: np.repeat(one[None], count, axis=0) for name, one in inputs.items()}


def shares(plan: Plan, count: int) -> list[int]:
    """How many images each of `count` processes draws that share a plan's batches, as the `share`
    of `Pipeline.watch`."""
    batches = [real for *_, real in _batches_of(plan)]
    return [sum(batches[index::count]) for index in range(count)]


def _batches_of(plan: Plan) -> list[tuple[InputGroup, np.ndarray, int]]:
    """The batches that a plan is drawn in: inputs, rows, and how many of these are real."""
    size = plan.resolved.sampling.batch_size
    return [
        (group, *batch) for group in plan.groups
        for batch in _batches(group.images(plan.num), size)
    ]  # fmt: skip


def _batches(rows: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """`rows` in batches that are filled up to `size` with repetitions, and how many are real."""
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        yield np.resize(some, size), len(some)


def _on_devices(tree: Any, dtype: str, devices: Sequence[jax.Device]) -> Any:
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
