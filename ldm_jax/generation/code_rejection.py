"""Of many drawn pictures those that a classifier finds likeliest to show their class (Razavi 2019,
arXiv:1906.00446, section 3.4; Esser 2021, section 4.4: with an acceptance rate)."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from ldm_jax import config as cfg
from ldm_jax.config.checks import require
from ldm_jax.core.typing import Process
from ldm_jax.generation.code_drawing import CodePicture
from ldm_jax.generation.guide_models import open_classifier
from ldm_jax.latent_diffusion import sample_posterior
from ldm_jax.models.autoencoder import Autoencoder
from ldm_jax.models.build import build_autoencoder, build_classifier
from ldm_jax.models.classifier import Classifier
from ldm_jax.models.pixels import to_pixels
from ldm_jax.models.process import build_process
from ldm_jax.workdir.frozen import load_first_stage

Image = UInt8[np.ndarray, "h w 3"]
LogProb = Callable[[np.ndarray, int], np.ndarray]
"""Images [n, h, w, 3] and a class to log p(class | image) of each."""


def drawn_of(wanted: int, acceptance: float) -> int:
    """Pictures to draw of each class so that `wanted` are its share `acceptance`."""
    # A share such as 0.1 is a little more or less than it says.
    return math.ceil(wanted / acceptance - 1e-9)


class Kept(NamedTuple):
    """A picture that was kept."""

    picture: CodePicture
    image: Image
    log_prob: float
    """log p(class | picture) of the classifier."""


@dataclass(frozen=True)
class Judge:
    """A trained classifier of noisy latents, which is shown pictures at its least noise, without
    any. It sees them by way of its own first stage, so that models of codes of any may draw."""

    autoencoder: Autoencoder
    classifier: Classifier
    process: Process
    params: Any
    frozen: Any

    @classmethod
    def read(cls, path: Path, config: cfg.CodeModel, sides: tuple[int, int]) -> "Judge":
        """The classifier that `train.py` trained in `path`, for pictures of the model of `config`
        with these sides.

        Raises:
            cfg.ConfigError: it holds something else, or knows other classes or another size.
            FileNotFoundError, ValueError: nothing that can be read.
        """
        run, params = open_classifier(path)
        stage, frozen = load_first_stage(run, path)
        condition = config.condition
        require(isinstance(condition, cfg.ClassPrefix), "--classifier", str(path),
                "left out: this model draws no classes")  # fmt: skip
        require(run.classifier.num_classes == condition.num_classes, "--classifier", str(path),
                f"one of {condition.num_classes} classes, as this model has; it has "
                f"{run.classifier.num_classes}")  # fmt: skip
        require(run.data.sides == sides, "--classifier", str(path),
                "one of pictures of {} x {}; it knows such of {} x {}".format(
                    *sides, *run.data.sides))  # fmt: skip
        process = build_process(run.diffusion.process)
        return cls(
            build_autoencoder(stage), build_classifier(run.classifier), process, params, frozen
        )

    def log_prob(self, images: UInt8[np.ndarray, "n h w 3"], label: int) -> Float[np.ndarray, " n"]:
        """log p(label | image) of each image, none of which depends on another."""
        found = [
            self._program(self.params, self.frozen, image[None], jnp.asarray([label]))
            for image in images
        ]
        return np.concatenate([np.asarray(one) for one in found])

    @cached_property
    def _program(self) -> Any:
        return jax.jit(partial(_log_prob, self.autoencoder, self.classifier, self.process))


def _log_prob(
    autoencoder: Autoencoder,
    classifier: Classifier,
    process: Process,
    params: Any,
    frozen: Any,
    images: UInt8[Array, "b h w 3"],
    labels: Int[Array, "b"],
) -> Float[Array, "b"]:
    variables = {"params": frozen["autoencoder"]}
    posterior = autoencoder.apply(variables, to_pixels(images), method="encode")
    latents = sample_posterior(frozen, posterior, jnp.zeros_like(posterior.mode))
    least = jnp.full(images.shape[:1], process.t_min)
    scale = jnp.reshape(process.alpha_at(least), (-1, 1, 1, 1))
    logits = classifier.apply({"params": params}, scale * latents, process.network_time(least))
    return jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


def accepted(
    drawn: Iterable[tuple[CodePicture, Image]], log_prob: LogProb, wanted: int, of: int
) -> Iterator[Kept]:
    """Of every `of` pictures that follow each other, which are of one class, the `wanted`
    likeliest by `log_prob` in the order of their numbers; of two that are as likely the earlier."""
    group: list[Kept] = []
    for picture, image in drawn:
        found = log_prob(image[None], picture.label)
        group.append(Kept(picture, image, float(found[0])))
        if len(group) == of:
            likeliest = sorted(group, key=lambda one: (-one.log_prob, one.picture.number))
            yield from sorted(likeliest[:wanted], key=lambda one: one.picture.number)
            group = []
