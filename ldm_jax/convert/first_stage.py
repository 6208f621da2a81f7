"""The first stage of any model, by itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.convert.bundle import materialize
from ldm_jax.convert.load import kind_of, load
from ldm_jax.training.checkpoint import read_config


@dataclass(frozen=True)
class FirstStage:
    """An autoencoder with its parameters, float32 on the host."""

    config: cfg.Autoencoder
    params: dict[str, Any]
    latent_scale: float | None
    """What latents are multiplied by; None where training has yet to measure it."""
    name: str
    run: cfg.Run | None = None
    """The run of a work directory."""


def read_first_stage(path: str | Path, **choices: Any) -> FirstStage:
    """The first stage of a work directory, a native or diffusers folder, or a CompVis file, of a
    whole model or alone. `choices` are those of `load`.

    Of an autoencoder's work directory come the averages where it keeps them, which stage two takes.

    Raises:
        ConvertError, FileFormatError, ConfigError, FileNotFoundError: as `load`.
    """
    run = None
    if not str(path).startswith("hf:") and kind_of(Path(path)) == "workdir":
        run = read_config(Path(path))
        if run.optim.ema_decay is None:
            choices.setdefault("weights", "raw")
    imported = load(path, **choices)
    scale = imported.frozen.get("latent_scale")
    return FirstStage(
        config=imported.autoencoder,
        params=materialize(imported.frozen["autoencoder"]),
        latent_scale=None if scale is None else float(scale),
        name=str(path),
        run=run,
    )
