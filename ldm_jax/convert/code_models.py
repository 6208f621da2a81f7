"""A transformer over codes with its first stage, from a work directory or a published file."""

from pathlib import Path
from typing import Any, Literal

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.loading import workdir_of
from ldm_jax.convert.taming import ImportedCodes, read_taming
from ldm_jax.workdir.checkpoints import Checkpoints
from ldm_jax.workdir.frozen import load_condition_stage, load_first_stage
from ldm_jax.workdir.run_config import read_config


def load_code_model(
    path: str | Path, *, weights: Literal["ema", "raw"] | None = None, **choices: Any
) -> ImportedCodes:
    """The model in `path`, float32 on the host.

    Args:
        path: the work directory of a `CodeTransformerRun`, whose newest checkpoint is read, or one
            of its checkpoints; or a file of taming-transformers.
        weights: of a work directory; by default the averages, where there are any.
        choices: of a file, those of `read_taming`.

    Raises:
        ConvertError, FileFormatError, ConfigError, FileNotFoundError: what is wrong, and where; or
            a choice that does not belong to such a source.
    """
    path = Path(path)
    given = {name: value for name, value in choices.items() if value is not None}
    if path.is_file():
        if weights is not None:
            raise ConvertError(f"{path} is a file, whose weights are of one kind; leave --weights")
        found = read_taming(path, **given)
        params, frozen = map(imported_model.materialize, (found.params, found.frozen))
        return ImportedCodes(found.config, params, frozen, found.origin, found.ignored)
    if given:
        raise ConvertError(
            f"{path} is a work directory, which says itself what it is; leave out "
            f"{', '.join(f'--{name}' for name in given)}"
        )
    return _of_workdir(path, weights)


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
    return ImportedCodes(config, params, frozen | more, origin, {})
