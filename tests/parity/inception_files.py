"""A file of weights for Inception, in which each is a function of its name."""

from pathlib import Path

import numpy as np
import torch
import weights

from ldm_jax.convert import inception_weights
from ldm_jax.convert.state_dicts import leaves


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """By its name in torch; activations stay near 1 from the first layer to the last."""
    if name.endswith("running_mean"):
        return weights.normal(name, shape, 0.1)
    drawn = weights.weight(name, shape)
    if len(shape) == 4:
        return drawn * np.float32(np.sqrt(2))
    return np.abs(drawn) if name.endswith("running_var") else drawn


def state() -> dict[str, torch.Tensor]:
    """The state dict; that peers load it strictly shows that names and shapes are theirs."""
    return {
        leaf.name: torch.from_numpy(weight(leaf.name, leaf.torch_shape))
        for leaf in leaves(inception_weights._shapes())
    }


def save(folder: Path) -> Path:
    path = folder / "pt_inception-2015-12-05-6726825d.pth"
    counter = {"Conv2d_1a_3x3.bn.num_batches_tracked": torch.tensor(7)}
    torch.save(state() | counter, path)
    return path
