"""Adapters from whatever holds them: kohya's and LyCORIS' files, those of diffusers, folders of
PEFT. Every module is read by itself, for a file may have several kinds, ranks and alphas."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax.adapters.adapter import UNET, Adapter
from ldm_jax.adapters.kind import Kind
from ldm_jax.adapters.lokr import LoKr
from ldm_jax.convert.adapters.adapter_keys import embedding_of, part_of, why_unread
from ldm_jax.convert.adapters.assembly import Group
from ldm_jax.convert.adapters.module_names import ModuleNames, Place
from ldm_jax.convert.adapters.peft_settings import PeftSettings
from ldm_jax.convert.adapters.trained_adapter import FAMILIES, is_run, read_trained_adapter
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.other_kinds import read_tensors_of
from ldm_jax.convert.state_dicts import enumerated
from ldm_jax.core.reading import FileFormatError, map_file, parse_json, read_json, shown
from ldm_jax.core.stores import as_path
from ldm_jax.formats.safetensors_file import looks_like_safetensors, read_safetensors

DIFFUSERS_FILES = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
PEFT_CONFIG = "adapter_config.json"
PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
METADATA = "lora_adapter_metadata"
"""Where diffusers puts PEFT's settings."""
_BASES = {
    "sd_v1": FAMILIES[768], "stable-diffusion-v1": FAMILIES[768],
    "sd_v2": FAMILIES[1024], "stable-diffusion-v2": FAMILIES[1024],
    "sdxl": FAMILIES[2048], "stable-diffusion-xl": FAMILIES[2048],
}  # fmt: skip
"""What metadata begin with."""
_CONTEXT = re.compile(
    r".*attn2[._](processor\.)?to_[kv](_lora)?\."
    r"(lora_down\.weight|(lora\.)?down\.weight|lora_A\.weight|hada_w1_b|diff)"
)
"""Keys of changes of what reads the text; the second axis is its width, of plain ones."""


@dataclass(frozen=True)
class _Found:
    """What a file or a folder holds."""

    where: str
    tensors: Mapping[str, np.ndarray]
    metadata: Mapping[str, str]
    settings: Mapping[str, PeftSettings]
    """By component, "" for any."""


def read_adapter(path: str | Path, names: ModuleNames) -> Adapter:
    """The adapter in `path` for the model that `names` is of.

    Args:
        path: a safetensors file, or one of torch, which is read without running anything in it; a
            folder of PEFT, or one with such folders called as the components; a folder with the
            file that diffusers writes; or the work directory of a run that trains an adapter.
        names: of the model that is changed.

    Raises:
        ConvertError, FileFormatError: what is missing or damaged, made for another model, or of a
            kind that is not read, with file and key.
    """
    if is_run(as_path(path)):
        return read_trained_adapter(as_path(path), names)
    found = _find(as_path(path), names)
    if not found.tensors:
        raise ConvertError(f"{path} has no tensors in it")
    _check_readable(found)
    family = _family(found)
    _check_family(found, family, names)
    groups: dict[Place, Group] = {}
    unknown, embeddings = [], {}
    for key, tensor in found.tensors.items():
        if embedding_of(key) is not None:
            embeddings[key] = tensor
            continue
        part = part_of(key)
        place = None if part is None else names.places.get(part.module)
        if place is None:
            unknown.append(key)
            continue
        group = groups.setdefault(place, Group(found.where, place))
        group.add((part.kind, part.field), key, tensor)
    if unknown:
        raise _unknown(found, unknown, names, read=bool(groups))
    components: dict[str, dict[str, tuple[Kind, ...]]] = {}
    notes = [*_embedding_notes(embeddings)]
    for place, group in groups.items():
        settings = found.settings.get(place.component, found.settings.get(""))
        kinds = group.kinds(_no_alpha if settings is None else settings.alpha_of)
        kinds = tuple(_as_lycoris(one, place, settings) for one in kinds)
        components.setdefault(place.component, {})[place.path] = kinds
        notes += group.notes
    if not components:
        raise ConvertError(
            f"{path} changes nothing: it holds an embedding alone; give it as --embeddings"
        )
    return Adapter(
        components, name_of(as_path(path), found.metadata), family, _words(found.metadata),
        dict(found.metadata), embeddings, tuple(notes),
    )  # fmt: skip


def name_of(path: Path, metadata: Mapping[str, str]) -> str:
    """What an adapter is called: as its trainer called it, or as its file."""
    return metadata.get("ss_output_name") or path.stem


def read_metadata(path: Path) -> dict[str, str]:
    """The text in an adapter's file; {} where there is none."""
    data = map_file(path)
    start = data[:9]
    data.close()
    return read_safetensors(path)[1] if looks_like_safetensors(start) else {}


def _words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    said = metadata.get("modelspec.trigger_phrase", "")
    return tuple(word.strip() for word in said.split(",") if word.strip())


def tag_counts(metadata: Mapping[str, str]) -> dict[str, int]:
    """How often each tag of captions was trained on, most frequent first, as kohya's programs note
    it in `ss_tag_frequency` (folder → tag → count); {} where it is not there or malformed."""
    text = metadata.get("ss_tag_frequency", "")
    try:
        folders = parse_json("metadata", "ss_tag_frequency", text).values() if text else ()
    except FileFormatError:
        return {}
    counts: Counter[str] = Counter()
    for tags in folders:
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if isinstance(count, int) and not isinstance(count, bool):
                counts[tag.strip()] += count
    return dict(counts.most_common())


def _no_alpha(place: Place, rank: int | None) -> None:
    return None


# ------------------------------------------------------------------------------------- containers


def _find(path: Path, names: ModuleNames) -> _Found:
    if not path.is_dir():
        return _of_file(path, names)
    for name in DIFFUSERS_FILES:
        if (path / name).exists():
            return _of_file(path / name, names)
    if (path / PEFT_CONFIG).exists():
        return _of_folder(path, "")
    parts = {c: path / c for c in (UNET, "text_encoder") if (path / c / PEFT_CONFIG).exists()}
    if not parts:
        raise ConvertError(
            f"{path} is no adapter: a folder with {DIFFUSERS_FILES[0]}, or with {PEFT_CONFIG} and "
            f"{PEFT_FILES[0]}, is wanted, or the name of a file"
        )
    tensors: dict[str, np.ndarray] = {}
    settings: dict[str, PeftSettings] = {}
    for component, folder in parts.items():
        one = _of_folder(folder, UNET if component == UNET else names.text or component)
        if twice := sorted(one.tensors.keys() & tensors.keys()):
            raise ConvertError(f"{path} has {shown(twice[0])} in both of its folders")
        tensors |= one.tensors
        settings |= one.settings
    return _Found(str(path), tensors, {}, settings)


def _of_folder(folder: Path, component: str) -> _Found:
    config = read_json(folder / PEFT_CONFIG)
    path = next((folder / name for name in PEFT_FILES if (folder / name).exists()), None)
    if path is None:
        raise ConvertError(f"{folder} has {PEFT_CONFIG}, but no {PEFT_FILES[0]} beside it")
    settings = PeftSettings.read(config, str(folder / PEFT_CONFIG))
    tensors, metadata = read_tensors_of(path, "adapter")
    if config.get("use_dora") and not any("lora_magnitude_vector" in key for key in tensors):
        raise ConvertError(f"{path} has no magnitudes, which use_dora in {PEFT_CONFIG} tells of")
    return _Found(str(path), tensors, metadata, {component: settings})


def _of_file(path: Path, names: ModuleNames) -> _Found:
    tensors, metadata = read_tensors_of(path, "adapter")
    settings: dict[str, PeftSettings] = {}
    if METADATA in metadata:
        said = parse_json(path, METADATA, metadata[METADATA])
        for prefix, component in ((UNET, UNET), ("text_encoder", names.text or "text_encoder")):
            own = {n.removeprefix(f"{prefix}."): v for n, v in said.items()
                   if n.startswith(f"{prefix}.")}  # fmt: skip
            if own:
                settings[component] = PeftSettings.read(own, f"{path}, its {METADATA}")
    return _Found(str(path), tensors, metadata, settings)


# --------------------------------------------------------------------------------------- refusals


def _check_readable(found: _Found) -> None:
    unread: dict[str, list[str]] = {}
    for key in found.tensors:
        why = why_unread(key)
        if why is not None:
            unread.setdefault(why, []).append(key)
    for why, keys in unread.items():
        more = f" and {len(keys) - 1} more keys" if len(keys) > 1 else ""
        raise ConvertError(
            f"{found.where}: {shown(keys[0])}{more} {why}; use another file of this adapter, or "
            "merge it into a model with the program that it was made with"
        )


def _family(found: _Found) -> str | None:
    """What the adapter was made for: as its tensors tell, or else its metadata."""
    width = _width_of_texts(found)
    if width in FAMILIES:
        return FAMILIES[width]
    said = " ".join(
        found.metadata.get(name, "") for name in ("ss_base_model_version", "modelspec.architecture")
    ).strip()
    known = next((base for start, base in _BASES.items() if said.startswith(start)), None)
    if known is None and "ss_v2" in found.metadata:
        return FAMILIES[1024 if found.metadata["ss_v2"] == "True" else 768]
    return known


def _width_of_texts(found: _Found) -> int | None:
    """How wide the text is that the changed attention reads; None where no change tells."""
    widths = (t.shape[1] for k, t in found.tensors.items() if t.ndim > 1 and _CONTEXT.fullmatch(k))
    return next(widths, None)


def _check_family(found: _Found, family: str | None, names: ModuleNames) -> None:
    wanted, width = names.config.unet.context_dim, _width_of_texts(found)
    own = FAMILIES.get(wanted or 0)
    if width is None and (own is None or family in (None, own)):
        return
    if width is not None and width == wanted:
        return
    made_for = family or "another model"
    if width is not None:
        made_for += f", whose attention reads text of width {width}"
    reads = "reads none" if wanted is None else f"reads text of width {wanted}"
    raise ConvertError(
        f"{found.where} is an adapter for {made_for}; this model{f', {own},' if own else ''} "
        f"{reads}; use it with a model of the family that it is made for"
    )


def _unknown(found: _Found, keys: list[str], names: ModuleNames, read: bool) -> ConvertError:
    no_text = names.text is None and any("lora_te" in k or "text_encoder" in k for k in keys)
    if no_text:
        why = "this model has no text encoder"
    elif read:
        why = "this model has no such modules, or the kind of change is not known"
    else:
        why = "these are no keys of an adapter for this model"
        if not any("." in key for key in keys):
            why += "; an embedding is named with --embeddings"
    return ConvertError(
        f"{found.where}: {len(keys)} of {len(found.tensors)} tensors cannot be placed: "
        f"{enumerated(map(shown, keys))}; {why}"
    )


def _embedding_notes(embeddings: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys(embedding_of(key) for key in embeddings)
    return [
        f"its file brings the embedding {name!r} along, a word for prompts where the file is given "
        "as --lora or --embeddings"
        for name in names
    ]


def _as_lycoris(one: Kind, place: Place, settings: PeftSettings | None) -> Kind:
    """PEFT scales a Kronecker product by α/r even where both factors are whole; LyCORIS, whose
    form is kept here, does not, so that the second factor takes it in."""
    if settings is None or not isinstance(one, LoKr) or one.rank is not None:
        return one
    rank = settings.rank_of(place)
    if rank is None or one.alpha is None:
        return one
    factor = np.float32(one.alpha) / np.float32(rank)
    if factor == 1:
        return one
    return LoKr(w1=one.w1, w2=np.asarray(one.w2, np.float32) * factor, alpha=np.float32(1))
