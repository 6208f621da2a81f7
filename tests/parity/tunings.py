"""What `golden/tunings.npz` was computed from: a small U-Net and text encoder of Stable Diffusion's
kind, their weights, and inputs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import weights

GOLDEN = Path(__file__).with_name("golden")
LORA, HYPERNETWORKS = "kohya.safetensors", ("normalised.pt", "bare.pt")
"""Files that the originals wrote."""
LORA_STRENGTH, HYPERNETWORK_STRENGTHS, CONTROL_STRENGTH = 0.7, (0.7, -0.4), 0.7

UNET = {
    "image_size": 32, "in_channels": 4, "model_channels": 32, "num_res_blocks": 1,
    "attention_resolutions": (1,), "channel_mult": (1, 2), "num_heads": 4, "context_dim": 64,
    "use_spatial_transformer": True, "transformer_depth": 1, "legacy": False,
}  # fmt: skip
"""In the words of CompVis; `convert_models.UNET` is the same here."""
CLIP = {
    "vocab_size": 20, "max_position_embeddings": 8, "hidden_size": 64, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 1, "hidden_act": "quick_gelu",
}  # fmt: skip
"""In the words of transformers; `convert_models.CLIP` is the same here."""


def drawn(prefix: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The weights of these names, which stand behind `prefix`."""
    return {name: weights.weight(prefix + name, tuple(shape)) for name, shape in shapes.items()}


def inputs() -> dict[str, np.ndarray]:
    """Of all, NCHW; the hint is in [0, 1]."""
    return {
        "x": weights.normal("tunings/x", (2, 4, 8, 8)), "t": np.array([3, 901]),
        "context": weights.normal("tunings/context", (2, 8, 64)),
        "hint": 1 / (1 + np.exp(-weights.normal("tunings/hint", (2, 3, 64, 64)))),
        "tokens": np.arange(16).reshape(2, 8) % 20,
    }  # fmt: skip
