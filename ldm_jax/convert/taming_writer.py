"""Files of VQGAN's second stage as taming-transformers has them, written."""

from pathlib import Path

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model, state_dicts
from ldm_jax.convert.compvis import keys, writer
from ldm_jax.convert.compvis.settings import METADATA
from ldm_jax.convert.imported_codes import ImportedCodes
from ldm_jax.convert.imported_model import Dtype
from ldm_jax.convert.model_folders import check_file
from ldm_jax.convert.obstacles import refuse
from ldm_jax.convert.taming import TRANSFORMER, transformer_places
from ldm_jax.core.stores import as_path
from ldm_jax.formats.safetensors_file import write_safetensors
from ldm_jax.images.condition_views import class_colour


def write_taming(
    imported: ImportedCodes, path: str | Path, *, dtype: Dtype = None, overwrite: bool = False
) -> ImportedCodes:
    """Writes one `.safetensors` file with the names of a checkpoint of `Net2NetTransformer`, and
    our config in its metadata; returns the model.

    Raises:
        ConvertError: a first stage has something that such files cannot hold, or `path` exists.
    """
    path, config = as_path(path), imported.config
    check_file(path, overwrite)
    stage = config.condition_stage
    of_conditions = [] if stage is None else writer.obstacles(stage)
    refuse([
        *writer.obstacles(config.autoencoder),
        *(why.replace("autoencoder", "condition_stage", 1) for why in of_conditions),
    ])  # fmt: skip
    out = _transformer(imported)
    for part, stage, prefix in (
        ("autoencoder", config.autoencoder, keys.FIRST_STAGE),
        ("condition_stage", config.condition_stage, keys.CONDITIONER),
    ):
        if stage is not None:
            params = state_dicts.to_torch(imported.frozen[part])
            there = keys.write(params, keys.autoencoder_places(params, stage))
            out |= {prefix + name: tensor for name, tensor in there.items()}
    if isinstance(config.condition, cfg.ClassMapPrefix):
        # What the original shows class maps in; it draws such colours at random.
        colours = [class_colour(n) for n in range(config.condition.maps.num_classes)]
        table = np.array(colours, np.float32).T / 127.5 - 1
        out[f"{keys.CONDITIONER}colorize"] = table[..., None, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    out = imported_model.cast(out, dtype)
    write_safetensors(path, out, {"format": "pt", METADATA: cfg.to_json(config)})
    return imported


def _transformer(imported: ImportedCodes) -> dict[str, np.ndarray]:
    config = imported.config.transformer
    params = state_dicts.to_torch(imported.params["transformer"])
    out = keys.write(params, transformer_places(config))
    out["pos_emb"] = out["pos_emb"][None]
    mask = np.tril(np.ones((config.block_size, config.block_size), np.float32))
    mask[: config.n_unmasked, : config.n_unmasked] = 1
    for i in range(config.layers):
        out[f"blocks.{i}.attn.mask"] = mask[None, None]
    return {TRANSFORMER + name: tensor for name, tensor in out.items()}
