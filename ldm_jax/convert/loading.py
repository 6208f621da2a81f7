"""A model from whatever holds it: work directory, native folder, diffusers folder, single file."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ldm_jax import config as cfg
from ldm_jax.convert import hub, native
from ldm_jax.convert.clip.clip_folders import is_clip, read_clip
from ldm_jax.convert.compvis.reader import read_checkpoint
from ldm_jax.convert.diffusers.pipeline_folders import CONFIG, INDEX, read_component, read_folder
from ldm_jax.convert.diffusers.text_encoders import read_text_encoder as read_text_encoder_config
from ldm_jax.convert.fields import Fields
from ldm_jax.convert.imported_model import ConvertError, Imported
from ldm_jax.convert.native import read_workdir
from ldm_jax.convert.sentence_encoders import MODEL_TYPE, read_sentence_encoder
from ldm_jax.core.reading import read_json
from ldm_jax.core.stores import as_path, there
from ldm_jax.workdir.layout import CHECKPOINTS

Kind = Literal["workdir", "native", "diffusers", "compvis"]

_CHOICES = {
    "workdir": {"weights"}, "native": {"tokenizer"}, "diffusers": {"variant", "tokenizer"},
    "compvis": {
        "weights", "prediction", "original_config", "tokenizer", "vae", "text_encoder",
    },
}  # fmt: skip


def load(
    path: str | Path,
    *,
    weights: Literal["ema", "raw"] | None = None,
    variant: str | None = None,
    prediction: Literal["eps", "x0", "v"] | None = None,
    original_config: str | Path | None = None,
    tokenizer: str | Path | None = None,
    vae: str | Path | None = None,
    text_encoder: str | Path | None = None,
) -> Imported:
    """The model in `path`.

    Args:
        path: a work directory, whose newest checkpoint is read, or one of its checkpoints
            (`WORKDIR/checkpoints/STEP`); a native or diffusers folder, or a CompVis single file;
            or `hf:OWNER/NAME`, a diffusers folder of the hub, which is downloaded.
        weights: of a work directory (by default `ema` where the run keeps averages) or a single
            file (`raw`, or the averages where it has nothing else).
        variant: of a diffusers folder, such as fp16.
        prediction: of a single file that does not tell.
        original_config: the YAML settings of a single file of no published architecture.
        tokenizer: folder of a tokenizer, for what has none or another.
        vae: whatever holds the first stage of a single file without one, or another.
        text_encoder: whatever holds the text encoder of a single file without one, or another: a
            model, or the component's folder alone.

    Raises:
        ConvertError, FileFormatError, ConfigError, FileNotFoundError: what is wrong, and where; or
            a choice that does not belong to such a source.
    """
    path = hub.fetch(str(path)) if str(path).startswith(hub.PREFIX) else as_path(path)
    kind = kind_of(path)
    choices = {
        "weights": weights, "variant": variant, "prediction": prediction,
        "original_config": original_config, "tokenizer": tokenizer, "vae": vae,
        "text_encoder": text_encoder,
    }  # fmt: skip
    given: dict[str, Any] = {name: value for name, value in choices.items() if value is not None}
    wrong = sorted(given.keys() - _CHOICES[kind])
    if wrong:
        raise ConvertError(
            f"{path} is a {kind} model, which cannot be combined with "
            f"{', '.join('--' + w for w in wrong)}; leave it out"
        )
    try:
        return _read(path, kind, given)
    except cfg.ConfigError as error:
        raise cfg.ConfigError(f"{path}: {error}") from error


def _read(path: Path, kind: Kind, given: dict[str, Any]) -> Imported:
    match kind:
        case "workdir":
            workdir, step = workdir_of(path)
            return read_workdir(workdir, step=step, **given)
        case "diffusers":
            return read_folder(path, **given)
        case "compvis":
            weights = given.pop("weights", None)
            ema = None if weights is None else weights == "ema"
            return read_checkpoint(path, ema=ema, borrowed=_borrowed(given), **given)
    imported, tokenizer = native.read_native(path), given.get("tokenizer")
    return replace(imported, tokenizer=as_path(tokenizer)) if tokenizer else imported


def _borrowed(given: dict[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """What is taken from other models, whose paths are taken out of `given`."""
    parts: dict[str, tuple[Any, dict[str, Any]]] = {}
    for name in ("vae", "text_encoder"):
        path = str(given.get(name, hub.PREFIX))
        if not path.startswith(hub.PREFIX) and not as_path(path).exists():
            raise ConvertError(f"--{name}={path}: there is no such file or folder")
    if vae := given.pop("vae", None):
        other = load(vae)
        if not isinstance(other.autoencoder, cfg.Autoencoder):
            raise ConvertError(f"--vae={vae} has no first stage: that model works on pixels")
        parts["autoencoder"] = other.autoencoder, other.frozen["autoencoder"]
    if text_encoder := given.pop("text_encoder", None):
        parts["text_encoder"] = read_text_encoder(text_encoder, "--text_encoder")[:2]
    return parts


def read_text_encoder(
    path: str | Path, option: str, **choices: Any
) -> tuple[cfg.TextConditioner, dict[str, Any], Path | None]:
    """The text encoder of any model, of a CLIP, of a sentence encoder, or of its component's folder
    alone: its conditioner, its parameters, and the tokenizer of all but a component.

    `option` is what the user named `path` with; `choices` are those of `load`.

    Raises:
        ConvertError, FileFormatError, ConfigError, FileNotFoundError: as `load`, or there is none.
    """
    config = as_path(path) / CONFIG
    if is_clip(as_path(path)):
        return read_clip(path).text_encoder()
    if config.is_file() and "model_type" in (found := read_json(config)):
        if found["model_type"] == MODEL_TYPE:
            return read_sentence_encoder(path)
        fields = Fields.read(config)
        with fields.naming():
            text = read_text_encoder_config(fields)
        return text, read_component(as_path(path), text)[0], None
    other = load(path, **choices)
    text = cfg.find(getattr(other.config, "conditioners", ()), cfg.TextConditioner)
    if text is None:
        raise ConvertError(f"{option}={path} has no text encoder")
    return text, other.params["conditioners"][text.name], other.tokenizer


def kind_of(path: Path) -> Kind:
    """What `path` is, told by the files in it.

    Raises:
        ConvertError, FileFormatError: there is no such path, or no model in it.
    """
    if path.is_file():
        return "compvis"
    if not path.is_dir():
        what = "is neither a regular file nor a folder" if path.exists() else "does not exist"
        raise ConvertError(f"{path} {what}")
    # What has the name of a file and is none is refused by whoever reads it.
    if there(path / native.CONFIG):
        return "native"
    if there(path / INDEX):
        return "diffusers"
    config = path / CONFIG
    if there(config):
        found = read_json(config)
        if "_class_name" in found:
            return "diffusers"
        if found.get("type") in ("DiffusionRun", "AutoencoderRun"):
            return "workdir"
        if found.get("type") == "ClassifierRun":
            raise ConvertError(
                f"{path} is a classifier, which can guide a model but not draw; name the model, "
                "and pass this with --classifier"
            )
        if is_clip(path):
            raise ConvertError(
                f"{path} is a CLIP, which compares pictures with texts and does not draw; a run "
                "can take its text encoder by train.py --text_encoder"
            )
        if found.get("type") == "CodeTransformerRun":
            raise ConvertError(
                f"{path} is a transformer over codes; draw from it with python -m "
                "ldm_jax.cli.sample_codes"
            )
    workdir, step = workdir_of(path)
    if step is not None:
        return kind_of(workdir)
    raise ConvertError(
        f"{path} is not a model: it has neither {native.CONFIG} (native), nor {INDEX} "
        f"(diffusers), nor a {CONFIG} of a run or an autoencoder"
    )


def workdir_of(path: Path) -> tuple[Path, int | None]:
    """The work directory that `path` is, or is a checkpoint of (`WORKDIR/checkpoints/STEP`), and
    the checkpoint's step."""
    folder = path.absolute()
    workdir = folder.parent.parent
    named = folder.parent.name == CHECKPOINTS and folder.name.isdecimal()
    if named and (workdir / CONFIG).is_file():
        return workdir, int(folder.name)
    return path, None
