"""`Arguments` as what `Pipeline` takes: the model, the sampler's settings, pictures and noise."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.cli.arguments import Arguments


def open_pipeline(arguments: Arguments) -> Any:
    """The model that the arguments name."""
    from ldm_jax.generation.pipeline import Pipeline

    choices = {
        name: getattr(arguments, name)
        for name in ("weights", "tokenizer", "prediction", "original_config")
        if getattr(arguments, name) is not None
    }
    return Pipeline(
        arguments.model, dtype=arguments.dtype, clip_skip=given(arguments.clip_skip, 1),
        tile_textures=arguments.tileable, emphasis=not arguments.literal_prompts,
        weak_model=arguments.weak_model, classifier=arguments.classifier, **choices,
    )  # fmt: skip


def sampling_of(arguments: Arguments) -> cfg.Sampling:
    """The sampler's settings."""
    strength = arguments.strength
    if strength is None:
        strength = 0.75 if arguments.init_image and not arguments.mask else 1.0
    autoguidance, classifier = arguments.autoguidance_scale, arguments.classifier_scale
    if arguments.weak_model is not None:
        autoguidance = given(autoguidance, 2.0)
    form = arguments.classifier_form
    if arguments.classifier is not None:
        classifier, form = given(classifier, 1.0), given(form, "eps")
    sampling = cfg.Sampling(
        sampler=arguments.sampler or "ddim", steps=given(arguments.steps, 50),
        guidance_scale=arguments.guidance, eta=arguments.eta, spacing=arguments.spacing,
        sections=arguments.sections, timesteps=arguments.timesteps, sigmas=arguments.sigmas,
        corrector=arguments.corrector, corrector_steps=given(arguments.corrector_steps, 1),
        snr=given(arguments.snr, 0.16),
        seed=given(arguments.seed, 0), height=arguments.height, width=arguments.width,
        strength=strength, batch_size=arguments.batch_size, tile=arguments.tile,
        guidance_schedule=arguments.guidance_schedule,
        guidance_interval=arguments.guidance_interval,
        guidance_rescale=arguments.guidance_rescale, autoguidance_scale=autoguidance,
        classifier_scale=classifier, classifier_form=form, threshold=arguments.threshold,
        resample=arguments.resample, resample_jump=arguments.resample_jump,
    )  # fmt: skip
    if arguments.steps not in (None, sampling.visited):
        raise cfg.ConfigError(
            f"--steps={arguments.steps}, but {sampling.visited} levels are listed; leave it out"
        )
    return sampling


def read_noise(arguments: Arguments, wanted: list[Any]) -> Any:
    """The starting noise of each picture, or None."""
    import numpy as np

    if arguments.latents is None:
        return None
    where = f"--latents={arguments.latents}"
    if not arguments.latents.read_bytes().startswith(b"\x93NUMPY"):
        raise ValueError(f"{where} is not a .npy file, which numpy.save writes")
    try:
        noise = np.load(arguments.latents, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{where} is damaged, or holds other things than numbers") from error
    if not np.issubdtype(noise.dtype, np.floating) or not np.isfinite(noise).all():
        raise ValueError(f"{where} must hold finite floating-point numbers")
    if noise.ndim != 4:
        raise ValueError(f"{where} has shape {noise.shape}; it must have four axes: pictures, "
                         "height and width in latents, channels")  # fmt: skip
    if len(noise) == 1 and arguments.num == 1:
        # The same noise for each prompt.
        return np.repeat(noise.astype(np.float32), len(wanted), axis=0)
    rows = noise[arguments.latents_row :][: len(wanted)]
    if len(rows) < len(wanted):
        raise ValueError(
            f"{where} holds the noise of {len(noise)} pictures, but {len(wanted)} are drawn from "
            f"number {arguments.latents_row} on"
        )
    return rows.astype(np.float32)


def read_picture(
    arguments: Arguments, pipeline: Any, wanted: list[Any]
) -> tuple[cfg.Sampling, Any, Any]:
    """The sampler's settings with the picture's size, what `draw` starts from, and how a drawn
    image is pasted back."""
    from ldm_jax.generation.defaults import Picture, factor
    from ldm_jax.images import masks

    sampling, noise = sampling_of(arguments), read_noise(arguments, wanted)
    if arguments.init_image is None:
        return sampling, Picture(noise=noise), lambda image: image
    image = masks.load_image(arguments.init_image)
    size = masks.size_for(image, factor(pipeline.config))
    # Cropped to its mask, a picture is painted at the size of training.
    if arguments.mask is not None and arguments.only_masked is not None:
        size = (pipeline.config.image_size,) * 2
    height, width = given(sampling.height, size[0]), given(sampling.width, size[1])
    sampling = replace(sampling, height=height, width=width)
    if arguments.mask is None:
        picture = Picture(masks.resize(image, height, width), None, noise)
        return sampling, picture, lambda image: image
    prepared = masks.prepare(
        image, masks.load_mask(arguments.mask), height, width, blur=given(arguments.mask_blur, 4.0),
        invert=arguments.invert_mask, only_masked=arguments.only_masked,
    )  # fmt: skip
    return sampling, Picture(prepared.image, prepared.mask, noise), prepared.paste


def read_inverted(
    arguments: Arguments, pipeline: Any, wanted: list[Any]
) -> tuple[cfg.Sampling, Any]:
    """The sampler's settings with the size of the picture that `--invert` names, and that picture
    for each of `wanted`."""
    import numpy as np

    from ldm_jax.generation.defaults import factor
    from ldm_jax.images import masks

    sampling = sampling_of(arguments)
    image = masks.load_image(arguments.invert)
    size = masks.size_for(image, factor(pipeline.config))
    height, width = given(sampling.height, size[0]), given(sampling.width, size[1])
    images = np.repeat(masks.resize(image, height, width)[None], len(wanted), axis=0)
    return replace(sampling, height=height, width=width), images


def said(arguments: Arguments) -> dict[str, Any]:
    """Further arguments that decide what is drawn, where they were given."""
    names = (
        "negative_prompt", "literal_prompts", "clip_skip", "tileable", "init_image", "mask",
        "mask_blur", "invert_mask", "only_masked", "latents", "dtype", "weights", "tokenizer",
        "prediction", "original_config", "weak_model", "classifier",
    )  # fmt: skip
    found = {}
    for name in names:
        value = getattr(arguments, name)
        if value != getattr(Arguments(), name):
            found[name] = str(value) if isinstance(value, Path) else value
    return found


def given(value: Any, default: Any) -> Any:
    """`value`, or `default` where it is None."""
    return default if value is None else value
