"""The first stage of any model by itself, to encode with, to measure, or to begin a run with."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.convert import bundle, hub
from ldm_jax.convert.loading import kind_of, load
from ldm_jax.core import tree
from ldm_jax.workdir.run_config import read_config


@dataclass(frozen=True)
class FirstStage:
    """An autoencoder with its parameters, float32 on the host."""

    config: cfg.Autoencoder
    params: dict[str, Any]
    latent_scale: float | None
    """What latents are multiplied by; None where training has yet to measure it."""
    name: str


def read_first_stage(path: str | Path, **choices: Any) -> FirstStage:
    """The first stage of a work directory, a native or diffusers folder, or a CompVis file, of a
    whole model or alone. `choices` are those of `load`.

    Of an autoencoder's work directory come the averages where it keeps them, which stage two takes.

    Raises:
        ConvertError, FileFormatError, ConfigError, FileNotFoundError: as `load`.
    """
    if not str(path).startswith(hub.PREFIX) and kind_of(Path(path)) == "workdir":
        run = read_config(Path(path))
        if run.optim.ema_decay is None:
            choices.setdefault("weights", "raw")
    imported = load(path, **choices)
    if isinstance(imported.autoencoder, cfg.Pixels):
        raise cfg.ConfigError(f"{path} has no first stage: it works on pixels")
    scale = imported.frozen.get("latent_scale")
    return FirstStage(
        config=imported.autoencoder,
        params=bundle.materialize(imported.frozen["autoencoder"]),
        latent_scale=None if scale is None else float(scale),
        name=str(path),
    )


def first_stage_params(path: str | Path, config: cfg.Autoencoder) -> dict[str, Any]:
    """The parameters (numpy, float32) of the autoencoder in `path`, which `config` must describe.

    Of a work directory's they are the average, or the parameters themselves where none is kept.
    How a codebook was trained may differ: that is no part of what is loaded.

    Args:
        path: a work directory, or whatever else `load` reads.
        config: the autoencoder that they are for.

    Raises:
        ConfigError, ValueError, OSError: no autoencoder in `path`, or another one; names the
            settings or parameters that differ.
    """
    given = read_first_stage(path)
    found = given.config
    same: dict[str, Any] = {"latent_scale": found.latent_scale}
    if type(found.bottleneck) is type(config.bottleneck):
        same["bottleneck"] = found.bottleneck
    differing = cfg.differences(found, replace(config, **same))
    if differing:
        listed = "; ".join(
            f"{where} is {old!r} there, {new!r} here" for where, old, new in differing
        )
        raise cfg.ConfigError(
            f"--init={path} holds another autoencoder than this config's: {listed}. Set "
            "config.autoencoder to what is there"
        )
    try:
        return tree.merge(bundle.autoencoder_shapes(config), given.params)
    except tree.TreeError as error:
        raise cfg.ConfigError(f"--init={path} does not fit this config: {error}") from error
