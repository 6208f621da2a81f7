"""How each channel of the latents is normalised, taken into the autoencoder's own weights.

Stable Diffusion's programs know one scale. What the encoder of a KL autoencoder ends with and what
its decoder begins with are convolutions of 1 x 1, `quant_conv` and `post_quant_conv`, which can do
what is an affine map of each channel as well:

    x = (z - mean) / std * scale    of means W a and (b - mean) a, with a = scale / std; of
                                    log-variances W and b + 2 log a
    z = x / a + mean                W / a on each input, and b + W mean
"""

from dataclasses import replace
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert.imported_model import Imported

_SAID = (
    "mean, deviation and scale of the latents' channels are written into quant_conv and "
    "post_quant_conv of its autoencoder, whose own scale is then {}, since other programs know one "
    "scale"
)


def folded(imported: Imported, wanted: float | None = None) -> Imported:
    """`imported`, whose latents are normalised by channel if its config says so, or whose scale is
    not `wanted`, with an autoencoder whose latents are so by themselves but for that scale (1 where
    none is wanted); a note says it.

    The autoencoder must have KL, as `obstacles.of_first_stage` says.
    """
    config = imported.autoencoder
    if not config.latent_mean and wanted in (None, config.latent_scale):
        return imported
    wanted = wanted or 1.0
    mean = np.asarray(config.latent_mean or (0,) * config.latent_channels, np.float64)
    std = np.asarray(config.latent_std or (1,) * config.latent_channels, np.float64)
    factor = config.latent_scale / wanted / std
    params = imported.frozen["autoencoder"]
    params = params | {
        "quant_conv": _encoding(params["quant_conv"], mean, factor),
        "post_quant_conv": _decoding(params["post_quant_conv"], mean, factor),
    }
    plain = replace(config, latent_scale=wanted, latent_mean=(), latent_std=())
    whole = isinstance(imported.config, cfg.Model)
    return replace(
        imported,
        config=replace(imported.config, autoencoder=plain) if whole else plain,
        frozen={"autoencoder": params, "latent_scale": np.float32(wanted)},
        notes=(*imported.notes, _SAID.format(f"{wanted:g}")),
    )


def _encoding(conv: dict[str, Any], mean: np.ndarray, factor: np.ndarray) -> dict[str, Any]:
    """The convolution, kernel [1 1 z' 2z], that makes normalised means and log-variances."""
    channels = len(mean)
    kernel, bias = (np.array(conv[name], np.float64) for name in ("kernel", "bias"))
    kernel[..., :channels] *= factor
    bias[:channels] = (bias[:channels] - mean) * factor
    bias[channels:] += 2 * np.log(factor)
    return _like(conv, kernel, bias)


def _decoding(conv: dict[str, Any], mean: np.ndarray, factor: np.ndarray) -> dict[str, Any]:
    """The convolution, kernel [1 1 z z'], that takes normalised latents."""
    kernel, bias = (np.array(conv[name], np.float64) for name in ("kernel", "bias"))
    bias = bias + mean @ kernel[0, 0]
    return _like(conv, kernel / factor[:, None], bias)


def _like(conv: dict[str, Any], kernel: np.ndarray, bias: np.ndarray) -> dict[str, Any]:
    return {"kernel": kernel.astype(conv["kernel"].dtype), "bias": bias.astype(conv["bias"].dtype)}
