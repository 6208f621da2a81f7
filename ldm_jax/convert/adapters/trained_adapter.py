"""The adapter that a run has trained, as one that is read from a file."""

from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.adapters.adapted import take_apart
from ldm_jax.adapters.adapter import UNET, Adapter, Modules
from ldm_jax.adapters.kind import BiasKind, Kind, WeightKind, mapped
from ldm_jax.convert.adapters.module_names import ModuleNames, Place
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.loading import kind_of, workdir_of
from ldm_jax.convert.native import read_trained

FAMILIES = {
    768: "Stable Diffusion 1", 1024: "Stable Diffusion 2",
    1280: "latent diffusion's text-to-image model", 2048: "SDXL",
}  # fmt: skip
"""By the width of the text that attention reads."""


def is_run(path: Path) -> bool:
    """Whether `path` is a work directory, or one of its checkpoints."""
    try:
        return path.is_dir() and kind_of(path) == "workdir"
    except ConvertError:
        return False


def read_trained_adapter(path: Path, names: ModuleNames | None = None) -> Adapter:
    """What the run in a work directory, or up to one of its checkpoints, has trained beside its
    model; of the averages where it keeps them.

    Args:
        path: the work directory, or its `checkpoints/STEP`.
        names: of the model that is to be changed; None for that of the run.

    Raises:
        ConvertError: the run trains no such adapter, or it does not fit the model.
        CheckpointError, FileNotFoundError: no checkpoint, or a damaged one.
    """
    workdir, step = workdir_of(path)
    run, params, origin = read_trained(workdir, step=step)
    adapter = getattr(run, "adapter", None)
    if not isinstance(adapter, cfg.ModuleAdapter):
        raise ConvertError(
            f"{path} is the work directory of a run that trains no adapter of modules; name it as "
            "a model"
        )
    (use,) = take_apart(params)[1]
    plain = {
        component: {at: tuple(mapped(one, np.asarray) for one in kinds)
                    for at, kinds in modules.items()}
        for component, modules in use.adapter.components.items()
    }  # fmt: skip
    if names is not None:
        for component, modules in plain.items():
            _check_fits(str(path), component, modules, names)
    family = FAMILIES.get(run.unet.context_dim or 0)
    return Adapter(plain, workdir.name, family, metadata=_metadata(run, adapter, origin["step"]))


def _metadata(run: cfg.DiffusionRun, adapter: cfg.ModuleAdapter, step: int) -> dict[str, str]:
    """How it was trained, under the names that other programs look for."""
    said: dict[str, Any] = {
        "ss_steps": step, "ss_seed": run.loop.seed, "ss_learning_rate": run.optim.learning_rate,
        "ss_optimizer": "AdamW", "ss_network_dropout": adapter.dropout,
    }  # fmt: skip
    if run.text_encoder_learning_rate is not None:
        said["ss_text_encoder_lr"] = run.text_encoder_learning_rate
    return {name: str(value) for name, value in said.items()}


def _check_fits(where: str, component: str, modules: Modules, names: ModuleNames) -> None:
    """Raises ConvertError unless the model has all modules, in their shapes."""
    own = UNET if component == UNET else names.text
    places = {p.path: p for p in names.places.values() if p.component == own}
    for path, kinds in modules.items():
        if path not in places:
            raise ConvertError(
                f"{where} changes {component}/{path}, which this model does not have"
            )
        for one in kinds:
            if problem := _misfit(one, places[path]):
                raise ConvertError(
                    f"{where} does not fit this model: {component}/{path}: {problem}"
                )


def _misfit(one: Kind, place: Place) -> str | None:
    if isinstance(one, WeightKind) and (problem := one.misfit(place.shape)):
        return problem
    if isinstance(one, BiasKind):
        return one.bias_misfit(place.bias or 0)
    return None
