"""Models that this project trained, from their work directories."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from ldm_jax import config as cfg
from ldm_jax.convert import bundle
from ldm_jax.convert.bundle import Imported
from ldm_jax.core import tree
from ldm_jax.workdir.checkpoints import Checkpoints
from ldm_jax.workdir.frozen import load_first_stage, load_untrained
from ldm_jax.workdir.layout import tokenizer_of
from ldm_jax.workdir.run_config import read_config


def read_workdir(
    path: str | Path, *, weights: Literal["ema", "raw"] = "ema", step: int | None = None
) -> Imported:
    """A checkpoint of a run: a whole model, or the first stage of an autoencoder's run.

    Args:
        path: what `train.py` wrote.
        weights: `ema`, the parameter average, or `raw`.
        step: which checkpoint; None is the newest.

    Raises:
        FileNotFoundError, ValueError: no checkpoint, a damaged one, or no average.
    """
    path = Path(path)
    run = read_config(path)
    step, params = Checkpoints.load_params(path, weights, step)
    origin = {
        "source": path.name, "kind": "workdir", "weights": weights, "step": step,
        "dtype": run.loop.dtype,
    }  # fmt: skip
    if isinstance(run, cfg.AutoencoderRun):
        return bundle.make(run.autoencoder, {"autoencoder": params}, origin=origin)
    autoencoder, frozen = load_first_stage(run, path)
    config = run.model(bundle.with_scale(autoencoder, frozen["latent_scale"]))
    tokenizer = tokenizer_of(path)
    params = tree.join(params, load_untrained(run, path))
    imported = bundle.make(
        config,
        {
            "unet": params["unet"], **params.get("conditioners", {}),
            "autoencoder": frozen["autoencoder"],
        },
        origin=origin,
        tokenizer=tokenizer if tokenizer.exists() else None,
    )  # fmt: skip
    return replace(imported, frozen=frozen)
