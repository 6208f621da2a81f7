"""The config of a work directory, and what may change in it when a run goes on."""

import re
from pathlib import Path
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.core.files import write_atomically
from ldm_jax.core.reading import read_text
from ldm_jax.core.stores import there
from ldm_jax.workdir.layout import CONFIG

FREE_FIELDS = {
    "loop.steps", "loop.max_hours", "loop.log_every", "loop.norm_depth", "loop.checkpoint_every",
    "loop.keep", "loop.validate_every", "loop.validation_batches", "loop.sample_every",
    "loop.sample_guidance", "loop.prompts", "loop.classes", "loop.remat", "sampling.temperature",
    "sampling.top_k", "sampling.top_p", "mesh.data", "mesh.fsdp", "mesh.tensor", "data.workers",
    "data.source.data_dir", "data.source.path", "data.source.validation_path", "data.source.index",
    "data.source.class_path", "data.source.on_broken",
    "loss.perceptual.vgg", "loss.perceptual.heads",
}  # fmt: skip
"""What may change when a run goes on: how long, how often, what is shown, on what devices,
from which folder.

Before the first checkpoint there is nothing to go on with, and everything may change."""


def is_free(field: str) -> bool:
    """Whether a setting may change when a run goes on; those of a mixture's sources as those of
    one source."""
    return re.sub(r"\.sources\.\d+", "", field) in FREE_FIELDS


def write_config(workdir: Path, config: Any) -> None:
    """Writes `config` as WORKDIR/config.json, atomically."""
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(workdir / CONFIG, cfg.to_json(config).encode())


def read_config(workdir: Path) -> Any:
    """The config in WORKDIR/config.json.

    Raises:
        FileNotFoundError: there is none.
        FileFormatError, cfg.ConfigError: it is damaged, is no file, or has settings that do
            not exist.
    """
    path = workdir / CONFIG
    if not there(path):
        raise FileNotFoundError(f"{path} does not exist; {workdir} is not a work directory")
    try:
        return cfg.from_json(read_text(path))
    except cfg.ConfigError as error:
        raise cfg.ConfigError(f"{path}: {error}") from error
