"""From images of 8 bits to what a network of features was shown when its scores were defined."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt8

from ldm_jax.evaluation.features import resizing

Resize = Literal["tensorflow_bilinear", "torch_bilinear", "pillow_bicubic", "pillow_bicubic_uint8"]
RESIZES: dict[Resize, Callable[..., Array]] = {
    "tensorflow_bilinear": resizing.tensorflow_bilinear,
    "torch_bilinear": resizing.torch_bilinear,
    "pillow_bicubic": resizing.pillow_bicubic,
}
"""Those in floating point."""

Channels = tuple[float, float, float]
IMAGENET_MEAN: Channels = (255 * 0.485, 255 * 0.456, 255 * 0.406)
IMAGENET_DEVIATION: Channels = (255 * 0.229, 255 * 0.224, 255 * 0.225)
"""Of red, green and blue, in grey levels of 0..255."""


@dataclass(frozen=True)
class Preprocessing:
    """A resize to a square, then `(x - mean) / deviation` of grey levels 0..255."""

    resize: Resize
    side: int
    mean: Channels
    deviation: Channels
    crop: bool = False
    """Whether the shorter side becomes `side` and the middle is kept, instead of squeezing the
    image into a square."""

    def __call__(self, images: UInt8[Array, "b h w 3"]) -> Float32[Array, "b side side 3"]:
        sides = self._sides(images.shape[1], images.shape[2])
        if self.resize == "pillow_bicubic_uint8":
            pixels = resizing.pillow_bicubic_rounded(images, sides).astype(jnp.float32)
        else:
            pixels = RESIZES[self.resize](images.astype(jnp.float32), sides)
        top, left = (round((side - self.side) / 2) for side in sides)
        pixels = pixels[:, top : top + self.side, left : left + self.side]
        mean, deviation = (jnp.float32(value) for value in (self.mean, self.deviation))
        return (pixels - mean[None, None, None]) / deviation[None, None, None]

    def _sides(self, height: int, width: int) -> tuple[int, int]:
        if not self.crop:
            return self.side, self.side
        shorter = min(height, width)
        return self.side * height // shorter, self.side * width // shorter

    def describe(self) -> dict[str, Any]:
        """Resize and range as JSON has them."""
        return {
            "resize": self.resize, "side": self.side, "crop": self.crop,
            "mean": list(self.mean), "deviation": list(self.deviation),
        }  # fmt: skip
