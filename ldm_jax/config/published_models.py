"""Published diffusion models: networks, conditions, schedule, latent scale and size.

Rombach 2022 (arXiv:2112.10752), tables 12 to 15 and the released settings; Stable Diffusion 1 and
2, their inpainting models, the depth model and the x4 upscaler; InstructPix2Pix (Brooks 2022). All
published codebooks were trained with the legacy weighting.
"""

from dataclasses import replace

from ldm_jax import config as cfg
from ldm_jax.config.published import FIRST_STAGES

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
_TASK = cfg.UNet(
    in_channels=3, out_channels=3, attention_kind="plain", num_heads=(8,) * 4, context_dim=None
)
_SUPER_RESOLUTION = replace(
    _TASK, concat_channels=3, block_out_channels=(160, 320, 320, 640),
    attention=(False, False, False, True), num_heads=(5, 10, 10, 20),
)  # fmt: skip
_INPAINTING = replace(
    _TASK, concat_channels=4, block_out_channels=(256, 512, 768, 1024),
    attention=(False, True, True, True), resblock_updown=True,
)  # fmt: skip
_SEMANTIC = replace(
    _TASK, concat_channels=3, block_out_channels=(128, 512, 1024), attention=(False,) * 3,
    num_heads=(8,) * 3,
)  # fmt: skip
_LAYOUT = cfg.UNet(
    in_channels=3, out_channels=3, block_out_channels=(128, 256, 384, 512),
    attention=(False, True, True, True), num_heads=(4, 8, 12, 16), transformer_layers=3,
    context_dim=512,
)  # fmt: skip
_OPEN_IMAGES = cfg.LayoutTokens(340, flags=("group", "occluded", "depiction", "inside"))
_UPSCALER = replace(
    _SD2, concat_channels=3, block_out_channels=(256, 512, 512, 1024), class_count=1000,
    attention=(False, True, True, True), num_heads=(8,) * 4,
    only_cross_attention=(False, True, True, False),
)  # fmt: skip


def _sd(
    unet: cfg.UNet, text: cfg.TextConditioner, size: int, *beside: cfg.Conditioner,
    prediction: str = "eps",
) -> cfg.Model:  # fmt: skip
    """Of Stable Diffusion, conditioned on text and what is `beside` the latents."""
    channels = sum(part.slots(SD_FIRST_STAGE.latent_channels).concat for part in beside)
    process = _process(0.00085, 0.012, prediction)
    unet = replace(unet, concat_channels=channels)
    return cfg.Model(SD_FIRST_STAGE, unet, (text, *beside), process, size)


MODELS = {
    "Stable Diffusion 1": _sd(_SD1, _CLIP_L, 512),
    "Stable Diffusion 1 inpainting": _sd(_SD1, _CLIP_L, 512, cfg.InpaintingConditioner()),
    "InstructPix2Pix": _sd(_SD1, _CLIP_L, 512, cfg.EditConditioner()),
    "Stable Diffusion 2 base (512, eps)": _sd(_SD2, _OPEN_CLIP_H, 512),
    "Stable Diffusion 2 (768, v)": _sd(_SD2, _OPEN_CLIP_H, 768, prediction="v"),
    "Stable Diffusion 2 inpainting": _sd(_SD2, _OPEN_CLIP_H, 512, cfg.InpaintingConditioner()),
    "Stable Diffusion 2 depth": _sd(_SD2, _OPEN_CLIP_H, 512, cfg.DepthConditioner()),
    "Stable Diffusion x4 upscaler": cfg.Model(
        replace(FIRST_STAGES["kl-f4"], latent_channels=4, latent_scale=0.08333), _UPSCALER,
        (_OPEN_CLIP_H, cfg.LowResConditioner(noise=cfg.NoiseAugmentation())),
        _process(0.0001, 0.02, "v"), 512,
    ),
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
    "bsr_sr": cfg.Model(
        VQ_F4, _SUPER_RESOLUTION, (cfg.LowResConditioner(cfg.BSRGAN(light=True)),),
        _process(0.0015, 0.0155), 256,
    ),
    "inpainting_big": cfg.Model(
        FIRST_STAGES["vq-f4-noattn"], _INPAINTING, (cfg.InpaintingConditioner("latent_diffusion"),),
        _process(0.0015, 0.0205), 256,
    ),
    "semantic_synthesis256 or semantic_synthesis512": cfg.Model(
        VQ_F4, _SEMANTIC, (cfg.ClassMapConditioner(dropout=0.0),), _process(0.0015, 0.0205), 256,
    ),
    "layout2img-openimages256": cfg.Model(
        VQ_F4, _LAYOUT, (cfg.LayoutConditioner(_OPEN_IMAGES, dropout=0.0),),
        _process(0.0015, 0.0205), 256,
    ),
    # Its latent scale was measured in training and is in the file.
    "lsun_churches256": cfg.Model(
        KL_F8, _CHURCHES, (), _process(0.0015, 0.0155), 256
    ),
}  # fmt: skip
