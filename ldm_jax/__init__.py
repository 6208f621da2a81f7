"""Latent diffusion in JAX/Flax: both training stages, sampling, evaluation, conversion.

import ldm_jax
model = ldm_jax.open("runs/demo/text2img")
pictures = model.draw("a red three above a blue seven", num=4, seed=0)
pictures[0].save("three.png")
"""

import os
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What drawing gives: `Model`, `Sample` and `Progress`, with which JAX is imported."""
    if name in ("Model", "Progress", "Sample"):
        from ldm_jax.generation import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open(path: Any, **choices: Any) -> Any:
    """The model in `path`, ready to draw: see `generation.library.open_model` and `Model`.

    Raises:
        TypeError, FileNotFoundError, ValueError: nothing that can be read; the text says why.
    """
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise TypeError(f"ldm_jax.open({path!r:.80}): name the file or folder of a model")
    # JAX starts only now, so that importing the package costs nothing.
    from ldm_jax.generation.library import open_model

    return open_model(path, **choices)
