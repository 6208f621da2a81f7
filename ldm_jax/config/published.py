"""Published networks by the names under which they were released: the first stages of Rombach 2022
(arXiv:2112.10752) and the transformers over codes of Esser 2021 (arXiv:2012.09841).

Tables 8 and 9 of the former, and the released settings. All first stages were trained on 256
pixels; their codebooks with the legacy weighting.
"""

from dataclasses import replace

from ldm_jax.config.autoregressive import CodeTransformer
from ldm_jax.config.bottlenecks import VQ
from ldm_jax.config.networks import Autoencoder


def _codebook(size: int) -> VQ:
    return VQ(size, weighting="legacy")


_KL_F4 = Autoencoder(latent_channels=3, block_out_channels=(128, 256, 512))
_KL_F16 = Autoencoder(
    latent_channels=16, block_out_channels=(128, 128, 256, 256, 512),
    attention=(False, False, False, False, True),
)  # fmt: skip
_VQ_F4 = replace(_KL_F4, bottleneck=_codebook(8192), latent_scale=1.0)
_VQ_F8 = Autoencoder(
    block_out_channels=(128, 256, 256, 512), bottleneck=_codebook(16384), latent_scale=1.0,
    attention=(False, False, False, True),
)  # fmt: skip

FIRST_STAGES = {
    "kl-f4": _KL_F4,
    "kl-f8": Autoencoder(),
    "kl-f16": _KL_F16,
    "kl-f32": Autoencoder(
        latent_channels=64, block_out_channels=(128, 128, 256, 256, 512, 512),
        attention=(False, False, False, False, True, True),
    ),
    "vq-f4": _VQ_F4,
    "vq-f4-noattn": replace(_VQ_F4, mid_attention=False),
    "vq-f8": _VQ_F8,
    "vq-f8-n256": replace(_VQ_F8, bottleneck=_codebook(256)),
    "vq-f16": replace(
        _KL_F16, latent_channels=8, bottleneck=_codebook(16384), latent_scale=1.0
    ),
}  # fmt: skip

_FACES = CodeTransformer(1024, 512, layers=24, width=1024, num_heads=16)
_LARGE_FACES = CodeTransformer(1024, 256, layers=24, width=1664, num_heads=16)
CODE_TRANSFORMERS = {
    "faceshq": _FACES, "drin": _FACES, "sflckr": _FACES, "ffhq": _LARGE_FACES,
    "celebahq": _LARGE_FACES,
    "cin": CodeTransformer(16384, 256, layers=48, width=1536, num_heads=24),
    "coco": CodeTransformer(8192, 512, layers=32, width=1280, num_heads=16),
    "ade20k": CodeTransformer(4096, 512, layers=28, width=1024, num_heads=16),
    "scenes_coco": CodeTransformer(8192, 348, layers=40, width=1408, num_heads=16),
    "scenes_open_images": CodeTransformer(8192, 348, layers=36, width=1536, num_heads=16),
}  # fmt: skip
"""All on 16 x 16 codes of 256 pixels."""
