"""Settings, inputs, weights and comparison of a training step of stage one with the original's.

The numbers of the original are in `golden/stage_one_step.npz`; `golden/README.md` tells them.
"""

from dataclasses import replace
from pathlib import Path

import compvis
import jax
import jax.numpy as jnp
import numpy as np
import weights

from ldm_jax import config as cfg
from ldm_jax.core import tree

GOLDEN = Path(__file__).with_name("golden") / "stage_one_step.npz"

LEARNING_RATE = 4.5e-6
BETAS = (0.5, 0.9)
DISCRIMINATOR_WEIGHT = 0.8
PERCEPTUAL_WEIGHT = 0.7
KL_WEIGHT = 1e-3
CODEBOOK_WEIGHT = 1.5
WIDTHS = (64, 128)
"""Two channels to a group, so that no bias before a norm is without effect."""
LATENT_CHANNELS = 3
CODES = 64
FACTOR = 2
BATCH, SIDE = 2, 32
KINDS = ("kl", "vq")
PROJECTIONS = 4


def batch() -> np.ndarray:
    """Images [-1, 1], NCHW."""
    return np.tanh(weights.normal("stage_one.image", (BATCH, 3, SIDE, SIDE)))


def noise() -> np.ndarray:
    """What the posterior is sampled with, in both forward passes of a step; NCHW."""
    return weights.normal("stage_one.noise", (BATCH, LATENT_CHANNELS, *(SIDE // FACTOR,) * 2))


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter in torch's layout, by its name in a checkpoint; those of LPIPS by their names in
    its own files. Its features keep their size from layer to layer, and its heads are positive."""
    drawn = weights.weight(name, shape)
    if name.startswith("features.") and name.endswith("weight"):
        return drawn * np.float32(np.sqrt(2))
    return np.abs(drawn) if name.startswith("lin") else drawn


def projected(name: str, tensor: np.ndarray) -> np.ndarray:
    """The Euclidean norm of a tensor in torch's layout, and its products with random directions.

    A product with a standard normal direction is as large as the norm is, on average, so that the
    difference of two tensors shows in it undiminished.
    """
    tensor = np.asarray(tensor, np.float64)
    directions = (weights.normal(f"direction.{i}.{name}", tensor.shape) for i in range(PROJECTIONS))
    return np.array([np.linalg.norm(tensor), *(np.vdot(tensor, d) for d in directions)])


def autoencoder_config(kind: str) -> cfg.Autoencoder:
    published = compvis.autoencoder_config(f"{kind}-f4")
    return replace(published, block_out_channels=WIDTHS, attention=(False, False))


def nhwc(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def autoencoder_name(config: cfg.Autoencoder, name: str) -> str:
    """The original name of a dotted one of ours, as the two below."""
    return compvis.autoencoder_name(config, name)


def discriminator_name(name: str) -> str:
    return f"loss.discriminator.{name}"


def lpips_name(name: str) -> str:
    return f"{name}.model.1" if name.startswith("lin") else name


def parameters(module, rename, *inputs):
    """The parameters of a Flax module, filled by their original names."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    flat = {}
    for path, leaf in tree.flatten(shapes).items():
        name, order = _original(path, rename, leaf.ndim)
        drawn = weight(name, tuple(leaf.shape[axis] for axis in order))
        flat[path] = jnp.asarray(drawn.transpose(np.argsort(order)))
    return tree.unflatten(flat)


def statistics(module, *inputs):
    """Running statistics at rest: means of 0, variances of 1."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["batch_stats"]
    flat = tree.flatten(shapes)
    return tree.unflatten(
        {path: jnp.full(leaf.shape, float(path.endswith("var"))) for path, leaf in flat.items()}
    )


def _original(path: str, rename, ndim: int) -> tuple[str, tuple[int, ...]]:
    """The original name of a parameter, and the order that our axes have there."""
    *levels, last = path.split("/")
    kernel = {4: (3, 2, 0, 1), 2: (1, 0)}
    name = f"{rename('.'.join(levels))}.{'bias' if last == 'bias' else 'weight'}"
    return name, kernel[ndim] if last == "kernel" else tuple(range(ndim))


def differences(ours, rename, golden: dict[str, np.ndarray], prefix: str) -> dict[str, float]:
    """How far the projections of each tensor are from the original's, by original name, relative
    to its norm and a thousandth of the largest: some gradients are 0 but for rounding."""
    largest = max(value[0] for name, value in golden.items() if name.startswith(f"{prefix}/"))
    found = {}
    for path, value in tree.flatten(ours).items():
        name, order = _original(path, rename, value.ndim)
        value = np.asarray(value).transpose(order)
        if order == (1, 0) and "embedding" not in name:
            value = value[..., None, None]  # A convolution over one pixel, there.
        want = golden[f"{prefix}/{name}"]
        error = np.abs(projected(name, value) - want).max()
        found[name] = error / (want[0] + 1e-3 * largest)
    assert len(found) == sum(name.startswith(f"{prefix}/") for name in golden)
    return found
