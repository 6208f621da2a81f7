"""The first stages of Rombach 2022 (arXiv:2112.10752) by the names under which they were released.

Tables 8 and 9 there, and the released settings. All were trained on 256 pixels; their codebooks
with the legacy weighting.
"""

from dataclasses import replace

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
