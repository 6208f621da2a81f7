"""Which published models have the shapes of a file, for what these cannot say: heads, schedule,
latent scale, size."""

from collections.abc import Iterable

from ldm_jax import config as cfg
from ldm_jax.config.published import FIRST_STAGES
from ldm_jax.config.published_models import MODELS
from ldm_jax.convert import imported_model


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
            imported_model.unet_in_shapes(unet) == imported_model.unet_in_shapes(model.unet)
            and imported_model.architecture_of(autoencoder)
            == imported_model.architecture_of(model.autoencoder)
            and imported_model.conditioners_in_shapes(conditioners)
            == imported_model.conditioners_in_shapes(model.conditioners)
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
