"""Reduced shapes of the published latent diffusion models, in the settings of the original code.

Names, settings and which parts a model has follow the configs published with the weights;
widths, vocabularies and numbers of blocks are reduced so that a test runs each in seconds.
"""

import zlib
from typing import Any

import numpy as np

TOKENS = 77


def _unet(channels: int, mult: tuple[int, ...], attention: tuple[int, ...], **more: Any) -> dict:
    """`attention` counts in factors of downsampling, as the original does."""
    return {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": channels,
        "num_res_blocks": 1, "channel_mult": mult, "attention_resolutions": attention, **more,
    }  # fmt: skip


def _first_stage(mult: tuple[int, ...], z: int, codebook: int | None = None, **more: Any) -> dict:
    """The KL autoencoder, or the VQ one if there is a codebook; attention counts in pixels."""
    dd = {
        "double_z": codebook is None, "z_channels": z, "resolution": 256, "in_channels": 3,
        "out_ch": 3, "ch": 32, "ch_mult": mult, "num_res_blocks": 1, "attn_resolutions": (),
        "dropout": 0.0, **more,
    }  # fmt: skip
    return {"ddconfig": dd, "embed_dim": z} | ({} if codebook is None else {"n_embed": codebook})


FIRST_STAGES: dict[str, dict] = {
    "kl-f4": _first_stage((1, 2, 4), 3),
    "kl-f8": _first_stage((1, 2, 4, 4), 4),
    "kl-f16": _first_stage((1, 1, 2, 2, 4), 16, attn_resolutions=(16,)),
    "kl-f32": _first_stage((1, 1, 2, 2, 4, 4), 64, attn_resolutions=(16, 8)),
    "vq-f4": _first_stage((1, 2, 4), 3, 64),
    "vq-f4-noattn": _first_stage((1, 2, 4), 3, 64, attn_type="none"),
    "vq-f8": _first_stage((1, 2, 2, 4), 4, 128, attn_resolutions=(32,)),
    "vq-f16": _first_stage((1, 1, 2, 2, 4), 8, 128, attn_resolutions=(16,)),
}

_ATTENDED = {"use_spatial_transformer": True, "transformer_depth": 1}
_BETAS = {"sd": (0.00085, 0.012), "ldm": (0.0015, 0.0195), "churches": (0.0015, 0.0155)}

MODELS: dict[str, dict] = {
    "sd1": {
        "unet": _unet(32, (1, 2, 4), (2, 1), num_heads=8, context_dim=128, legacy=False,
                      **_ATTENDED) | {"num_res_blocks": 2},
        "first_stage": "kl-f8", "text": ("clip", 128), "betas": _BETAS["sd"], "ema": True,
    },
    "sd2": {
        "unet": _unet(64, (1, 2), (2, 1), num_head_channels=64, context_dim=128, legacy=False,
                      use_linear_in_transformer=True, **_ATTENDED),
        "first_stage": "kl-f8", "text": ("openclip", 128), "betas": _BETAS["sd"], "ema": False,
    },
    "sd_inpaint": {
        "unet": _unet(32, (1, 2), (2, 1), num_heads=8, context_dim=128, legacy=False,
                      **_ATTENDED) | {"in_channels": 9},
        "first_stage": "kl-f8", "text": ("clip", 128), "betas": _BETAS["sd"], "ema": True,
    },
    "txt2img-1p4B": {
        "unet": _unet(32, (1, 2), (2, 1), num_heads=8, context_dim=32, legacy=False, **_ATTENDED),
        "first_stage": "kl-f8", "text": ("bert", 32), "betas": _BETAS["sd"], "ema": False,
    },
    "cin256": {
        "unet": _unet(32, (1, 2, 3), (4, 2), num_heads=1, context_dim=48, **_ATTENDED)
        | {"in_channels": 3, "out_channels": 3},
        "first_stage": "vq-f4", "classes": (11, 48), "betas": _BETAS["ldm"], "ema": False,
    },
    "ffhq256": {
        "unet": _unet(32, (1, 2, 3), (4, 2), num_head_channels=32)
        | {"in_channels": 3, "out_channels": 3},
        "first_stage": "vq-f4", "betas": _BETAS["ldm"], "ema": True,
    },
    "churches256": {
        "unet": _unet(32, (1, 2, 2), (1, 2), num_heads=8, use_scale_shift_norm=True,
                      resblock_updown=True),
        "first_stage": "kl-f8", "betas": _BETAS["churches"], "ema": True, "scale_by_std": True,
    },
}  # fmt: skip
"""Whole models; the first stage is named, text is (kind, width), classes are (count, width)."""

_RGB = {"in_channels": 6, "out_channels": 3}
TASKS: dict[str, dict] = {
    "bsr_sr": {
        "unet": _unet(32, (1, 2, 2), (8, 4), num_head_channels=32) | _RGB,
        "first_stage": "vq-f4", "betas": _BETAS["churches"],
    },
    "inpainting_big": {
        "unet": _unet(32, (1, 2), (2,), num_heads=8, resblock_updown=True)
        | {"in_channels": 7, "out_channels": 3},
        "first_stage": "vq-f4-noattn", "betas": (0.0015, 0.0205), "repeats": True,
    },
    "semantic_synthesis256": {
        "unet": _unet(32, (1, 2), (8,), num_heads=8) | _RGB,
        "first_stage": "vq-f4", "betas": (0.0015, 0.0205),
        "class_map": {"n_stages": 2, "in_channels": 5, "out_channels": 3},
    },
    "layout2img": {
        "unet": _unet(32, (1, 2), (2,), num_head_channels=32, context_dim=32,
                      use_spatial_transformer=True, transformer_depth=3)
        | {"in_channels": 3, "out_channels": 3},
        "first_stage": "vq-f4", "betas": (0.0015, 0.0205),
        "boxes": {"n_embed": 32, "n_layer": 2, "vocab_size": 120, "max_seq_len": 8,
                  "use_tokenizer": False},
    },
}  # fmt: skip
"""Models of conditional tasks; `class_map` and `boxes` are settings of the condition's encoder, and
with `repeats` it is the first stage once more."""


def inputs(name: str) -> dict[str, np.ndarray]:
    """What a network of `name` is given, NCHW; the same numbers wherever they are drawn."""
    random = np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))
    model = (MODELS | TASKS).get(name)
    stage = FIRST_STAGES[model["first_stage"] if model else name]
    dd = stage["ddconfig"]
    z, factor = stage["embed_dim"], 2 ** (len(dd["ch_mult"]) - 1)
    side = 32 if model else max(64, 2 * factor)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    found = {"image": normal(1, 3, side, side), "z": normal(1, z, side // factor, side // factor)}
    if model:
        found["x"] = normal(2, model["unet"]["in_channels"], 8, 8)
        found["t"] = np.array([3, 901])
        if "text" in model:
            found["tokens"] = random.integers(0, 50, (2, TOKENS))
            found["context"] = normal(2, TOKENS, model["text"][1])
        if "classes" in model:
            found["labels"] = random.integers(0, model["classes"][0], 2)
        if "class_map" in model:
            count = model["class_map"]["in_channels"]
            found["class_map"] = random.integers(0, count, (2, 8 * factor, 8 * factor))
        if "boxes" in model:
            shape = 2, model["boxes"]["max_seq_len"]
            found["tokens"] = random.integers(0, model["boxes"]["vocab_size"], shape)
    return found


DRAWN, DRAWING_STEPS = ("inpainting_big", "semantic_synthesis256", "layout2img"), 20
"""Tasks of which whole pictures are drawn, and in how many steps."""


def drawing_inputs(name: str) -> dict[str, np.ndarray]:
    """What one picture of 32 x 32 is drawn from, in the layout of files; the same numbers
    everywhere."""
    random = np.random.Generator(np.random.Philox(zlib.crc32(f"drawing {name}".encode())))
    settings, found = TASKS[name], {"noise": random.standard_normal((8, 8, 3)).astype(np.float32)}
    if "class_map" in settings:
        count = settings["class_map"]["in_channels"]
        found["class_map"] = random.integers(0, count, (32, 32))
    elif "boxes" in settings:
        boxes = settings["boxes"]
        found["boxes"] = random.integers(0, boxes["vocab_size"], boxes["max_seq_len"])
    else:
        found["image"] = random.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        found["mask"] = np.zeros((32, 32), np.uint8)
        found["mask"][5:19, 11:30] = 1
    return found
