"""Latent diffusion in JAX/Flax: both training stages, sampling, evaluation, conversion.

import ldm_jax
model = ldm_jax.open("runs/demo/text2img")
pictures = model.draw("a red three above a blue seven", num=4, seed=0)
pictures[0].save("three.png")
"""

from typing import Any

__version__ = "0.1.0"


def open(path: Any, **choices: Any) -> Any:
    """The model in `path`, ready to draw: see `generation.library.open_model` and `Model`."""
    # JAX starts only now, so that importing the package costs nothing.
    from ldm_jax.generation.library import open_model

    return open_model(path, **choices)
