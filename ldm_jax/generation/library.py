"""Drawing from Python: `ldm_jax.open(path)` gives a model, `model.draw(caption)` pictures.

model = ldm_jax.open("runs/demo/text2img")
pictures = model.draw("a red three above a blue seven", num=4, seed=0)
pictures[0].save("three.png")
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.generation.resolve import resolve_request
from ldm_jax.images.grid import save_png
from ldm_jax.images.sample_writer import picture_text


@dataclass(frozen=True, eq=False)
class Sample:
    """One drawn picture, and all that is needed to draw it again."""

    array: UInt8[np.ndarray, "h w c"]
    request: cfg.Request
    """For this picture alone, with the usual values of model and sampler filled in."""
    text: Mapping[str, str]
    """What its PNG says of it, by the key of the text."""
    latents: Float32[np.ndarray, "zh zw z"] | None = None
    """Scaled; only with `return_latents`, and of the part that was painted anew."""

    @property
    def image(self) -> Image.Image:
        """As Pillow has it."""
        return Image.fromarray(self.array)

    def save(self, path: str | Path) -> None:
        """Writes the picture in the format of the path's suffix; a PNG carries `text`.

        Raises:
            OSError, ValueError: it cannot be written there, or in such a format.
        """
        path = Path(path)
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
        """Pictures as they are drawn.

        Args:
            prompt: one caption, or several.
            settings: as on the command line, by the same names: `num`, `seed`, `steps`, `sampler`,
                `guidance_scale`, `negative_prompt`, `classes`, `height`, `width`, `init_image`,
                `mask`, …; and `return_latents=True` for `Sample.latents`.

        Raises:
            cfg.ConfigError, ValueError: what does not exist, or what this model cannot draw.
        """
        return (sample for _, sample in self._drawn(prompt, settings))

    def _drawn(
        self, prompt: str | Sequence[str], settings: dict[str, Any]
    ) -> Iterator[tuple[int, Sample]]:
        """Each picture with its place among all."""
        return_latents = bool(settings.pop("return_latents", False))
        resolved = resolve_request(self.pipeline, self._request(prompt, settings))
        request = resolved.request
        for rows, drawn, _ in self.pipeline.run(resolved.plan, decode=not return_latents):
            images, latents = drawn, [None] * len(drawn)
            if return_latents:
                latents = drawn
                images = self.pipeline.decode(drawn, request.sampling.tile)
            for row, image, own in zip(rows, images, latents, strict=True):
                one = request.one(*divmod(int(row), request.num))
                text = picture_text(one, {"origin": self.pipeline.origin})
                yield int(row), Sample(resolved.paste(image), one, text, own)

    def _request(self, prompt: str | Sequence[str], settings: dict[str, Any]) -> cfg.Request:
        choice = self.pipeline.choice
        if chosen := [field.name for field in fields(choice) if field.name in settings]:
            raise cfg.ConfigError(f"{chosen[0]} is a choice of the model; give it to ldm_jax.open")
        if isinstance(settings.get("classes"), int):
            settings |= {"classes": (settings["classes"],)}
        captions = [prompt] if isinstance(prompt, str) else [*prompt]
        return cfg.Request.from_dict(
            settings | ({"prompt": captions} if captions else {}), model=choice
        )


def open_model(path: str | Path, **choices: Any) -> Model:
    """The model in `path`: a work directory, a model folder or a single file, as `sample.py
    --model` takes it.

    Args:
        path: where it is.
        choices: `weights`, `dtype`, `tokenizer`, `clip_skip`, `weak_model`, `classifier`, … as on
            the command line.

    Raises:
        FileNotFoundError, ValueError: nothing that can be read; the text says what and why.
    """
    return Model(Pipeline(path, **choices))
