"""diffusers' folders, of a whole pipeline or of one autoencoder, read and written."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import claims, imported_model, state_dicts
from ldm_jax.convert.diffusers import architectures, pipelines, schedulers, text_encoders
from ldm_jax.convert.diffusers.pipelines import PIPELINES, pipeline_of
from ldm_jax.convert.fields import Fields
from ldm_jax.convert.imported_model import ConvertError, Dtype, Imported
from ldm_jax.convert.model_folders import copy_tokenizer, new_folder
from ldm_jax.convert.normalization import folded
from ldm_jax.convert.obstacles import of_first_stage, refuse
from ldm_jax.core.stores import as_path, there
from ldm_jax.formats.model_files import read_sharded, read_tensors
from ldm_jax.formats.safetensors_file import write_safetensors

INDEX = "model_index.json"
VERSION = "0.42.1"
"""The diffusers whose form is written; it asks for one."""
CONFIG = "config.json"
SCHEDULER = "scheduler_config.json"

# Pipelines have them beside the model; no picture depends on them but by being blanked.
_BESIDE = (
    "safety_checker", "feature_extractor", "image_encoder", "requires_safety_checker", "watermarker"
)  # fmt: skip
UNUSED = (
    (r".*position_ids", "the numbers 0, 1, 2, ..."),
    (r"text_projection\.weight|logit_scale", "of CLIP's comparison with pictures"),
    (r"to_logits\..*", "the language head, which the U-Net does not see"),
)
_LATENTS = 64
"""Side of the latents of Stable Diffusion, where nothing says another."""
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_folder(
    path: str | Path, *, variant: str | None = None, tokenizer: str | Path | None = None
) -> Imported:
    """The model of a pipeline's folder, or the first stage of an autoencoder's.

    Args:
        path: the folder, with `model_index.json` or an autoencoder's `config.json`.
        variant: reads `*.VARIANT.safetensors` in place of `*.safetensors`, such as fp16.
        tokenizer: a tokenizer's folder in place of the pipeline's.

    Raises:
        ConvertError, FileFormatError, ConfigError: names the file, and what in it is missing,
            damaged or not supported.
    """
    path = as_path(path)
    origin = {"source": path.name, "kind": "diffusers", "weights": "raw"}
    common: dict[str, Any] = {"origin": origin}
    if not there(path / INDEX):
        fields = Fields.read(path / CONFIG)
        with fields.naming():
            config = architectures.read_autoencoder(fields)
        params, ignored, notes = read_component(path, config, variant)
        return imported_model.make(
            config, {"autoencoder": params}, ignored=ignored, notes=notes,
            tokenizer=as_path(tokenizer) if tokenizer else None, **common,
        )  # fmt: skip

    index = Fields.read(path / INDEX)
    pipeline, places = _places(index)
    config, notes = _model(path, places, pipeline, index)
    notes += _unused_networks(index, pipeline)
    index.close()
    components, ignored = {}, {}
    for name, part in imported_model.component_configs(config).items():
        if name not in places:
            continue
        components[name], left, more = read_component(path / places[name], part, variant)
        ignored |= {f"{places[name]}/{tensor}": why for tensor, why in left.items()}
        notes += more
    if tokenizer is None and "tokenizer" in places:
        tokenizer = path / places["tokenizer"]
        if not tokenizer.is_dir():
            raise ConvertError(f"{tokenizer} is missing; {path / INDEX} names it")
    return imported_model.make(
        config, components, ignored=ignored, notes=tuple(notes),
        tokenizer=as_path(tokenizer) if tokenizer else None, **common,
    )  # fmt: skip


def read_component(
    folder: Path, config: Any, variant: str | None = None
) -> tuple[dict[str, Any], dict[str, str], tuple[str, ...]]:
    """Parameters of one component from its folder, what of the file is unused and why, and notes.

    Args:
        folder: with the weights, in one or several files.
        config: what the component is: a U-Net, conditioner or first stage.
        variant: takes the files of this variant, where there are such.

    Raises:
        ConvertError, FileFormatError: no weights, or others than those of `config`.
    """
    file, notes = weights_file(folder, variant)
    tensors = read_sharded(file) if file.suffix == ".json" else read_tensors(file)
    claims.check(config, tensors, str(folder / CONFIG))
    shapes = imported_model.component_shapes(config)
    params, ignored = state_dicts.from_torch(tensors, shapes, str(file), UNUSED, _spelling(shapes))
    return params, ignored, notes


def _places(index: Fields) -> tuple[str, dict[str, str]]:
    """The pipeline, and our name of each component → its folder's."""
    pipeline = index.text("_class_name")
    if pipeline not in PIPELINES:
        raise index.error("_class_name", f"one of {', '.join(PIPELINES)}")
    index.ignore(*_BESIDE, *PIPELINES[pipeline].beside)
    places = {}
    for folder, ours in PIPELINES[pipeline].places.items():
        value = index.get(folder, None)
        if ours == "tokenizer" and value in (None, [None, None]):
            continue
        if not isinstance(value, list) or len(value) != 2 or not all(value):
            raise index.error(folder, "a pair of library and class: the pipeline cannot do without")
        places[ours] = folder
    return pipeline, places


def _unused_networks(index: Fields, pipeline: str) -> tuple[str, ...]:
    """Notes on networks of the folder that make the condition."""
    named = [name for name in PIPELINES[pipeline].beside if index.get(name, None) is not None]
    there = [name for name in named if index.get(name, None) != [None, None]]
    return tuple(
        f"its {name} is not used or kept: what it estimates is read from files" for name in there
    )


def _model(
    path: Path, places: dict[str, str], pipeline: str, index: Fields
) -> tuple[cfg.Model, tuple[str, ...]]:
    """The config, and what to know about it; what the `pipeline` overrides or ignores of its parts
    is overridden and ignored here."""
    autoencoder, first_stage, notes = _first_stage(path / places["autoencoder"], pipeline)
    kind = PIPELINES[pipeline].kind
    fields = Fields.read(path / places["unet"] / CONFIG)
    sides, size_notes = _latent_sides(fields, first_stage, autoencoder.factor, kind)
    with fields.naming():
        unet = architectures.read_unet(fields)
    text = noise = None
    if "text_encoder" in places:
        described = Fields.read(path / places["text_encoder"] / CONFIG)
        with described.naming():
            text = text_encoders.read_text_encoder(described)
    if "low_res_scheduler" in places:
        adding = Fields.read(path / places["low_res_scheduler"] / SCHEDULER)
        noise = pipelines.read_noise(index, adding)
    unet, conditioners = pipelines.read_conditioners(
        pipeline, fields, unet, autoencoder.latent_channels, text, noise
    )
    schedule = Fields.read(path / places["scheduler"] / SCHEDULER)
    diffusion, schedule_notes = schedulers.read_scheduler(schedule, kind)
    try:
        size = cfg.image_size(*(side * autoencoder.factor for side in sides))
        config = cfg.Model(autoencoder, unet, conditioners, diffusion, size)
    except cfg.ConfigError as error:
        raise ConvertError(f"{path}: its parts do not match: {error}") from error
    return config, (*notes, *size_notes, *schedule_notes)


def _first_stage(folder: Path, pipeline: str) -> tuple[cfg.Autoencoder, Fields, tuple[str, ...]]:
    """The first stage as the `pipeline` uses it, its file, and what of that is not used."""
    fields, scale = Fields.read(folder / CONFIG), PIPELINES[pipeline].scale
    with fields.naming():
        autoencoder = architectures.read_autoencoder(fields, scale)
    notes = []
    said = fields.get("scaling_factor", scale)
    if scale is not None and said != scale:
        notes.append(
            f"scaling_factor of its first stage is {said}; {pipeline} of diffusers multiplies "
            f"latents by {scale}, as is done here"
        )
    if autoencoder.latent_mean:
        autoencoder = replace(autoencoder, latent_mean=(), latent_std=())
        notes.append(
            "shift_factor, latents_mean and latents_std of its first stage are not used: "
            f"{pipeline} of diffusers knows scaling_factor alone"
        )
    return autoencoder, fields, tuple(notes)


def _latent_sides(
    unet: Fields, autoencoder: Fields, factor: int, kind: str
) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Height and width of the latents of pictures by default, and what to know about them.

    A number is what the U-Net's file says, but below 64 for Stable Diffusion in files older than
    0.9.0, where diffusers' constructors take 64.
    """
    found = unet.get("sample_size", None)
    if isinstance(found, list) and len(found) == 2:
        height, width = unet.wholes("sample_size", ())
        return (height, width), ()
    if found is None:
        pixels = autoencoder.get("sample_size", None)
        told = type(pixels) is int and pixels >= factor and pixels % factor == 0
        side = pixels // factor if told else _LATENTS
        return (side, side), (
            f"the U-Net's file does not say the size of its pictures (sample_size); taken is "
            f"{side * factor}, as {'its first stage has' if told else 'Stable Diffusion has'}",
        )
    side = unet.whole("sample_size")
    if kind != schedulers.LATENT and side < _LATENTS and _older(unet, (0, 9)):
        return (_LATENTS, _LATENTS), (
            f"sample_size is {side} in a file older than diffusers 0.9.0, where its pipeline takes "
            f"{_LATENTS}: pictures are {_LATENTS * factor} pixels wide and high",
        )
    return (side, side), ()


def _older(fields: Fields, version: tuple[int, int]) -> bool:
    found = re.match(r"(\d{1,9})\.(\d{1,9})", str(fields.get("_diffusers_version", "")))
    return found is not None and (int(found[1]), int(found[2])) < version


_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_WEIGHTS = re.compile(
    rf"({'|'.join(_STEMS)})(?:\.(?P<one>[\w-]+))?\.(safetensors|bin)"
    rf"|({'|'.join(_STEMS)})\.(safetensors|bin)\.index(?:\.(?P<several>[\w-]+))?\.json"
)
_SHARD = re.compile(r"\d{5}-of-\d{5}")


def weights_file(folder: Path, variant: str | None) -> tuple[Path, tuple[str, ...]]:
    """The weights of a component, and a note where they are not of the variant that was asked for:
    the usual ones in place of a variant that is not there, or the only variant there is.

    Safetensors go before torch, one file before several.
    """
    found = _variants(folder)
    for wanted in (variant, None):
        if wanted in found:
            missing = f"{folder.name} has no weights of the variant {variant}; taken are those "
            return found[wanted], () if wanted == variant else (f"{missing}without a variant",)
    if len(found) == 1 and variant is None:
        only, file = next(iter(found.items()))
        return file, (f"{folder.name} has weights of the variant {only} alone, which are taken",)
    if not found:
        raise ConvertError(
            f"{folder} has no weights: no file called {' or '.join(_STEMS)} that ends in "
            ".safetensors or .bin"
        )
    wanted = f"of the variant {variant}" if variant else "without a variant"
    present = ", ".join(file.name for file in found.values())
    raise ConvertError(
        f"{folder} has no weights {wanted}: it has {present}; {imported_model.CHOOSE}--variant"
    )


def _variants(folder: Path) -> dict[str | None, Path]:
    """Variant, None for the usual weights → the file to read."""
    found: dict[str | None, list[tuple[bool, bool, int, Path]]] = {}
    for path in sorted(folder.glob("*")):
        match = _WEIGHTS.fullmatch(path.name)
        if match is None or not path.is_file():
            continue
        variant = match["one"] or match["several"]
        if variant is not None and _SHARD.match(variant):
            continue
        stem = _STEMS.index(path.name.partition(".")[0])
        order = (".bin" in path.name, path.suffix == ".json", stem, path)
        found.setdefault(variant, []).append(order)
    return {variant: min(files)[-1] for variant, files in found.items()}


def _spelling(shapes: Any) -> Callable[[str], str]:
    """Today's spelling of a component's names: old attention, CLIP without its outermost level."""
    clip = "text_model" in shapes

    def spelled(name: str) -> str:
        if clip and name.startswith(("embeddings.", "encoder.", "final_layer_norm.")):
            return f"text_model.{name}"
        *levels, last, kind = ("", *name.split("."))
        if "attentions" in levels and last in _OLD_ATTENTION:
            return ".".join([*levels[1:], _OLD_ATTENTION[last], kind])
        return name

    return spelled


def write_folder(
    imported: Imported, path: str | Path, *, dtype: Dtype = None, overwrite: bool = False
) -> Imported:
    """Writes a pipeline's folder, or an autoencoder's, that diffusers loads; returns the model as
    it was written.

    Raises:
        ConvertError: the model has something that diffusers does not, text and no tokenizer, or
            `path` exists.
    """
    path = as_path(path)
    refuse(obstacles(imported.config))
    whole = isinstance(imported.config, cfg.Model)
    pipeline = PIPELINES[pipeline_of(imported.config.conditioners)] if whole else None
    imported = folded(imported, pipeline and pipeline.scale)
    config = imported.config
    if pipeline is None:
        scale = 0.18215 if isinstance(config.bottleneck, cfg.KL) else 1.0
        scale = config.latent_scale if config.latent_scale is not None else scale
        described = architectures.write_autoencoder(config, scale, 32 * config.factor)
        with new_folder(path, overwrite) as folder:
            _write_component(folder, described, imported.frozen["autoencoder"], dtype)
        return imported
    height, width = (side // config.autoencoder.factor for side in config.sides)
    described = {
        "unet": architectures.write_unet(config.unet, cfg.image_size(height, width)),
        "autoencoder": architectures.write_autoencoder(
            config.autoencoder, config.autoencoder.latent_scale, max(config.sides)
        ),
    }  # fmt: skip
    text = cfg.find(config.conditioners, cfg.TextConditioner)
    if text is not None:
        described["text_encoder"] = text_encoders.write_text_encoder(text.encoder)
    index, places = _index(imported, described)
    with new_folder(path, overwrite) as folder:
        for name, params in imported.components().items():
            (folder / places[name]).mkdir()
            _write_component(folder / places[name], described[name], params, dtype)
        for name, scheduler in _schedulers(config).items():
            (folder / name).mkdir()
            (folder / name / SCHEDULER).write_bytes(text_encoders.as_text(scheduler))
        if "tokenizer" in index:
            copy_tokenizer(imported.tokenizer, folder / "tokenizer")
        (folder / INDEX).write_bytes(text_encoders.as_text(index))
    return imported


def obstacles(config: cfg.Model | cfg.Autoencoder) -> list[str]:
    """What of a model, or of a first stage alone, diffusers does not have."""
    if isinstance(config, cfg.Autoencoder):
        return of_first_stage(config, architectures.OTHERS)
    text, encoder = cfg.find(config.conditioners, cfg.TextConditioner), []
    if text is not None:
        encoder = text_encoders.encoder_obstacles(text.encoder)
        if text.tokenizer not in _TOKENIZERS:
            encoder.append(
                f"text_encoder.tokenizer is {text.tokenizer!r}, which diffusers does not have"
            )
    # A text encoder that it does not have is named once.
    known = text is None or not text_encoders.encoder_obstacles(text.encoder)
    alone = not known and len(config.conditioners) == 1
    return [
        *of_first_stage(config.autoencoder, architectures.OTHERS),
        *architectures.unet_obstacles(config.unet), *encoder,
        *([] if alone else pipelines.conditioner_obstacles(config)),
        *schedulers.scheduler_obstacles(config.diffusion),
    ]  # fmt: skip


_TOKENIZERS = {"clip": "CLIPTokenizer", "bert": "BertTokenizer"}


def _schedulers(config: cfg.Model) -> dict[str, dict[str, Any]]:
    """The files of the process, and of the noise on a low-resolution image, by folder."""
    found = {"scheduler": schedulers.write_scheduler(config.diffusion)}
    low_res = cfg.find(config.conditioners, cfg.LowResConditioner)
    if low_res is not None and low_res.noise is not None:
        found["low_res_scheduler"] = schedulers.write_noise_schedule(low_res.noise.process)
    return found


def _index(
    imported: Imported, described: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """`model_index.json`, and our name of each component → its folder's."""
    text = cfg.find(imported.config.conditioners, cfg.TextConditioner)
    pipeline = pipeline_of(imported.config.conditioners)
    places = {ours: folder for folder, ours in PIPELINES[pipeline].places.items()}
    classes = {name: ["diffusers", json["_class_name"]] for name, json in described.items()
               if "_class_name" in json}  # fmt: skip
    added = _schedulers(imported.config)
    classes |= {name: ["diffusers", json["_class_name"]] for name, json in added.items()}
    if text is not None:
        if imported.tokenizer is None:
            raise ConvertError(
                "diffusers' pipelines with text need a tokenizer, and there is none; name the "
                "folder of its files with --tokenizer"
            )
        classes["tokenizer"] = ["transformers", _TOKENIZERS[text.tokenizer]]
        library = "transformers" if pipeline.startswith("Stable") else "latent_diffusion"
        classes["text_encoder"] = [library, described["text_encoder"]["architectures"][0]]
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": VERSION}
    index |= {places[name]: value for name, value in classes.items()}
    low_res = cfg.find(imported.config.conditioners, cfg.LowResConditioner)
    if low_res is not None and low_res.noise is not None:
        index |= {"max_noise_level": low_res.noise.trained_levels}
    elif beside := PIPELINES[pipeline].beside:
        index |= {name: [None, None] for name in ("feature_extractor", *beside)}
    elif pipeline.startswith("Stable"):
        index |= {name: [None, None] for name in _BESIDE[:3]} | {"requires_safety_checker": False}
    return index, places


def _write_component(folder: Path, described: dict[str, Any], params: Any, dtype: Dtype) -> None:
    (folder / CONFIG).write_bytes(text_encoders.as_text(described))
    stem = "diffusion_pytorch_model" if "_class_name" in described else "model"
    tensors: dict[str, np.ndarray] = imported_model.cast(state_dicts.to_torch(params), dtype)
    write_safetensors(folder / f"{stem}.safetensors", tensors, {"format": "pt"})
