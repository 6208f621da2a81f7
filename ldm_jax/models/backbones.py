"""The convolutions of VGG16 (Simonyan 2014, arXiv:1409.1556) and AlexNet (Krizhevsky 2014,
arXiv:1404.5997), numbered as torchvision does, in whose features images are compared."""

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from ldm_jax.core.sharding import split_batch
from ldm_jax.models.layers import Conv, ModuleList

Name = Literal["vgg", "alex"]


class Layer(NamedTuple):
    """A convolution that a ReLU follows."""

    number: int
    features: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class Backbone:
    """Stages of convolutions; features are compared after the last of each."""

    stages: tuple[tuple[Layer, ...], ...]
    window: int
    """Of max pooling, by steps of 2."""
    pooled: tuple[int, ...]
    """The stages that pooling comes before."""
    least: int
    """The smallest side of images of which pooling leaves something."""

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of the features of each stage."""
        return tuple(layers[-1].features for layers in self.stages)

    def modules(self, dtype: DTypeLike) -> ModuleList:
        """The convolutions, called `features`; to be made inside of a module."""
        layers = {layer.number: layer for layers in self.stages for layer in layers}
        made = [_conv(layers[i], dtype) if i in layers else None for i in range(max(layers) + 1)]
        return ModuleList(tuple(made), name="features")

    def stage(
        self, modules: ModuleList, i: int, x: Float[Array, "b h w c"]
    ) -> Float[Array, "b h2 w2 d"]:
        """The features of stage i from those of the one before, or from images."""
        if i in self.pooled:
            x = self.pool(x)
        for layer in self.stages[i]:
            x = nn.relu(modules(layer.number, x))
        return x

    def pool(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        return split_batch(nn.max_pool(x, (self.window, self.window), strides=(2, 2)))


def _conv(layer: Layer, dtype: DTypeLike) -> partial:
    return partial(
        Conv, layer.features, layer.kernel, layer.stride, (layer.padding,) * 2, dtype=dtype
    )


BACKBONES: dict[Name, Backbone] = {
    "vgg": Backbone(
        stages=tuple(
            tuple(Layer(number, width) for number in numbers)
            for width, numbers in (
                (64, (0, 2)), (128, (5, 7)), (256, (10, 12, 14)), (512, (17, 19, 21)),
                (512, (24, 26, 28)),
            )
        ),
        window=2, pooled=(1, 2, 3, 4), least=16,
    ),
    "alex": Backbone(
        stages=(
            (Layer(0, 64, kernel=11, stride=4, padding=2),),
            (Layer(3, 192, kernel=5, padding=2),),
            (Layer(6, 384),), (Layer(8, 256),), (Layer(10, 256),),
        ),
        window=3, pooled=(1, 2), least=31,
    ),
}  # fmt: skip
"""By the name that LPIPS calls them: relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 of VGG16, and
each of the five convolutions of AlexNet."""

RELU5_3 = "relu5_3"


class VGG16Convolutions(nn.Module):
    """Images of 16 x 16 pixels or more, normalised as ImageNet's, to the mean over the picture of
    what the last convolution of VGG16 finds. Computed in float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> dict[str, Float32[Array, "b 512"]]:
        backbone = BACKBONES["vgg"]
        modules = backbone.modules(jnp.float32)
        for i in range(len(backbone.stages)):
            x = backbone.stage(modules, i, x)
        return {RELU5_3: x.mean((1, 2))}


VGG16_SIDE = 224
VGG16_TAPS = {"fc2": 4096, "fc2_relu": 4096}


class VGG16(nn.Module):
    """Images of 224 x 224 pixels, normalised as ImageNet's, to the features of the last but one
    layer of VGG16's classifier, before and after its ReLU. Computed in float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "b 224 224 3"]) -> dict[str, Float32[Array, "b 4096"]]:
        backbone = BACKBONES["vgg"]
        modules = backbone.modules(jnp.float32)
        for i in range(len(backbone.stages)):
            x = backbone.stage(modules, i, x)
        # Channels come first in the rows of the classifier's matrix.
        x = backbone.pool(x).transpose(0, 3, 1, 2).reshape(len(x), -1)
        dense = partial(nn.Dense, 4096)
        classifier = ModuleList((dense, None, None, dense), name="classifier")
        x = split_batch(classifier(3, nn.relu(classifier(0, x))))
        return {"fc2": x, "fc2_relu": nn.relu(x)}
