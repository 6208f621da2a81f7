"""Drawing from Python: `ldm_jax.open(path)` gives a model, `model.draw(caption)` pictures.

model = ldm_jax.open("runs/demo/text2img")
pictures = model.draw("a red three above a blue seven", num=4, seed=0)
pictures[0].save("three.png")
"""

import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.config.checks import told
from ldm_jax.config.request import LISTED, paths
from ldm_jax.core.stores import as_path
from ldm_jax.generation.drawing_progress import Progress
from ldm_jax.generation.pipeline import Drawn, Pipeline
from ldm_jax.generation.resolve import ResolvedRequest, resolve_request
from ldm_jax.images.grid import save_png
from ldm_jax.images.picture_text import picture_text

FORMATS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""What names of pictures that are saved may end in."""


@dataclass(frozen=True, eq=False, repr=False)
class Sample:
    """One drawn picture, and all that is needed to draw it again."""

    array: UInt8[np.ndarray, "h w c"]
    request: cfg.Request
    """For this picture alone, with the usual values of model and sampler filled in."""
    text: Mapping[str, str]
    """What its PNG says of it, by the key of the text."""
    latents: Float32[np.ndarray, "zh zw z"] | None = None
    """Scaled; only with `return_latents`, and of the part that was painted anew."""

    def __repr__(self) -> str:
        """Its size, condition and seed."""
        height, width, _ = self.array.shape
        (condition,) = self.request.conditions
        return f"Sample({width} x {height}, {condition!r}, seed={self.request.sampling.seed})"

    @property
    def image(self) -> Image.Image:
        """As Pillow has it."""
        return Image.fromarray(self.array)

    def save(self, path: str | Path) -> None:
        """Writes the picture in the format of the path's suffix; a PNG carries `text`.

        Raises:
            OSError, ValueError: it cannot be written there, or in such a format.
        """
        path = as_path(path)
        if path.suffix.lower() not in FORMATS:
            raise ValueError(
                f"{path} does not end in the name of a format: {', '.join(FORMATS)}; only .png "
                "keeps how the picture was drawn"
            )
        if not path.parent.is_dir():
            raise FileNotFoundError(
                f"{path} cannot be written: there is no folder {path.parent}; make it first"
            )
        if path.suffix.lower() == ".png":
            save_png(path, self.array, self.text)
        else:
            self.image.save(path)

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        return self.image._repr_png_()


class Model:
    """A diffusion model, ready to draw."""

    def __init__(self, pipeline: Pipeline) -> None:
        """That of a `pipeline`."""
        self.pipeline = pipeline

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it is conditioned on: `caption`, `label`, `mask`, …; () is unconditional."""
        return self.pipeline.config.inputs

    def draw(self, prompt: str | Sequence[str] = (), **settings: Any) -> list[Sample]:
        """All pictures that `stream` gives, prompt by prompt."""
        drawn = dict(self._drawn(prompt, settings))
        return [drawn[row] for row in sorted(drawn)]

    def stream(self, prompt: str | Sequence[str] = (), **settings: Any) -> Iterator[Sample]:
        """Pictures as they are drawn. What cannot be drawn is refused at once.

        Args:
            prompt: one caption, or several.
            settings: as on the command line, by the same names: `num`, `seed`, `steps`, `sampler`,
                `guidance_scale`, `negative_prompt`, `classes`, `height`, `width`, `init_image`,
                `mask`, …; and `return_latents=True` for `Sample.latents`. Numbers may be NumPy's;
                pictures, masks and noise are named by their files.

        Raises:
            cfg.ConfigError, ValueError: what does not exist, or what this model cannot draw.
        """
        return (sample for _, sample in self._drawn(prompt, settings))

    def watch(
        self, prompt: str | Sequence[str] = (), **settings: Any
    ) -> Iterator[Progress | Sample]:
        """As `stream`, with the progress about twice a second: steps done, time left, and the
        picture so far. Take no more to stop the drawing; it changes no picture."""
        return self.watch_request(self._request(prompt, settings))

    def watch_request(self, request: cfg.Request) -> Iterator[Progress | Sample]:
        """As `watch`, of a request; the model that it names is not read."""
        return self._watch(resolve_request(self.pipeline, request))

    def _watch(self, resolved: ResolvedRequest) -> Iterator[Progress | Sample]:
        for event in self.pipeline.watch(resolved.plan):
            if isinstance(event, Progress):
                yield event
            else:
                yield from (sample for _, sample in self._samples(resolved, event))

    def _drawn(
        self, prompt: str | Sequence[str], settings: dict[str, Any]
    ) -> Iterator[tuple[int, Sample]]:
        """Each picture with its place among all; nothing is drawn before the first is asked for,
        but all is checked."""
        return_latents = settings.pop("return_latents", False)
        if not isinstance(return_latents, bool | np.bool_):
            raise cfg.ConfigError(told("return_latents", return_latents, bool))
        resolved = resolve_request(self.pipeline, self._request(prompt, settings))
        batches = self.pipeline.run(resolved.plan, decode=not return_latents)
        return (one for batch in batches for one in self._samples(resolved, batch, return_latents))

    def _samples(
        self, resolved: ResolvedRequest, batch: Drawn, latents: bool = False
    ) -> Iterator[tuple[int, Sample]]:
        """The pictures of a batch, which holds `latents` or images."""
        request, images, own = resolved.request, batch.images, [None] * len(batch.rows)
        if latents:
            own = batch.images
            images = self.pipeline.decode(own, request.sampling.tile)
        for row, image, latent in zip(batch.rows, images, own, strict=True):
            place, number = divmod(int(row), request.num)
            one = request.one(place, number)
            about = {"filled": resolved.filled, "origin": self.pipeline.origin}
            text = picture_text(one, about, resolved.hashes[place])
            yield int(row), Sample(resolved.paste(image), one, text, latent)

    def _request(self, prompt: str | Sequence[str], settings: dict[str, Any]) -> cfg.Request:
        choice = self.pipeline.choice
        if chosen := [field.name for field in fields(choice) if field.name in settings]:
            raise cfg.ConfigError(f"{chosen[0]} is a choice of the model; give it to ldm_jax.open")
        settings = {name: plain(name, value) for name, value in settings.items()}
        if isinstance(settings.get("classes"), int):
            settings |= {"classes": (settings["classes"],)}
        captions = captions_of(prompt)
        return cfg.Request.from_dict(
            settings | ({"prompt": captions} if captions else {}), model=choice
        )


def captions_of(prompt: Any) -> list[str]:
    """The captions that `prompt` is: one, or several.

    Raises:
        cfg.ConfigError: it is something else.
    """
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, Iterable) or isinstance(prompt, bytes):
        raise cfg.ConfigError(f"prompt is {prompt!r:.80}; it must be a caption or a list of them")
    captions = [*prompt]
    for caption in captions:
        if not isinstance(caption, str):
            raise cfg.ConfigError(f"prompt has {caption!r:.80} in it; each must be a caption")
    return captions


def plain(name: str, value: Any) -> Any:
    """The value of a setting with Python's own numbers and lists in the place of NumPy's.

    Raises:
        cfg.ConfigError: it is an array or an object where a file, a number or text is wanted.
    """
    if name in LISTED and value is not None:
        several = isinstance(value, list | tuple)
        return [os.fspath(one) for one in (value if several else [value])]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, os.PathLike):
        return as_path(value)
    if name in paths():
        raise cfg.ConfigError(
            f"{name} is of type {type(value).__name__}; it must be the name of a file: save it "
            f"({'numpy.save' if name == 'latents' else 'as a PNG'}) and give its name"
        )
    if isinstance(value, list | tuple) or np.ndim(value) == 1:
        return [plain(name, one) for one in value]
    if isinstance(value, np.bool_):
        return bool(value)
    for convert in (operator.index, float):
        try:
            return convert(value)
        except (TypeError, ValueError):
            continue
    raise cfg.ConfigError(
        f"{name} is of type {type(value).__name__}; it must be a number, text or a list of them"
    )


def open_model(path: str | Path, **choices: Any) -> Model:
    """The model in `path`: a work directory, a model folder or a single file, as `sample.py
    --model` takes it.

    Args:
        path: where it is.
        choices: `weights`, `dtype`, `tokenizer`, `clip_skip`, `lora`, `weak_model`, … as on the
            command line.

    Raises:
        FileNotFoundError, ValueError: nothing that can be read; the text says what and why.
    """
    return Model(Pipeline(path, **{name: plain(name, value) for name, value in choices.items()}))
