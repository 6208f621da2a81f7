"""What a model is, in words: for `--inspect`, and after a conversion."""

import dataclasses
from collections import Counter
from typing import Any

import jax
import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import recognition
from ldm_jax.convert.imported_codes import ImportedCodes
from ldm_jax.convert.imported_model import Imported
from ldm_jax.core import tree

SHOWN = 3


def describe(imported: Imported | ImportedCodes) -> str:
    """Kind, architecture, parameters and dtypes of each component, process, and what is unused."""
    config, origin = imported.config, imported.origin
    lines = [f"{origin.get('source', '')}: {_kind(origin)}"]
    if isinstance(config, cfg.Model):
        process = config.diffusion
        lines += [
            f"condition: {_conditions(config.conditioners)}",
            *(
                f"text encoder: {_fields(part.encoder)}"
                for part in config.conditioners
                if isinstance(part, cfg.TextConditioner)
            ),
            f"U-Net: {_fields(config.unet)}",
            f"process: {process.prediction} prediction, {_process(process.process)}",
            f"sampling: {process.spacing} timesteps, ending at alpha_bar {process.final_alpha_bar}",
            "images: {} x {}".format(*config.sides),
            f"tokenizer: {imported.tokenizer or 'none'}",
        ]
    if isinstance(config, cfg.CodeModel):
        lines += [
            f"condition: {_fields(config.condition) if config.condition else 'none'}",
            f"transformer: {_fields(config.transformer)}",
            "images: {} x {}".format(*config.sides),
        ]
        if config.condition_stage is not None:
            lines.append(f"the condition's first stage: {_fields(config.condition_stage)}")
    name = recognition.first_stage(imported.autoencoder)
    published = f" (the shapes of {name})" if name else ""
    lines.append(f"first stage: {_fields(imported.autoencoder)}{published}")
    for name, part in imported.components().items():
        dtypes = Counter(np.dtype(leaf.dtype).name for leaf in jax.tree.leaves(part))
        listed = ", ".join(f"{dtype} x {n}" for dtype, n in dtypes.items())
        lines.append(f"{name}: {tree.count(part):,} parameters ({listed})")
    lines += [f"note: {note}" for note in imported.notes]
    reasons: dict[str, list[str]] = {}
    for tensor, why in imported.ignored.items():
        reasons.setdefault(why, []).append(tensor)
    for why, tensors in reasons.items():
        ends = tensors if len(tensors) <= SHOWN else [tensors[0], "...", tensors[-1]]
        lines.append(f"not used: {len(tensors)} tensors ({', '.join(ends)}): {why}")
    return "\n".join(lines)


def _conditions(conditioners: tuple[cfg.Conditioner, ...]) -> str:
    return "; ".join(_fields(part, "encoder") for part in conditioners) or "none"


def _kind(origin: dict[str, Any]) -> str:
    words = {
        "compvis": "a single file of CompVis' layout", "taming": "a file of taming-transformers",
        "diffusers": "a diffusers folder",
        "workdir": "a work directory of this project",
    }  # fmt: skip
    text = words.get(origin.get("kind", ""), "a native folder")
    text += {"ema": ", averaged weights", "raw": ", raw weights"}.get(origin.get("weights", ""), "")
    if "settings" in origin:
        text += f"; settings from {origin['settings']}"
    return text


def _process(process: cfg.Process) -> str:
    if not isinstance(process, cfg.Discrete):
        return _fields(process)
    ends = f"{process.beta_start} to {process.beta_end}"
    if process.schedule == "given":
        ends = f"{process.betas[0]:.6g} to {process.betas[-1]:.6g}"
    text = f"{process.schedule} schedule of {process.num_timesteps} steps, betas {ends}"
    return text + (", rescaled to zero terminal SNR" if process.zero_terminal_snr else "")


def _fields(config: Any, *without: str) -> str:
    """A config in one line, without what is as usual."""
    words = [
        f"{field.name} {getattr(config, field.name)}" for field in dataclasses.fields(config)
        if field.name not in without and getattr(config, field.name) not in (None, ())
    ]  # fmt: skip
    return f"{type(config).__name__}: {', '.join(words)}" if words else type(config).__name__
