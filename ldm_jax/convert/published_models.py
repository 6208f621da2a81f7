"""Published models, for what the shapes in a file cannot say: heads, schedule, latent scale, size.

Rombach 2022 (arXiv:2112.10752), tables 12 to 15 and the released settings; Stable Diffusion 1 and
2 and their inpainting models. All published codebooks were trained with the legacy weighting.
"""

from collections.abc import Iterable
from dataclasses import replace

from ldm_jax import config as cfg
from ldm_jax.config.published import FIRST_STAGES
from ldm_jax.convert import imported_model

KL_F8, VQ_F4 = FIRST_STAGES["kl-f8"], FIRST_STAGES["vq-f4"]
SD_FIRST_STAGE = replace(KL_F8, latent_scale=0.18215)


def _process(start: float, end: float, prediction: str = "eps") -> cfg.Diffusion:
    return cfg.Diffusion(
        cfg.Discrete(beta_start=start, beta_end=end), prediction, spacing="ddim_uniform",
        final_alpha_bar="first",
    )  # fmt: skip


_CLIP_L = cfg.TextConditioner(cfg.CLIPText(), tokenizer="clip")
_OPEN_CLIP_H = cfg.TextConditioner(
    cfg.CLIPText(width=1024, layers=23, num_heads=16, intermediate=4096, activation="gelu"),
    tokenizer="clip",
)
_SD1 = cfg.UNet(in_channels=4, out_channels=4, context_dim=768)
_SD2 = replace(_SD1, num_heads=(5, 10, 20, 20), use_linear_projection=True, context_dim=1024)
_FACES = cfg.UNet(
    in_channels=3, out_channels=3, block_out_channels=(224, 448, 672, 896),
    attention=(False, True, True, True), attention_kind="plain", num_heads=(7, 14, 21, 28),
    context_dim=None,
)  # fmt: skip
_CHURCHES = cfg.UNet(
    in_channels=4, out_channels=4,
    block_out_channels=(192, 192, 384, 768, 768), attention=(True, True, True, True, False),
    attention_kind="plain", num_heads=(8,) * 5, context_dim=None, time_scale_shift=True,
    resblock_updown=True,
)  # fmt: skip
_CIN = cfg.UNet(
    in_channels=3, out_channels=3, block_out_channels=(192, 384, 576, 960),
    attention=(False, True, True, True), num_heads=(1, 1, 1, 1), context_dim=512,
)  # fmt: skip
_PAINTED = 5  # mask and masked latents


def _painting(unet: cfg.UNet) -> cfg.UNet:
    return replace(unet, concat_channels=_PAINTED)


def _sd(unet: cfg.UNet, text: cfg.TextConditioner, size: int, prediction: str = "eps") -> cfg.Model:
    conditioners = (text, cfg.InpaintingConditioner()) if unet.concat_channels else (text,)
    return cfg.Model(SD_FIRST_STAGE, unet, conditioners, _process(0.00085, 0.012, prediction), size)


MODELS = {
    "Stable Diffusion 1": _sd(_SD1, _CLIP_L, 512),
    "Stable Diffusion 1 inpainting": _sd(_painting(_SD1), _CLIP_L, 512),
    "Stable Diffusion 2 base (512, eps)": _sd(_SD2, _OPEN_CLIP_H, 512),
    "Stable Diffusion 2 (768, v)": _sd(_SD2, _OPEN_CLIP_H, 768, "v"),
    "Stable Diffusion 2 inpainting": _sd(_painting(_SD2), _OPEN_CLIP_H, 512),
    "txt2img-1p4B": cfg.Model(
        SD_FIRST_STAGE, replace(_SD1, context_dim=1280),
        (cfg.TextConditioner(cfg.BERTText(), tokenizer="bert"),), _process(0.00085, 0.012), 256,
    ),
    "cin256-v2": cfg.Model(
        VQ_F4, _CIN, (cfg.ClassConditioner(1000, context_dim=512),), _process(0.0015, 0.0195), 256,
    ),
    "celeba256, ffhq256 or lsun_beds256": cfg.Model(
        VQ_F4, _FACES, (), _process(0.0015, 0.0195), 256
    ),
    # Its latent scale was measured in training and is in the file.
    "lsun_churches256": cfg.Model(
        KL_F8, _CHURCHES, (), _process(0.0015, 0.0155), 256
    ),
}  # fmt: skip


def find(
    autoencoder: cfg.Autoencoder, unet: cfg.UNet, conditioners: tuple[cfg.Conditioner, ...],
    predictions: Iterable[str],
) -> list[tuple[str, cfg.Model]]:  # fmt: skip
    """Names and configs of the published models of these shapes that predict one of
    `predictions`; heads and latent scale of what is asked for play no part.
    """
    found = []
    for name, model in MODELS.items():
        same = (
            _one_head(unet) == _one_head(model.unet)
            and imported_model.architecture_of(autoencoder)
            == imported_model.architecture_of(model.autoencoder)
            and _without_dropout(conditioners) == _without_dropout(model.conditioners)
        )
        if same and model.diffusion.prediction in predictions:
            found.append((name, model))
    return found


def first_stage(config: cfg.FirstStage) -> str | None:
    """The name of the published first stage of this shape, or None."""
    architecture = imported_model.architecture_of(config)
    names = (
        n for n, c in FIRST_STAGES.items() if imported_model.architecture_of(c) == architecture
    )
    return next(names, None)


def _one_head(unet: cfg.UNet) -> cfg.UNet:
    return replace(unet, num_heads=(1,) * len(unet.block_out_channels))


def _without_dropout(conditioners: tuple[cfg.Conditioner, ...]) -> tuple[cfg.Conditioner, ...]:
    return tuple(replace(part, dropout=0.0) if part.dropout else part for part in conditioners)
