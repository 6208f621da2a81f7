"""This project's own forms of a model: the work directory of a run, read, and a folder that says
all about one model and loads as it is, read and written. The folder holds:

model.json             the config, JSON of `cfg.Model`, `cfg.Autoencoder` of a first stage, or
                       `cfg.CodeModel` of a transformer over codes
weights.safetensors    the parameters by path: `unet/conv_in/kernel`, `autoencoder/…`
tokenizer/             the tokenizer's files, for text
origin.json            what it was converted from
digests.json           size and SHA-256 of all of these
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax

from ldm_jax import config as cfg
from ldm_jax.adapters.adapted import take_apart
from ldm_jax.adapters.merging import merge
from ldm_jax.convert import claims, imported_model
from ldm_jax.convert.imported_codes import ImportedCodes
from ldm_jax.convert.imported_model import DTYPES, ConvertError, Dtype, Imported
from ldm_jax.convert.model_folders import copy_tokenizer, new_folder
from ldm_jax.core import tree
from ldm_jax.core.files import DIGESTS, damage, write_digests
from ldm_jax.core.reading import parse_json, read_json, read_text
from ldm_jax.core.stores import as_path
from ldm_jax.formats.safetensors_file import read_safetensors, write_safetensors
from ldm_jax.workdir.checkpoints import Checkpoints
from ldm_jax.workdir.frozen import load_first_stage, load_untrained
from ldm_jax.workdir.layout import tokenizer_of
from ldm_jax.workdir.run_config import read_config

CONFIG = "model.json"
WEIGHTS = "weights.safetensors"
TOKENIZER = "tokenizer"
ORIGIN = "origin.json"


def read_native(path: str | Path) -> Imported:
    """The model that `write_native` wrote, once all of its files are found to be as they were.

    Raises:
        ConvertError, FileFormatError, ConfigError: names the file that is missing, damaged or
            altered, or the parameters that do not fit the config.
    """
    path = as_path(path)
    config, components, about = _contents(path)
    if isinstance(config, cfg.CodeModel):
        raise ConvertError(
            f"{path} is a transformer over codes; draw from it with python -m "
            "ldm_jax.cli.sample_codes"
        )
    tokenizer = path / TOKENIZER
    return imported_model.make(
        config, components, tokenizer=tokenizer if tokenizer.is_dir() else None, **about
    )


def read_native_codes(path: str | Path) -> ImportedCodes:
    """The model of codes that `write_native` wrote; raises as `read_native`."""
    config, components, about = _contents(as_path(path))
    if not isinstance(config, cfg.CodeModel):
        raise ConvertError(
            f"{path} describes a {type(config).__name__}, not a transformer over codes; diffusion "
            "models are drawn from with sample.py"
        )
    params = {"transformer": components.pop("transformer")}
    return ImportedCodes(config, params, components, **about)


def is_native_codes(path: Path) -> bool:
    """Whether `path` is a folder that says that it is a model of codes."""
    file = path / CONFIG
    return file.is_file() and read_json(file).get("type") == cfg.CodeModel.__name__


def _contents(path: Path) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The config, the components' parameters, and `origin` and `notes`, once all files are found to
    be as they were."""
    config = _config(path / CONFIG)
    origin = read_json(path / ORIGIN) if (path / ORIGIN).is_file() else {}
    notes = _check_files(path)
    tensors, _ = read_safetensors(path / WEIGHTS)
    for name, part in imported_model.component_configs(config).items():
        own = {n: tensor for n, tensor in tensors.items() if n.startswith(f"{name}/")}
        claims.check(part, own, str(path / CONFIG))
    foreign = [name for name, t in tensors.items() if t.dtype not in DTYPES.values()]
    if foreign:
        raise ConvertError(f"{path / WEIGHTS}: {foreign[0]} is {tensors[foreign[0]].dtype}")

    def wanted(at: Any, leaf: Any) -> jax.ShapeDtypeStruct:
        name = jax.tree_util.keystr(at, simple=True, separator="/")
        dtype = tensors[name].dtype if name in tensors else leaf.dtype
        return jax.ShapeDtypeStruct(leaf.shape, dtype)

    template = jax.tree_util.tree_map_with_path(wanted, imported_model.shapes(config))
    try:
        components = tree.merge(template, tree.unflatten(tensors))
    except tree.TreeError as error:
        raise ConvertError(f"{path / WEIGHTS} does not fit {CONFIG}: {error}") from error
    return config, components, {"origin": origin, "notes": notes}


def _check_files(path: Path) -> tuple[str, ...]:
    """Raises ConvertError unless every file is as it was written; what to say of a folder of
    earlier versions, which have no digests."""
    noted = path / DIGESTS
    if not noted.exists():
        return (
            f"{path} has no {DIGESTS}, so that damage to its files would not be seen; "
            f"python -m ldm_jax.convert {path} TARGET writes a folder that has it",
        )
    read_json(noted)
    problems = damage(path, [TOKENIZER] if (path / TOKENIZER).is_dir() else [])
    if problems:
        raise ConvertError(
            f"{path} is not as it was written: {'; '.join(problems)}. Copy it again, or convert "
            f"the model anew. If you changed it on purpose, delete {noted} and convert the folder: "
            f"python -m ldm_jax.convert {path} TARGET"
        )
    return ()


def _config(path: Path) -> cfg.Model | cfg.Autoencoder | cfg.CodeModel:
    text = read_text(path)
    parse_json(path, "it", text)
    try:
        config = cfg.from_json(text)
    except cfg.ConfigError as error:
        raise ConvertError(f"{path}: {error}") from error
    if not isinstance(config, cfg.Model | cfg.Autoencoder | cfg.CodeModel):
        raise ConvertError(f"{path} describes a {type(config).__name__}, not a model")
    if isinstance(config, cfg.Model) and config.autoencoder.latent_scale is None:
        raise ConvertError(f"{path}: autoencoder.latent_scale is null; a whole model has one")
    return config


def write_native(
    imported: Imported | ImportedCodes,
    path: str | Path,
    *,
    dtype: Dtype = None,
    overwrite: bool = False,
) -> Imported | ImportedCodes:
    """Writes the folder, whole or not at all; returns the model as it was written.

    Raises:
        ConvertError: `path` exists, or a weight is too large for `dtype`.
    """
    with new_folder(as_path(path), overwrite) as folder:
        tensors = imported_model.cast(tree.flatten(imported.components()), dtype)
        write_safetensors(folder / WEIGHTS, tensors)
        (folder / CONFIG).write_text(cfg.to_json(imported.config), encoding="utf-8")
        (folder / ORIGIN).write_text(json.dumps(imported.origin, indent=2) + "\n")
        if imported.tokenizer is not None:
            copy_tokenizer(imported.tokenizer, folder / TOKENIZER)
        write_digests(folder)
    return imported


def read_workdir(
    path: str | Path, *, weights: Literal["ema", "raw"] | None = None, step: int | None = None
) -> Imported:
    """A checkpoint of a run: a whole model, or the first stage of an autoencoder's run. What was
    trained beside a model is merged into it.

    Args:
        path: what `train.py` wrote.
        weights: `ema`, the parameter average, or `raw`; None: averages where the run keeps them.
        step: which checkpoint; None is the newest.

    Raises:
        FileNotFoundError, ValueError: no checkpoint, a damaged one, or no average.
    """
    path = as_path(path)
    run, params, origin = read_trained(path, weights, step)
    if isinstance(run, cfg.AutoencoderRun):
        return imported_model.make(run.autoencoder, {"autoencoder": params}, origin=origin)
    autoencoder, frozen = load_first_stage(run, path)
    config = run.model(imported_model.normalized(autoencoder, frozen))
    params = merge(*take_apart(params))
    tokenizer = tokenizer_of(path)
    imported = imported_model.make(
        config,
        {
            "unet": params["unet"], **params.get("conditioners", {}),
            "autoencoder": frozen["autoencoder"],
        },
        origin=origin,
        tokenizer=tokenizer if tokenizer.exists() else None,
    )  # fmt: skip
    notes = imported.notes
    if isinstance(run.adapter, cfg.Hypernetwork):
        notes = (*notes, f"this is the model without the hypernetwork that was trained beside it; "
                 f"draw with it by --hypernetwork={path}")  # fmt: skip
    if isinstance(run.adapter, cfg.TextualInversion):
        words = " ".join(map(repr, run.adapter.words))
        notes = (*notes, f"prompts know the words that were trained ({words}) by "
                 f"--embeddings={path}")  # fmt: skip
    return replace(imported, frozen=frozen, notes=notes)


def read_trained(
    path: Path, weights: Literal["ema", "raw"] | None = None, step: int | None = None
) -> tuple[cfg.Run, dict[str, Any], dict[str, Any]]:
    """The run of a work directory, all parameters of its networks with what was trained beside
    them, and what a model says of where it is from. Arguments and errors as of `read_workdir`."""
    run = read_config(path)
    weights = weights or ("raw" if run.optim.ema_decay is None else "ema")
    step, params = Checkpoints.load_params(path, weights, step)
    origin = {
        "source": path.name, "kind": "workdir", "weights": weights, "step": step,
        "dtype": run.loop.dtype,
    }  # fmt: skip
    return run, tree.join(params, load_untrained(run, path)), origin
