"""Rescaled classifier-free guidance of v-models beside diffusers' `rescale_noise_cfg`."""

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (  # noqa: E402
    rescale_noise_cfg,
)

from ldm_jax.diffusion.parameterization import make_denoiser  # noqa: E402
from ldm_jax.diffusion.schedules import NoiseSchedule  # noqa: E402
from ldm_jax.sampling.guidance import classifier_free  # noqa: E402
from ldm_jax.sampling.levels import levels  # noqa: E402

RANDOM = np.random.default_rng(0)
X, WITHOUT, GIVEN = RANDOM.normal(size=(3, 2, 5, 6, 4)).astype(np.float32)
PROCESS = NoiseSchedule.create("scaled_linear", 1000)


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_rescaling_of_v(place, share):
    """The peer rescales the network's output, which for v-models is the v that ours rescales."""
    run = levels(PROCESS, 5, "trailing", "one")
    level = type(run)(*(values[place] for values in run))

    def denoise_of(x, level, v):
        return make_denoiser(lambda x, t: v, "v", PROCESS)(x, level)

    scale = 7.5
    guided = classifier_free(
        denoise_of, jnp.asarray(GIVEN), jnp.asarray(WITHOUT), scale, rescale=share
    )
    found = guided(jnp.asarray(X), level)
    given = torch.from_numpy(GIVEN)
    peer = rescale_noise_cfg(
        torch.from_numpy(WITHOUT + scale * (GIVEN - WITHOUT)), given, guidance_rescale=share
    ).numpy()
    alpha, sigma = float(level.alpha), float(level.sigma)
    # x0 and eps are those of the peer's v: float32 of numbers up to some 30.
    np.testing.assert_allclose(found.x0, alpha * X - sigma * peer, atol=2e-5)
    np.testing.assert_allclose(found.eps, sigma * X + alpha * peer, atol=2e-5)
