"""Published models of conditional tasks (Rombach 2022, Stable Diffusion), by --name.

    python train.py --config=configs/published_tasks.py --name=bsr_sr --workdir=runs/bsr_sr \
        --first_stage=runs/vq_f4 --data.source.path=FOLDER

| name | task | first stage | U-Net's parameters |
|---|---|---|---|
| bsr_sr | super-resolution x4 | vq-f4 | 113,622,563 |
| inpainting_big | inpainting | vq-f4-noattn | 387,245,827 |
| layout2img-openimages256 | boxes | vq-f4 | 246,277,379, encoder 54,656,000 |
| semantic_synthesis256, semantic_synthesis512 | class maps | vq-f4 | 215,229,315 |
| stable-diffusion-inpainting | captions and inpainting | kl-f8 | 859,535,364 |
| stable-diffusion-x4-upscaler | captions, super-resolution x4 | kl-f4 of 4 channels | 473,398,020 |
| instruct-pix2pix | instructions, pictures to edit | kl-f8 | 859,532,484 |
| stable-diffusion-2-depth | captions, depth maps | kl-f8 | 865,913,604 |

First stages are those of configs/published_first_stages.py. Shapes, conditions, losses, schedules
and learning rates are those published; the batches of semantic_synthesis256 (whose rate is 1e-6
times that) and of Stable Diffusion's, and the rates of the x4 upscaler and the depth model, are not
known and chosen. To go on from published weights, name them with --init; Stable Diffusion's
inpainting, depth and editing models can also begin with Stable Diffusion itself. Boxes, class maps,
pictures to edit and depth maps: --data.source.boxes, .class_maps, .edit_images and .depth_maps. We
have trained none of them.
"""

from dataclasses import dataclass, replace
from typing import Literal

from ldm_jax import config as cfg
from ldm_jax.config.published_models import MODELS


@dataclass(frozen=True)
class Recipe:
    """How one of them was trained."""

    model: str
    size: int
    batch: int
    optim: cfg.Optim
    steps: int = 500_000
    distance: Literal["l1", "l2"] = "l1"
    flip: bool = False
    smallest_crop: float = 1.0


def _adam(learning_rate: float, **more: object) -> cfg.Optim:
    return cfg.Optim(learning_rate=learning_rate, weight_decay=1e-2, clip_norm=None, **more)


_SEMANTIC = "semantic_synthesis256 or semantic_synthesis512"
RECIPES = {
    "bsr_sr": Recipe("bsr_sr", 256, 64, _adam(64e-6), distance="l2", smallest_crop=0.5),
    # A tenth of 1e-6 for each image at its peak, then a cosine.
    "inpainting_big": Recipe(
        "inpainting_big", 256, 128, _adam(128e-7, warmup_steps=1000, schedule="cosine"), 50_000
    ),
    "layout2img-openimages256": Recipe("layout2img-openimages256", 256, 24, _adam(48e-6)),
    "semantic_synthesis256": Recipe(_SEMANTIC, 256, 8, _adam(8e-6)),
    "semantic_synthesis512": Recipe(_SEMANTIC, 512, 8, _adam(8e-6)),
    "stable-diffusion-inpainting": Recipe(
        "Stable Diffusion 1 inpainting", 512, 2048, _adam(7.5e-5, warmup_steps=2500), 440_000, "l2"
    ),
    "stable-diffusion-x4-upscaler": Recipe(
        "Stable Diffusion x4 upscaler", 512, 2048, _adam(1e-4), 1_250_000, "l2"
    ),
    "instruct-pix2pix": Recipe("InstructPix2Pix", 256, 1024, _adam(1e-4), 10_000, "l2", flip=True),
    "stable-diffusion-2-depth": Recipe(
        "Stable Diffusion 2 depth", 512, 2048, _adam(1e-4), 200_000, "l2"
    ),
}
NAMES = tuple(RECIPES)


def get_config(name: Literal[NAMES]) -> cfg.DiffusionRun:
    """The model of that name."""
    recipe = RECIPES[name]
    model = MODELS[recipe.model]
    # What follows from first stage and conditioners is left open.
    unet = replace(
        model.unet, in_channels=None, out_channels=None, concat_channels=0, context_dim=None,
        class_count=None,
    )  # fmt: skip
    return cfg.DiffusionRun(
        data=cfg.Data(
            source=cfg.ImageFolder(
                crop="random", smallest_crop=recipe.smallest_crop, flip=recipe.flip
            ),
            image_size=recipe.size, batch_size=recipe.batch, workers=8,
        ),
        conditioners=tuple(map(_trained, model.conditioners)),
        unet=unet,
        diffusion=model.diffusion,
        optim=recipe.optim,
        objective=cfg.Objective(distance=recipe.distance),
        loop=cfg.Loop(
            steps=recipe.steps, log_every=100, checkpoint_every=5000, validate_every=5000,
            sample_every=5000, dtype="bfloat16", remat=True,
        ),
    )  # fmt: skip


def _trained(part: cfg.Conditioner) -> cfg.Conditioner:
    """A conditioner with what training it takes, where a model's does not say it."""
    if isinstance(part, cfg.InpaintingConditioner) and part.form == "stable_diffusion":
        return replace(part, masks=cfg.Masks(all_masked=0.25))
    return part
