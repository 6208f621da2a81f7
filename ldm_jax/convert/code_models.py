"""A transformer over codes with its first stages, from a work directory, a native folder or a
published file."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model
from ldm_jax.convert.compvis.reader import read_any
from ldm_jax.convert.imported_codes import ImportedCodes
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.loading import workdir_of
from ldm_jax.convert.native import CONFIG as MODEL
from ldm_jax.convert.native import is_native_codes, read_native_codes
from ldm_jax.convert.parts import fitting, refuse_differing
from ldm_jax.convert.taming import is_code_model, read_taming
from ldm_jax.convert.taming_settings import Told
from ldm_jax.core.stores import as_path
from ldm_jax.workdir.checkpoints import Checkpoints
from ldm_jax.workdir.frozen import load_condition_stage, load_first_stage
from ldm_jax.workdir.layout import CHECKPOINTS
from ldm_jax.workdir.run_config import read_config


def holds_codes(path: Path) -> bool:
    """Whether `path` has a transformer over codes; False too for what cannot be read.

    Raises:
        FileFormatError: it is damaged.
    """
    if path.is_file():
        return is_code_model(read_any(path)[0])
    if is_native_codes(path):
        return True
    workdir, _ = workdir_of(path)
    return (workdir / CHECKPOINTS).is_dir() and isinstance(
        read_config(workdir), cfg.CodeTransformerRun
    )


def open_code_model(
    path: str | Path, *, weights: Literal["ema", "raw"] | None = None, **choices: Any
) -> ImportedCodes:
    """The model in `path`, its leaves as they are stored.

    Args:
        path: the work directory of a `CodeTransformerRun`, whose newest checkpoint is read, or one
            of its checkpoints; a native folder; or a file of taming-transformers.
        weights: of a work directory; by default the averages, where there are any.
        choices: of a file, those of `read_taming`.

    Raises:
        ConvertError, FileFormatError, ConfigError, FileNotFoundError: what is wrong, and where; or
            a choice that does not belong to such a source.
    """
    path = as_path(path)
    given = {name: value for name, value in choices.items() if value is not None}
    native = (path / MODEL).is_file()
    if weights is not None and (native or path.is_file()):
        raise ConvertError(f"{path} has weights of one kind; leave out --weights")
    if path.is_file():
        return read_taming(path, **given)
    given.pop("told", None)
    if given:
        raise ConvertError(
            f"{path} is a folder, which says itself what it holds; leave out "
            f"{', '.join(f'--{name}' for name in given)}"
        )
    return read_native_codes(path) if native else _of_workdir(path, weights)


def load_code_model(path: str | Path, **choices: Any) -> ImportedCodes:
    """What `open_code_model` gives, float32 on the host; raises as it does."""
    return open_code_model(path, **choices).materialized()


def initial_codes(
    path: str | Path, run: cfg.CodeTransformerRun, option: str = "--init"
) -> ImportedCodes:
    """The model that a new run begins with; what a published file does not tell, `run` does.

    Raises:
        ConfigError, ValueError, OSError: as `open_code_model`.
    """
    network = run.transformer
    told = Told(network.num_heads, run.condition, network.n_unmasked, run.data.image_size)
    try:
        return load_code_model(path, told=told)
    except cfg.ConfigError as error:
        raise cfg.ConfigError(f"{option}={path}: {error}") from error


def initial_transformer(found: ImportedCodes, config: cfg.CodeModel, source: str) -> dict[str, Any]:
    """The parameters of the transformer of `found`, which that of `config` must be but for its
    dropout.

    Raises:
        ConfigError: it is another; names the settings that differ.
    """
    without = {name: 0.0 for name in _DROPOUT}
    networks = (replace(of.transformer, **without) for of in (found.config, config))
    differing = cfg.differences(*networks, "transformer")
    refuse_differing(differing, source, "transformer", "config.transformer")
    shapes = imported_model.code_transformer_shapes(config.transformer)
    return {"transformer": fitting(shapes, found.params["transformer"], source)}


_DROPOUT = ("embedding_dropout", "residual_dropout", "attention_dropout")


def _of_workdir(path: Path, weights: Literal["ema", "raw"] | None) -> ImportedCodes:
    workdir, step = workdir_of(path)
    run = read_config(workdir)
    if not isinstance(run, cfg.CodeTransformerRun):
        raise ConvertError(
            f"{path} holds a {type(run).__name__}, not a transformer over codes (a "
            "CodeTransformerRun); diffusion models are drawn from with sample.py"
        )
    if weights is None:
        weights = "raw" if run.optim.ema_decay is None else "ema"
    step, params = Checkpoints.load_params(workdir, weights, step)
    autoencoder, frozen = load_first_stage(run, workdir)
    of_conditions, more = load_condition_stage(run, workdir)
    origin = {"source": workdir.name, "kind": "workdir", "weights": weights, "step": step}
    config = run.model(autoencoder, of_conditions)
    return ImportedCodes(config, params, frozen | more, origin)
