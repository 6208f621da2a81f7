"""diffusers' folders, of a whole pipeline or of one autoencoder, read and written."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import bundle, names, peer_configs, peer_text
from ldm_jax.convert.bundle import ConvertError, Dtype, Imported
from ldm_jax.convert.fields import Fields
from ldm_jax.convert.placing import copy_tokenizer, new_folder
from ldm_jax.formats.model_files import read_sharded, read_tensors
from ldm_jax.formats.safetensors_file import write_safetensors

INDEX = "model_index.json"
VERSION = "0.42.1"
"""The diffusers whose form is written; it asks for one."""
CONFIG = "config.json"

_STABLE = {"vae": "autoencoder", "text_encoder": "conditioner"}
_LATENT = {"vqvae": "autoencoder", "bert": "conditioner"}
_COMMON = {"unet": "unet", "tokenizer": "tokenizer", "scheduler": "scheduler"}
_PIPELINES = {
    "StableDiffusionPipeline": _STABLE | _COMMON,
    "StableDiffusionImg2ImgPipeline": _STABLE | _COMMON,
    "StableDiffusionInpaintPipeline": _STABLE | _COMMON,
    "LDMTextToImagePipeline": _LATENT | _COMMON,
    "LDMPipeline": {"vqvae": "autoencoder", "unet": "unet", "scheduler": "scheduler"},
}
# Pipelines have them beside the model; no picture depends on them but by being blanked.
_BESIDE = ("safety_checker", "feature_extractor", "image_encoder", "requires_safety_checker")
_UNUSED = (
    (r".*position_ids", "the numbers 0, 1, 2, ..."),
    (r"text_projection\.weight|logit_scale", "of CLIP's comparison with pictures"),
    (r"to_logits\..*", "the language head, which the U-Net does not see"),
)
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
    path = Path(path)
    origin = {"source": path.name, "kind": "diffusers", "weights": "raw"}
    if not (path / INDEX).is_file():
        config = peer_configs.read_autoencoder(Fields.read(path / CONFIG))
        params, ignored = _weights(path, bundle.autoencoder_shapes(config), variant)
        return bundle.make(
            config, {"autoencoder": params}, origin=origin, ignored=ignored,
            tokenizer=Path(tokenizer) if tokenizer else None,
        )  # fmt: skip

    places = _places(Fields.read(path / INDEX))
    config, notes = _model(path, places)
    components, ignored = {}, {}
    for name, shapes in bundle.shapes(config).items():
        components[name], left = _weights(path / places[name], shapes, variant)
        ignored |= {f"{places[name]}/{tensor}": why for tensor, why in left.items()}
    if tokenizer is None and "tokenizer" in places:
        tokenizer = path / places["tokenizer"]
        if not tokenizer.is_dir():
            raise ConvertError(f"{tokenizer} is missing; {path / INDEX} names it")
    return bundle.make(
        config, components, origin=origin, ignored=ignored, notes=notes,
        tokenizer=Path(tokenizer) if tokenizer else None,
    )  # fmt: skip


def _places(index: Fields) -> dict[str, str]:
    """Our name of each component → its folder's."""
    pipeline = index.get("_class_name", None)
    if pipeline not in _PIPELINES:
        raise index.error("_class_name", f"one of {', '.join(_PIPELINES)}")
    index.ignore(*_BESIDE)
    places = {}
    for folder, ours in _PIPELINES[pipeline].items():
        value = index.get(folder, None)
        if ours == "tokenizer" and value in (None, [None, None]):
            continue
        if not isinstance(value, list) or len(value) != 2 or not all(value):
            raise index.error(folder, "a pair of library and class: the pipeline cannot do without")
        places[ours] = folder
    index.close()
    return places


def _model(path: Path, places: dict[str, str]) -> tuple[cfg.Model, tuple[str, ...]]:
    autoencoder = peer_configs.read_autoencoder(Fields.read(path / places["autoencoder"] / CONFIG))
    fields = Fields.read(path / places["unet"] / CONFIG)
    side = fields.whole("sample_size")
    unet = peer_configs.read_unet(fields)
    condition: cfg.Condition = cfg.Unconditional()
    if "conditioner" in places:
        condition = peer_text.read_text_encoder(
            Fields.read(path / places["conditioner"] / CONFIG)
        )  # fmt: skip
    inputs, latents = unet.in_channels, autoencoder.latent_channels
    if inputs == 2 * latents + 1 and isinstance(condition, cfg.TextCondition):
        unet = replace(unet, in_channels=latents, concat_channels=inputs - latents)
        condition = replace(condition, inpaint=True)
    elif inputs != latents:
        raise fields.error(
            "in_channels", f"{latents}, the latents', or {2 * latents + 1} for inpainting with "
            "text; other conditions that are concatenated are not supported"
        )  # fmt: skip
    schedule = path / places["scheduler"] / "scheduler_config.json"
    diffusion, notes = peer_text.read_scheduler(Fields.read(schedule))
    try:
        config = cfg.Model(autoencoder, unet, condition, diffusion, side * autoencoder.factor)
    except cfg.ConfigError as error:
        raise ConvertError(f"{path}: its parts do not fit each other: {error}") from error
    return config, notes


def _weights(
    folder: Path, shapes: Any, variant: str | None
) -> tuple[dict[str, Any], dict[str, str]]:
    file = _weights_file(folder, variant)
    tensors = read_sharded(file) if file.suffix == ".json" else read_tensors(file)
    return names.from_torch(tensors, shapes, str(file), _UNUSED, _spelling(shapes))


def _weights_file(folder: Path, variant: str | None) -> Path:
    """The weights of a component: safetensors before torch, one file before several."""
    stems = ("diffusion_pytorch_model", "model", "pytorch_model")
    middle = f".{variant}" if variant else ""
    candidates = []
    for kind in ("safetensors", "bin"):
        candidates += [f"{stem}{middle}.{kind}" for stem in stems]
        candidates += [f"{stem}.{kind}.index{middle}.json" for stem in stems]
    for name in candidates:
        if (folder / name).is_file():
            return folder / name
    pattern = re.compile(r"\.(safetensors|bin)$|\.index\.")
    present = sorted(p.name for p in folder.glob("*") if pattern.search(p.name))
    wanted = f"of the variant {variant}" if variant else "without a variant"
    has = f"it has {', '.join(present)}; choose with --variant" if present else "it has none"
    raise ConvertError(f"{folder} has no weights {wanted}: {has}")


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
) -> None:
    """Writes a pipeline's folder, or an autoencoder's, that diffusers loads.

    Raises:
        ConvertError: the model has something that diffusers does not, text and no tokenizer, or
            `path` exists.
    """
    path = Path(path)
    config = imported.config
    if isinstance(config, cfg.Autoencoder):
        scale = 0.18215 if isinstance(config.bottleneck, cfg.KL) else 1.0
        scale = config.latent_scale if config.latent_scale is not None else scale
        described = peer_configs.write_autoencoder(config, scale, 32 * config.factor)
        with new_folder(path, overwrite) as folder:
            _write_component(folder, described, imported.frozen["autoencoder"], dtype)
        return
    side = config.image_size // config.autoencoder.factor
    described = {
        "unet": peer_configs.write_unet(config.unet, side),
        "autoencoder": peer_configs.write_autoencoder(
            config.autoencoder, config.autoencoder.latent_scale, config.image_size
        ),
    }  # fmt: skip
    if isinstance(config.condition, cfg.TextCondition):
        described["conditioner"] = peer_text.write_text_encoder(config.condition.encoder)
    scheduler = peer_text.write_scheduler(config.diffusion)
    index, places = _index(imported, described)
    with new_folder(path, overwrite) as folder:
        for name, params in imported.components().items():
            (folder / places[name]).mkdir()
            _write_component(folder / places[name], described[name], params, dtype)
        (folder / "scheduler").mkdir()
        scheduler_file = folder / "scheduler" / "scheduler_config.json"
        scheduler_file.write_bytes(peer_text.as_text(scheduler))
        if "tokenizer" in index:
            copy_tokenizer(imported.tokenizer, folder / "tokenizer")
        (folder / INDEX).write_bytes(peer_text.as_text(index))


def _index(
    imported: Imported, described: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """`model_index.json`, and our name of each component → its folder's."""
    condition = imported.config.condition
    tokenizers = {"clip": "CLIPTokenizer", "bert": "BertTokenizer"}
    match condition:
        case cfg.Unconditional():
            pipeline = "LDMPipeline"
        case cfg.TextCondition(encoder=cfg.BERTText(), inpaint=False):
            pipeline = "LDMTextToImagePipeline"
        case cfg.TextCondition(encoder=cfg.CLIPText()):
            kind = "Inpaint" if condition.inpaint else ""
            pipeline = f"StableDiffusion{kind}Pipeline"
        case _:
            raise ConvertError(
                f"condition is {condition}, for which diffusers has no pipeline; write the native "
                "or the compvis form"
            )
    places = {ours: folder for folder, ours in _PIPELINES[pipeline].items()}
    classes = {name: ["diffusers", json["_class_name"]] for name, json in described.items()
               if "_class_name" in json}  # fmt: skip
    classes["scheduler"] = ["diffusers", "DDIMScheduler"]
    if "conditioner" in described:
        if imported.tokenizer is None:
            raise ConvertError(
                "diffusers' pipelines with text need a tokenizer, and there is none; name the "
                "folder of its files with --tokenizer"
            )
        if condition.tokenizer not in tokenizers:
            raise ConvertError(
                f"condition.tokenizer is {condition.tokenizer!r}, which diffusers does not have"
            )
        classes["tokenizer"] = ["transformers", tokenizers[condition.tokenizer]]
        library = "transformers" if pipeline.startswith("Stable") else "latent_diffusion"
        classes["conditioner"] = [library, described["conditioner"]["architectures"][0]]
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": VERSION}
    index |= {places[name]: value for name, value in classes.items()}
    if pipeline.startswith("Stable"):
        index |= {name: [None, None] for name in _BESIDE[:3]} | {"requires_safety_checker": False}
    return index, places


def _write_component(folder: Path, described: dict[str, Any], params: Any, dtype: Dtype) -> None:
    (folder / CONFIG).write_bytes(peer_text.as_text(described))
    stem = "diffusion_pytorch_model" if "_class_name" in described else "model"
    tensors: dict[str, np.ndarray] = bundle.cast(names.to_torch(params), dtype)
    write_safetensors(folder / f"{stem}.safetensors", tensors, {"format": "pt"})
