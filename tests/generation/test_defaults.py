"""What a drawing is refused for from numbers alone, and what is filled in."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.generation import defaults
from ldm_jax.generation.conditions import Picture

PLAIN = replace(tiny.UNET, in_channels=4, out_channels=4, attention=(False,))
UNCONDITIONAL = replace(
    tiny.diffusion_run("folder"), conditioners=(), unet=PLAIN,
    diffusion=cfg.Diffusion(spacing="leading"),
).model(tiny.AUTOENCODER)  # fmt: skip
TEXT = tiny.diffusion_run("folder").model(tiny.AUTOENCODER)
IMAGE = Picture(image=np.zeros((16, 16, 3), np.uint8))
MASKED = replace(IMAGE, mask=np.ones((16, 16), np.float32))


def resolve(*arguments):
    """The resolved settings."""
    return defaults.resolve_sampling(*arguments).sampling


def test_what_applies_is_filled_in_and_nothing_else():
    resolved = resolve(TEXT, cfg.Sampling())
    assert (resolved.sampler, resolved.steps, resolved.guidance_scale) == ("ddim", 50, 3.0)
    assert (resolved.eta, resolved.spacing, resolved.batch_size) == (0.0, "trailing", 32)
    for name in ("strength", "corrector_steps", "snr", "classifier_form", "threshold"):
        assert getattr(resolved, name) is None
    assert resolve(TEXT, resolved) == resolved
    corrected = resolve(TEXT, cfg.Sampling("ddpm", corrector="langevin"))
    assert (corrected.corrector_steps, corrected.snr, corrected.eta) == (1, 0.16, None)
    assert resolve(TEXT, cfg.Sampling(), IMAGE).strength == 0.75
    assert resolve(TEXT, cfg.Sampling(), MASKED).strength == 1.0
    assert resolve(UNCONDITIONAL, cfg.Sampling()).guidance_scale == 1


def test_only_a_model_of_pictures_and_instructions_has_two_scales():
    edits = replace(
        TEXT, unet=replace(TEXT.unet, concat_channels=TEXT.unet.concat_channels + 4),
        conditioners=(*TEXT.conditioners, cfg.EditConditioner()),
    )  # fmt: skip
    resolved = resolve(edits, cfg.Sampling())
    assert (resolved.guidance_scale, resolved.image_guidance_scale) == (3.0, 1.5)
    assert resolve(edits, resolved) == resolved and resolved.guides_freely
    alone = cfg.Sampling(guidance_scale=1.0, guidance_rescale=0.5)
    assert resolve(edits, alone).guides_freely
    with pytest.raises(cfg.ConfigError, match="guidance_rescale is 0.5, which has no effect"):
        resolve(edits, replace(alone, image_guidance_scale=1.0))
    assert resolve(TEXT, cfg.Sampling()).image_guidance_scale is None
    with pytest.raises(cfg.ConfigError, match="image_guidance_scale is 1.5, but this model is not"):
        resolve(TEXT, cfg.Sampling(image_guidance_scale=1.5))
    # Without a second condition there is one scale, guidance_scale.
    pictures = replace(edits, unet=replace(edits.unet, context_dim=None, pooled_dim=None,
                                           concat_channels=4),
                       conditioners=(cfg.EditConditioner(),))  # fmt: skip
    resolved = resolve(pictures, cfg.Sampling())
    assert (resolved.guidance_scale, resolved.image_guidance_scale) == (2.0, None)


@pytest.mark.parametrize(
    ("model", "changes", "picture", "complaint"),
    [
        (UNCONDITIONAL, {"guidance_scale": 3.0}, None, "this model has no unconditional"),
        (
            TEXT,
            {"guidance_scale": 1.0, "guidance_schedule": "linear"},
            None,
            "no effect because guidance_scale is 1",
        ),
        (
            TEXT,
            {"guidance_scale": 1.0, "guidance_interval": (0.1, 9.0)},
            None,
            "no effect because guidance_scale is 1",
        ),
        (
            TEXT,
            {"guidance_scale": 1.0, "guidance_rescale": 0.7},
            None,
            "no effect because guidance_scale is 1",
        ),
        (
            TEXT,
            {"autoguidance_scale": 2.0, "guidance_rescale": 0.7},
            None,
            "no effect because guidance_scale is 1",
        ),
        (TEXT, {"guidance_interval": (1e7, 1e8)}, None, "none of them inside"),
        (TEXT, {"classifier_form": "eps"}, None, "there is no classifier"),
        (TEXT, {"strength": 0.5}, None, "there is no picture to start from"),
        (TEXT, {"strength": 0.01}, IMAGE, "strength is 0.01 of 50 steps, which is less than one"),
        (TEXT, {"strength": 0.5, "steps": 1}, MASKED, "which is less than one"),
        (UNCONDITIONAL, {"steps": 1}, None, "1 steps with spacing leading begin at timestep 1"),
        (TEXT, {"resample": 2, "resample_jump": 9, "steps": 9}, MASKED, "has 8 at most, so that"),
        (TEXT, {"timesteps": (2.0, 1.0)}, None, "2 listed levels begin at timestep 2"),
        (TEXT, {"eta": 0.5, "sampler": "heun"}, None, "sampler 'heun' has none"),
        (UNCONDITIONAL, {"height": 65536, "width": 65536}, None, "65536 pixels|their product"),
        (UNCONDITIONAL, {"height": 65536, "batch_size": 2**20}, None, "their product"),
    ],
)
def test_what_would_have_no_effect_or_no_room_is_refused(model, changes, picture, complaint):
    with pytest.raises(cfg.ConfigError, match=complaint):
        resolve(model, cfg.Sampling(**changes), picture or Picture())


def test_strength_0_takes_no_step():
    resolved = defaults.resolve_sampling(TEXT, cfg.Sampling(strength=0.0), IMAGE)
    assert resolved.levels.timestep.shape == (1,)


CHOICES = {
    "sampler": "dpmpp_sde", "steps": 3, "guidance_scale": 1.0, "guidance_schedule": "cosine",
    "guidance_interval": (0.1, 5.0), "guidance_rescale": 0.7, "autoguidance_scale": 1.5,
    "classifier_scale": 2.0, "classifier_form": "mean", "threshold": 0.9, "resample": 2,
    "resample_jump": 2, "eta": 0.3, "spacing": "quad", "sections": (3, 1),
    "timesteps": (900.0, 3.0), "sigmas": (14.0, 0.5), "corrector": "langevin",
    "corrector_steps": 2, "snr": 0.2, "height": 32, "strength": 0.3, "batch_size": 3, "tile": 16,
}  # fmt: skip


def test_any_two_settings_fit_or_are_refused():
    """And what fits is resolved for good."""
    fit = 0
    for pair in itertools.combinations(CHOICES, 2):
        picture = Picture() if {"strength", "resample", "tile"}.isdisjoint(pair) else MASKED
        try:
            sampling = cfg.Sampling(**{name: CHOICES[name] for name in pair})
            resolved = resolve(UNCONDITIONAL, sampling, picture)
        except cfg.ConfigError:
            continue
        fit += 1
        assert resolve(UNCONDITIONAL, resolved, picture) == resolved, pair
    assert fit > 50
