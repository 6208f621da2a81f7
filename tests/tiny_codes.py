"""A small transformer over codes with its first stage, and its file as taming-transformers has."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tiny

from ldm_jax import code_model
from ldm_jax import config as cfg
from ldm_jax.config.autoregressive import code_model as fitted
from ldm_jax.convert import imported_model, state_dicts
from ldm_jax.convert.compvis import keys
from ldm_jax.convert.native import write_native

AUTOENCODER = replace(
    tiny.AUTOENCODER, patch_size=1, block_out_channels=(32, 32), norm_num_groups=32,
    mid_attention=True,
    bottleneck=cfg.VQ(size=12, weighting="legacy"),
)  # fmt: skip
"""4 x 4 codes of images of 8 pixels."""
TRANSFORMER = cfg.CodeTransformer(layers=2, width=16, num_heads=2)


CLASS_MAPS = replace(AUTOENCODER, image_channels=11, bottleneck=cfg.VQ(size=9, weighting="legacy"))
"""4 x 4 codes of class maps of DigitScenes' classes, of 8 pixels."""


DEPTH = replace(CLASS_MAPS, image_channels=1)
"""Such codes of depth maps."""


def config(**changes: Any) -> cfg.CodeModel:
    """A model of five classes; `changes` are of its transformer."""
    return fitted(AUTOENCODER, replace(TRANSFORMER, **changes), cfg.ClassPrefix(5), 8)


def of_class_maps() -> cfg.CodeModel:
    """A model of class maps."""
    condition = cfg.ClassMapPrefix(cfg.ClassMaps(11, ignore=None))
    return fitted(AUTOENCODER, TRANSFORMER, condition, 8, CLASS_MAPS)


def of_depth() -> cfg.CodeModel:
    """A model of depth."""
    return fitted(AUTOENCODER, TRANSFORMER, cfg.DepthPrefix(), 8, DEPTH)


def params_of(config: cfg.CodeModel, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is trained and what is frozen, of numbers large enough that all matter."""
    shapes = {
        "transformer": imported_model.code_transformer_shapes(config.transformer),
        "autoencoder": imported_model.autoencoder_shapes(config.autoencoder),
    }
    if config.condition_stage is not None:
        shapes["condition_stage"] = imported_model.autoencoder_shapes(config.condition_stage)
    random = np.random.default_rng(seed)

    def fill(leaf: Any) -> np.ndarray:
        return 0.3 * random.standard_normal(leaf.shape, np.float32)

    import jax

    filled = jax.tree.map(fill, shapes)
    if config.condition_stage is not None:
        # Features of about one size, so that class maps have different codes.
        stage = filled["condition_stage"]
        filled["condition_stage"] = jax.tree_util.tree_map_with_path(normalised, stage)
    return {"transformer": filled.pop("transformer")}, filled


def normalised(path: Any, leaf: np.ndarray) -> np.ndarray:
    """A parameter that keeps features as large as they are."""
    if leaf.ndim == 1:
        return leaf + np.float32(path[-1].key == "scale")
    return leaf / np.float32(0.3 * (leaf[..., 0].size if leaf.ndim == 4 else 1) ** 0.5)


def choice(config: cfg.CodeModel, **sampling: Any) -> code_model.Choice:
    return code_model.choice_of(cfg.CodeSampling(**sampling), config)


def write_first_stage(folder: Path) -> Path:
    """The first stage alone, as a native folder."""
    _, frozen = params_of(config())
    write_native(imported_model.make(AUTOENCODER, frozen), folder)
    return folder


def write_first_stages(folder: Path) -> tuple[Path, Path, Path]:
    """Those of images, of class maps and of depth, as native folders."""
    _, frozen = params_of(of_class_maps())
    stage = imported_model.make(CLASS_MAPS, {"autoencoder": frozen["condition_stage"]})
    write_native(stage, folder / "class_maps")
    _, frozen = params_of(of_depth())
    stage = imported_model.make(DEPTH, {"autoencoder": frozen["condition_stage"]})
    write_native(stage, folder / "depth")
    return write_first_stage(folder / "images"), folder / "class_maps", folder / "depth"


def taming_tensors(
    config: cfg.CodeModel, params: dict[str, Any], frozen: dict[str, Any]
) -> dict[str, np.ndarray]:
    """The tensors of a file of taming-transformers, buffers included."""
    transformer = config.transformer
    named = state_dicts.to_torch(params["transformer"])
    named["pos_emb"] = named.pop("pos_emb.weight")[None]
    size = transformer.block_size
    for i in range(transformer.layers):
        named[f"blocks.{i}.attn.mask"] = np.tril(np.ones((1, 1, size, size), np.float32))
    both = {f"transformer.{n}": t for n, t in named.items()}
    for part, stage, prefix in (
        ("autoencoder", config.autoencoder, "first_stage_model"),
        ("condition_stage", config.condition_stage, "cond_stage_model"),
    ):
        if stage is not None:
            first = state_dicts.to_torch(frozen[part])
            first = keys.write(first, keys.autoencoder_places(first, stage))
            both |= {f"{prefix}.{n}": t for n, t in first.items()}
    return {name: np.ascontiguousarray(tensor) for name, tensor in both.items()}
