"""Weights and inputs that are functions of their name and shape, the same for every framework."""

import hashlib
import math
from pathlib import Path

import numpy as np

REFERENCES = Path(__file__).with_name("references.npz")

UNET = {
    "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8,
    "cross_attention_dim": 24, "attention_head_dim": 4,
}  # fmt: skip
"""diffusers' settings; one level with cross-attention and one without. The third says how many
heads there are, whatever its name."""
AUTOENCODER = {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8}
CLIP = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 12,
}  # fmt: skip
SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012}
STEPS = 20


def normal(name: str, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """Standard normal float32 numbers, seeded by `name`."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    random = np.random.Generator(np.random.Philox(seed))
    return (random.standard_normal(shape) * scale).astype(np.float32)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter of a PyTorch state dict, in PyTorch's layout; nothing is zero or one exactly."""
    if name.endswith("bias"):
        return normal(name, shape, 0.1)
    if len(shape) == 1:
        return 1 + normal(name, shape, 0.1)
    if "embedding.weight" in name:
        return normal(name, shape)
    return normal(name, shape, 1 / math.sqrt(math.prod(shape[1:])))


def predicted_noise(x: np.ndarray, t: int) -> np.ndarray:
    """Stands in for a network where only a solver is compared."""
    return 0.9 * np.tanh(x) * (0.3 + 0.7 * t / 1000)
