"""Settings and inputs of VQGAN's second stage with conditions made of codes, the same for the
original code and for the tests; its numbers are in `golden/conditional_codes.npz`."""

from pathlib import Path

import numpy as np
import weights

GOLDEN = Path(__file__).with_name("golden") / "conditional_codes.npz"

SIDE, FACTOR, CODES, HEADS = 16, 4, 20, 4
LARGE = (28, 24)
"""Pixels of a picture that is drawn in windows."""
CHANNELS = {"coco": 183, "sflckr": 182, "ade20k": 151, "drin": 1, "faceshq": None}
"""Of what the condition's first stage encodes; None: coordinates, which have none."""
COORDINATES = 64
"""Tokens of coordinates: more than the first stage has codes."""
SIZES = ((256, 256, 16, 1024), (64, 80, 16, 1024), (16, 16, 4, 64), (28, 24, 4, 64))
"""Height, width, factor and tokens of pictures whose coordinates are compared."""


def first_stage(channels: int) -> dict:
    """The arguments of the original's VQModel."""
    return {
        "embed_dim": 8, "n_embed": CODES, "lossconfig": {"target": "torch.nn.Identity"},
        "ddconfig": {
            "double_z": False, "z_channels": 8, "resolution": SIDE, "in_channels": channels,
            "out_ch": channels, "ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 1,
            "attn_resolutions": [SIDE // FACTOR], "dropout": 0.0,
        },
    }  # fmt: skip


def settings(name: str) -> dict:
    """The arguments of the original's Net2NetTransformer, as a YAML file has them."""
    channels = CHANNELS[name]
    if channels is None:
        target, condition = "taming.modules.misc.coord.CoordStage", {
            "n_embed": COORDINATES, "down_factor": FACTOR,
        }  # fmt: skip
    elif channels == 1:
        target, condition = "taming.models.vqgan.VQModel", first_stage(1)
        # Without it the last version of the original stops: it joins rasters and rows.
        condition["sane_index_shape"] = True
    else:
        target = "taming.models.vqgan.VQSegmentationModel"
        condition = first_stage(channels) | {"n_labels": channels}
        condition["sane_index_shape"] = True
    count = (SIDE // FACTOR) ** 2
    return {
        "transformer_config": {
            "target": "taming.modules.transformer.mingpt.GPT",
            "params": {
                "vocab_size": COORDINATES if channels is None else CODES, "block_size": 2 * count,
                "n_layer": 2, "n_head": HEADS, "n_embd": 32,
            },
        },
        "first_stage_config": {
            "target": "taming.models.vqgan.VQModel", "params": first_stage(3),
        },
        "cond_stage_config": {"target": target, "params": condition},
    }  # fmt: skip


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of a checkpoint, by its full name."""
    if name.endswith(("tok_emb.weight", "pos_emb")):
        return weights.normal(name, shape)
    return weights.weight(name, shape)


def class_map(name: str, sides: tuple[int, int]) -> np.ndarray:
    """Classes of pixels, in patches."""
    patches = tuple(-(-side // 4) for side in sides)
    drawn = weights.normal(f"{name}.classes.{sides}", patches)
    classes = (np.abs(drawn) * 1e6).astype(np.int64) % CHANNELS[name]
    return np.kron(classes, np.ones((4, 4), np.int64))[: sides[0], : sides[1]]


def depth(sides: tuple[int, int]) -> np.ndarray:
    """Numbers of 16 bits."""
    smooth = np.cumsum(weights.normal(f"depth.{sides}", sides), axis=0)
    smooth -= smooth.min()
    return np.round(smooth / smooth.max() * 50000).astype(np.uint16) + 300


def picture() -> np.ndarray:
    """An image, uint8 [h, w, 3]."""
    drawn = np.tanh(weights.normal("codes.image", (SIDE, SIDE, 3)))
    return np.round((drawn + 1) * 127.5).astype(np.uint8)
