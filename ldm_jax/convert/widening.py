"""A U-Net that is shown more beside its latents than the model that it begins with: the first
convolution with inputs more, which begin at zero."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ldm_jax import config as cfg

PATH = "unet/conv_in/kernel"
"""What is widened, of `{"unet", "conditioners"}`."""


def narrowed(config: cfg.Model, found: cfg.Model) -> cfg.Model:
    """`config` without the conditioners that `found` lacks and that give channels beside the
    latents and nothing else."""
    there, latent_channels = {part.name for part in found.conditioners}, config.unet.in_channels
    kept = tuple(
        part for part in config.conditioners
        if part.name in there or not _is_beside_alone(part.slots(latent_channels))
    )  # fmt: skip
    beside = cfg.slots_of(kept, latent_channels).concat
    return replace(config, conditioners=kept, unet=replace(config.unet, concat_channels=beside))


def _is_beside_alone(slots: cfg.Slots) -> bool:
    return slots.concat > 0 and slots == cfg.Slots(concat=slots.concat)


def widened(
    kernel: Float[np.ndarray, "h w i o"], narrow: cfg.Model, wide: cfg.Model
) -> Float[np.ndarray, "h w j o"]:
    """The first convolution of `narrow` for `wide`, which has more conditioners: each input where
    `wide` has it, and zeros for those that `narrow` lacks, so that its output is the same."""
    folded, latents = wide.unet.patch_size**2, wide.unet.in_channels
    *sides, _, features = kernel.shape
    kernel = kernel.reshape(*sides, folded, -1, features)
    total = latents + wide.unet.concat_channels
    out = np.zeros((*sides, folded, total, features), kernel.dtype)
    out[..., :latents, :] = kernel[..., :latents, :]
    for part in narrow.conditioners:
        there, here = (
            cfg.concat_slice(model.conditioners, type(part), latents) for model in (narrow, wide)
        )
        out[..., latents:, :][..., here, :] = kernel[..., latents:, :][..., there, :]
    return out.reshape(*sides, folded * total, features)


def widening_note(narrow: cfg.Model, wide: cfg.Model, source: str) -> str:
    """A line that says what was widened; empty where nothing was."""
    names = {part.name for part in narrow.conditioners}
    added = [part for part in wide.conditioners if part.name not in names]
    if not added:
        return ""
    before, after = (m.unet.in_channels + m.unet.concat_channels for m in (narrow, wide))
    listed = " and ".join(part.name for part in added)
    return (
        f"{source}: the U-Net's first convolution is widened from {before} to {after} input "
        f"channels, for {listed}; the new ones begin at zero"
    )
