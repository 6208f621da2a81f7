from pathlib import Path
from dataclasses import dataclass
from typing import Any
import numpy as np, jax
from ldm_jax import config as cfg
from ldm_jax.training.checkpoint import Checkpoints, read_config
from ldm_jax.training.stages import FIRST_STAGE, TOKENIZER, load_first_stage


@dataclass
class L:
    config: Any
    params: Any
    frozen: Any
    tokenizer: Any
    origin: Any


def load(path, weights="ema"):
    path = Path(path)
    run = read_config(path)
    if not isinstance(run, cfg.DiffusionRun):
        return L(run, 0, 0, 0, {})
    a, f = load_first_stage(path / FIRST_STAGE)
    step, params = Checkpoints.load_params(path, weights)
    return L(
        run.model(a),
        params,
        f,
        path / TOKENIZER,
        {"step": step, "dtype": run.loop.dtype, "weights": weights},
    )


def materialize(t, dtype="float32"):
    return t
