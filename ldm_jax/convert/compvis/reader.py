"""CompVis' single files, `.ckpt` or `.safetensors`, read."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import claims, imported_model, state_dicts
from ldm_jax.convert.compvis import components, foreign, keys, settings, shapes, yaml_settings
from ldm_jax.convert.compvis.components import Encoder
from ldm_jax.convert.imported_model import ConvertError, Imported
from ldm_jax.core.reading import map_file, shown
from ldm_jax.core.stores import as_path
from ldm_jax.formats.model_files import read_tensors
from ldm_jax.formats.safetensors_file import looks_like_safetensors, read_safetensors

Tensors = dict[str, np.ndarray]
Borrowed = Mapping[str, tuple[Any, dict[str, Any]]]
"""`autoencoder` or `conditioner` → its config and parameters, of another model."""

_SCHEDULE = (
    r"betas|alphas_cumprod|alphas_cumprod_prev|sqrt_alphas_cumprod|sqrt_one_minus_alphas_cumprod|"
    r"log_one_minus_alphas_cumprod|sqrt_recip_alphas_cumprod|sqrt_recipm1_alphas_cumprod|"
    r"posterior_variance|posterior_log_variance_clipped|posterior_mean_coef[12]|lvlb_weights"
)
# Of samplers and of other programs' copies of the schedule.
_SCHEDULE_AGAIN = (
    r"(ddim|plms)_(sigmas|alphas|alphas_prev|sqrt_one_minus_alphas|timesteps|"
    r"sigmas_for_original_num_steps)|sqrt_alphas_cumprod_prev|alphas_cumprod_original|"
    r"denoiser\.sigmas"
)
_RULES = (
    (_SCHEDULE, "the noise schedule, computed again from its formula"),
    (_SCHEDULE_AGAIN, "the noise schedule once more"),
    ("|".join(settings.MARKERS), "a marker, kept in the config"),
    (
        r"cond_stage_model\.(logit_scale|text_projection(\.weight)?)",
        "of CLIP's comparison with pictures",
    ),
    (
        rf"low_scale_model\.({_SCHEDULE})",
        "the noise schedule of the low-resolution image, kept in the config",
    ),
    (r"control_model\..*", "a ControlNet, which sample.py --control takes"),
    (r"depth_model\..*", "a network that estimates depth, which is read from files"),
    ("scale_factor", "the latent scale, kept in the config"),
    ("logvar", "a weight of the training loss"),
    (r"(first_stage_model\.)?loss\..*", "discriminator and perceptual loss of training"),
    (r"model_ema\.(decay|num_updates)", "how the averages were made"),
    (r"(first_stage_model\.)?model_ema\..*", "averages; the raw weights were chosen"),
)
_BESIDE_CODES = (
    (
        r"transformer\..*",
        "VQGAN's transformer over codes, from which python -m ldm_jax.cli.sample_codes draws",
    ),
    (r"cond_stage_model\..*", "the first stage of that transformer's condition"),
)
_CONDITIONER_RULES = (
    (r".*position_ids", "the numbers 0, 1, 2, ..."),
    (r"text_projection(\.weight)?|logit_scale", "of CLIP's comparison with pictures"),
    (r"to_logits\..*", "the language head, which the U-Net does not see"),
    # CLIP's vision tower, in files that keep the whole of it.
    (r"vision_model\..*|visual_projection\..*", "of CLIP's comparison with pictures"),
)  # fmt: skip
_FOREIGN = {
    "lora_": "a LoRA, not a model", "unet.": "weights of a diffusers folder under one roof",
    "down_blocks.": "one component of a diffusers folder; name the folder",
    "conditioner.embedders.": "an SDXL model, which is not supported",
    "text_model.": "a text encoder alone; name the folder of the whole model",
    "control_model.": "a ControlNet, which sample.py --control takes beside a model",
    "model.diffusion_model.joint_blocks.": "an SD 3 model, which is not supported",
    "transformer.tok_emb.": "VQGAN's transformer over codes, from which python -m "
    "ldm_jax.cli.sample_codes draws",
}  # fmt: skip


def read_checkpoint(
    path: str | Path,
    *,
    ema: bool | None = None,
    prediction: str | None = None,
    original_config: str | Path | None = None,
    tokenizer: str | Path | None = None,
    borrowed: Borrowed | None = None,
) -> Imported:
    """A model, or a first stage alone, from one file of CompVis' layout.

    Args:
        path: the file.
        ema: True takes the U-Net's averages, False its raw weights; None the raw ones, but the
            averages of a file that has nothing else.
        prediction: what the network predicts (eps, v or x0), where neither the file nor a
            published model of its shapes tells; or where it is not what is published.
        original_config: the YAML settings it was trained with, for what shapes do not tell.
        tokenizer: folder with the tokenizer's files, which no such file has.
        borrowed: first stage or text encoder of other models, in place of the file's.

    Raises:
        ConvertError, FileFormatError, ConfigError: what is wrong with the file, or what is missing
            to know its architecture, and which option gives it.
    """
    path = as_path(path)
    tensors, metadata = read_any(path)
    tensors = foreign.unwrapped(tensors)
    origin = {"source": path.name, "kind": "compvis", "weights": "ema" if ema else "raw"}
    common: dict[str, Any] = {
        "tokenizer": as_path(tokenizer) if tokenizer else None,
        "origin": origin,
    }
    try:
        if foreign.is_model(tensors):
            options = {"original_config": original_config, "prediction": prediction}
            return _read_model(tensors, metadata, ema, borrowed or {}, options, common)
        if foreign.is_first_stage(tensors):
            return _read_first_stage(foreign.first_stage(tensors), bool(ema), common)
    except (ConvertError, cfg.ConfigError) as error:
        raise ConvertError(f"{path}: {error}") from error
    raise ConvertError(f"{path} {_what(tensors)}")


def read_any(path: Path) -> tuple[Tensors, Mapping[str, str]]:
    """The tensors of a file of torch or of safetensors, and the metadata of the latter.

    Raises:
        FileFormatError: it is neither, or damaged.
    """
    if path.is_file():
        data = map_file(path)
        safe = looks_like_safetensors(data[:9])
        data.close()
        if safe:
            return read_safetensors(path)
    return read_tensors(path), {}


def _what(tensors: Tensors) -> str:
    for prefix, kind in _FOREIGN.items():
        if shapes.has(tensors, prefix):
            return f"is {kind}"
    first = ", ".join(shown(name) for name in list(tensors)[:3])
    return f"holds no model of CompVis' layout; its first names are {first}"


def _below(tensors: Mapping[str, np.ndarray], prefix: str) -> Tensors:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _read_first_stage(tensors: Tensors, ema: bool, common: dict[str, Any]) -> Imported:
    config = shapes.autoencoder(tensors)
    tree = imported_model.autoencoder_shapes(config)
    places = keys.autoencoder_places([leaf.name for leaf in state_dicts.leaves(tree)], config)
    if ema:
        tensors = _averaged(tensors, "", places)
    rules = (*_RULES, *_BESIDE_CODES) if shapes.has(tensors, "transformer.tok_emb.") else _RULES
    params, ignored = _component(tensors, places, tree, "the first stage", rules)
    return imported_model.make(config, {"autoencoder": params}, ignored=ignored, **common)


def _component(
    tensors: Tensors, places: Mapping[str, keys.Place], tree: Any, what: str,
    rules: state_dicts.Rules = (),
) -> tuple[dict[str, Any], dict[str, str]]:  # fmt: skip
    found, rest = keys.read(tensors, places)
    return state_dicts.from_torch(found, tree, what, rules, beside=rest)


def _averaged(tensors: Tensors, prefix: str, places: Mapping[str, keys.Place]) -> Tensors:
    """`tensors` with the averages of a component's weights in place of the raw ones.

    Raises:
        ConvertError: the file has none, or not of every weight.
    """
    if not shapes.has(tensors, keys.EMA):
        raise ConvertError("it has no averages (model_ema.*); use --weights=raw")
    averages = {prefix + p.name: keys.ema_name(prefix + p.name) for p in places.values()}
    missing = sorted(name for name, average in averages.items() if average not in tensors)
    if missing:
        raise ConvertError(f"it has no average of {state_dicts.enumerated(missing)}")
    used = set(averages.values())
    rest = {name: tensor for name, tensor in tensors.items() if name not in used}
    return rest | {name: tensors[average] for name, average in averages.items()}


def _read_model(
    tensors: Tensors, metadata: Mapping[str, str], ema: bool | None, borrowed: Borrowed,
    options: Mapping[str, Any], common: dict[str, Any],
) -> Imported:  # fmt: skip
    tensors, notes = _spelled(tensors), []
    if foreign.has_averages_alone(tensors):
        if ema is False:
            raise ConvertError(
                "it has only averages of its U-Net (model_ema.*), no raw weights; use --weights=ema"
            )
        tensors, ema = foreign.averages_as_weights(tensors), False
        common["origin"]["weights"] = "ema"
        notes.append("the file has averages alone (model_ema.*), which are taken")
    repeated = foreign.repeated_first_stage(tensors)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in repeated}
    yaml = options["original_config"]
    is_layout = yaml_settings.is_layout(metadata, as_path(yaml) if yaml else None)
    autoencoder, encoder, kind = _parts_beside(tensors, borrowed, is_layout)
    context = encoder and encoder.slots(autoencoder.latent_channels).context
    unet = shapes.unet(_below(tensors, keys.UNET), context, autoencoder.latent_channels)
    parts = _conditioners(unet, encoder)
    config, found, told = _configure(tensors, metadata, autoencoder, unet, parts, **options)
    common["origin"]["settings"] = found
    part_configs = imported_model.component_configs(config)
    for name, part in part_configs.items():
        if name not in borrowed:
            claims.check(part, tensors, found)

    places = components.places_of(config, kind)
    if ema:
        tensors = _averaged(tensors, keys.UNET, places["unet"])
    prefixes = {"unet": keys.UNET, "autoencoder": keys.FIRST_STAGE}
    rules = {"unet": (), "autoencoder": ((r"(loss|model_ema)\..*", "of training"),)}
    if kind is not None:
        prefixes[encoder.name] = kind.prefix
        rules[encoder.name] = (*_CONDITIONER_RULES, *_unused_layers(config, kind))
    params = {name: tree for name, (_, tree) in borrowed.items()}
    replaced = {n: _BORROWED[name] for name in borrowed for n in _below_of(tensors, name)}
    rest = {n: tensor for n, tensor in tensors.items() if n not in replaced}
    ignored = repeated | replaced | _ignored_beside(rest, tuple(prefixes.values()))
    for name, part in part_configs.items():
        tree = imported_model.component_shapes(part)
        if name in borrowed or not tree:
            continue
        prefix, what = prefixes[name], f"the {name}"
        params[name], left = _component(
            _below(tensors, prefix), places[name], tree, what, rules[name]
        )
        ignored |= {prefix + old: why for old, why in left.items()}
    return imported_model.make(config, params, ignored=ignored, notes=(*notes, *told), **common)


_BORROWED = {
    "autoencoder": "the first stage; --vae names another",
    "text_encoder": "the text encoder; --text_encoder names another",
}
_PREFIXES = {
    "autoencoder": keys.FIRST_STAGE,
    "text_encoder": keys.CONDITIONER,
}


def _below_of(tensors: Tensors, name: str) -> list[str]:
    return [tensor for tensor in tensors if tensor.startswith(_PREFIXES[name])]


def _parts_beside(
    tensors: Tensors, borrowed: Borrowed, is_layout: bool
) -> tuple[cfg.Autoencoder, Encoder | None, components.Kind | None]:
    """First stage, encoder of the condition and its kind, of the file or of the models that they
    are taken from.

    Raises:
        ConvertError: a part that the U-Net needs is nowhere; names the option that gives it.
    """
    lacks = f"it has {foreign.parts_of(tensors)} but no"
    if "autoencoder" in borrowed:
        autoencoder = replace(borrowed["autoencoder"][0], **imported_model.NOT_NORMALIZED)
    elif _below_of(tensors, "autoencoder"):
        autoencoder = shapes.autoencoder(_below(tensors, keys.FIRST_STAGE))
    else:
        raise ConvertError(
            f"{lacks} {keys.FIRST_STAGE}*, its first stage; {imported_model.CHOOSE}--vae=PATH, of "
            "any model that has it"
        )
    if "text_encoder" in borrowed:
        return autoencoder, borrowed["text_encoder"][0], None
    encoder, kind = _encoder(tensors, is_layout)
    width = shapes.foreign_context(_below(tensors, keys.UNET))
    if kind is None and width is not None:
        raise ConvertError(
            f"{lacks} {keys.CONDITIONER}*, its text encoder, of which its U-Net takes tokens of "
            f"width {width}; {imported_model.CHOOSE}--text_encoder=PATH, of any model that has it"
        )
    return autoencoder, encoder, kind


def _ignored_beside(tensors: Tensors, prefixes: tuple[str, ...]) -> dict[str, str]:
    """What is beside the components, and why it is not used.

    Raises:
        ConvertError: names what there is no reason for.
    """
    rest = [name for name in tensors if not name.startswith(prefixes)]
    reasons = {name: state_dicts.why_ignored(name, _RULES) for name in rest}
    unexpected = [name for name, why in reasons.items() if why is None]
    if unexpected:
        raise ConvertError(
            f"it has unexpected tensors: {state_dicts.enumerated(unexpected)}. If they are no "
            "part of the model, save it without them"
        )
    return {name: why for name, why in reasons.items() if why is not None}


def _spelled(tensors: Tensors) -> Tensors:
    """Names as today's, where some files leave CLIP's outermost level out."""
    if shapes.has(tensors, keys.CLIP + "embeddings."):
        return {
            f"{keys.CLIP}text_model.{n.removeprefix(keys.CLIP)}"
            if n.startswith(keys.CLIP) else n: t for n, t in tensors.items()
        }  # fmt: skip
    return tensors


def _encoder(tensors: Tensors, is_layout: bool) -> tuple[Encoder | None, components.Kind | None]:
    is_layout |= shapes.is_published_layout(_below(tensors, keys.CLIP))
    kind = components.kind_in(tensors, is_layout)
    if kind is not None:
        return kind.conditioner(_below(tensors, kind.prefix)), kind
    other = [name for name in tensors if name.startswith(keys.CONDITIONER)]
    if other:
        raise ConvertError(
            f"its condition is of an unknown kind: {state_dicts.enumerated(other)}; known are "
            "CLIP, OpenCLIP, the encoders of the 1.45B model and of boxes, classes, class maps, "
            "and masked images"
        )
    return None, None


def _conditioners(unet: cfg.UNet, encoder: Encoder | None) -> tuple[cfg.Conditioner, ...]:
    """The encoder, and what the U-Net's input channels and class embedding tell of.

    Raises:
        ConvertError: its input channels are of no known condition.
    """
    beside, painted, levels = unet.concat_channels, 1 + unet.in_channels, unet.class_count
    match encoder:
        case cfg.ClassMapConditioner(channels=channels) if beside == channels:
            return (encoder,)
        case cfg.TextConditioner() if beside == _RGB and levels is not None:
            noise = cfg.Discrete(levels, beta_start=1e-4, beta_end=0.02)
            low_res = cfg.LowResConditioner(noise=imported_model.noise_levels(noise))
            return encoder, low_res
        case cfg.TextConditioner() if beside == painted:
            return encoder, cfg.InpaintingConditioner()
        case cfg.TextConditioner() if beside == unet.in_channels:
            return encoder, cfg.EditConditioner()
        case cfg.TextConditioner() if beside == 1:
            return encoder, cfg.DepthConditioner()
        case None if beside == painted:
            return (cfg.InpaintingConditioner("latent_diffusion"),)
        case None if beside == _RGB:
            return (cfg.LowResConditioner(),)
        case None if beside == 0 and levels is not None:
            return (cfg.ClassConditioner(levels - 1),)
        case None if beside == 0:
            return ()
        case _ if beside == 0:
            return (encoder,)
    raise ConvertError(
        f"its U-Net takes {unet.in_channels + beside} channels for latents of {unet.in_channels}; "
        "of conditions that are concatenated a mask and a masked image, a low-resolution image "
        "(with text: and the level of its noise), a class map and, with text, a picture to edit or "
        "depth are supported"
    )


_RGB = 3


def _configure(
    tensors: Tensors, metadata: Mapping[str, str], autoencoder: cfg.Autoencoder, unet: cfg.UNet,
    conditioners: tuple[cfg.Conditioner, ...], *, original_config: str | Path | None,
    prediction: str | None,
) -> tuple[cfg.Model, str, tuple[str, ...]]:  # fmt: skip
    """The whole config, where the settings came from, and what to know about them."""
    marked = "v" if settings.V_PREDICTION in tensors else None
    own = settings.of_metadata(metadata, autoencoder, unet, conditioners)
    if original_config is not None:
        told = yaml_settings.of_yaml(as_path(original_config), unet, autoencoder, conditioners)
    elif own is not None:
        told = own
    else:
        told = settings.of_known(autoencoder, unet, conditioners, prediction or marked)
    diffusion, notes = settings.stored_schedule(tensors, told.diffusion)
    if notes:
        notes = [f"{notes[0]}, not that of {told.source}"]
    wanted, why = (prediction, "asked for") if prediction else (marked, "the file's marker says")
    if wanted not in (None, diffusion.prediction):
        notes.append(f"prediction {wanted} as {why}, where {told.source} has "
                     f"{diffusion.prediction}")  # fmt: skip
        diffusion = replace(diffusion, prediction=wanted)
    if settings.ZERO_SNR in tensors:
        diffusion = settings.to_zero_snr(diffusion)
        notes.append(f"the schedule ends in noise alone and steps are {diffusion.spacing}, as the "
                     f"file's marker {settings.ZERO_SNR} says")  # fmt: skip
    scale = _scale(tensors, told.latent_scale)
    network = replace(
        unet, num_heads=told.num_heads, only_cross_attention=told.only_cross_attention
    )
    config = cfg.Model(
        replace(autoencoder, latent_scale=scale), network,
        _with_stored_noise(tensors, told.conditioners), diffusion, told.image_size,
    )  # fmt: skip
    return config, told.source, tuple(notes)


def _with_stored_noise(
    tensors: Tensors, conditioners: tuple[cfg.Conditioner, ...]
) -> tuple[cfg.Conditioner, ...]:
    """`conditioners` with the schedule of noise on a low-resolution image that the file has."""
    own = _below(tensors, keys.LOW_RES)
    told = []
    for part in conditioners:
        if isinstance(part, cfg.LowResConditioner) and part.noise is not None:
            process = settings.stored_process(own, part.noise.process)
            part = replace(part, noise=replace(part.noise, process=process))
        told.append(part)
    return tuple(told)


def _scale(tensors: Tensors, told: float | None) -> float:
    """The latent scale that the file has, in the digits of `told` where they are the same."""
    stored = tensors.get("scale_factor")
    if stored is not None and (stored.size != 1 or stored.dtype.kind not in "fV"):
        raise ConvertError(f"its scale_factor is no number, but {stored.dtype}{list(stored.shape)}")
    if stored is None or (told is not None and np.float32(told) == np.float32(stored.item())):
        scale = told
    else:
        scale = float(np.float32(stored.item()))
    if scale is None:
        raise ConvertError(
            "its latent scale was measured in training, and scale_factor is not in the file; take "
            "the checkpoint as training left it"
        )
    return scale


def _unused_layers(config: cfg.Model, kind: components.Kind) -> state_dicts.Rules:
    if kind.prefix != keys.OPEN_CLIP:
        return ()
    encoder = components.encoder_of(config).encoder
    last = encoder.layers - encoder.skip_last
    return ((rf"transformer\.resblocks\.{last}\..*", "the last layer, which SD 2 does not use"),)
