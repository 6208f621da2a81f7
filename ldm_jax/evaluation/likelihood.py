"""Likelihoods of a data set under a model: the variational bound, and the exact value by the flow.

For a model of pixels these are bits per dimension of the 8-bit pictures. For a latent model they
are of the latents, whose first stage and scale are part of the unit: a number to compare models on
the same latents by, and no bound on the bits of a picture, since an autoencoder is not a bijection.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from ldm_jax import latent_diffusion as ldm
from ldm_jax import rngs
from ldm_jax.diffusion import likelihood as flow
from ldm_jax.diffusion.posterior import posterior_of, prior_bits, vlb_terms
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.typing import Denoise, Level, Process

Latents = Float[Array, "b ..."]


def variational_bound(
    denoise: Denoise,
    process: NoiseSchedule,
    x0: Float[Array, "b *d"],
    index: UInt32[Array, "b"],
    *,
    seed: int = 0,
    bins: int | None = None,
) -> dict[str, Float[Array, "..."]]:
    """Each example's bound in bits per dimension: "terms" [t, b], "prior" [b] and "total" [b].

    total = prior + the sum of all terms, one denoiser's evaluation each (Ho 2020, eq. 5; Nichol &
    Dhariwal 2021). `bins` is as in `vlb_terms`: 256 for pixels, None for latents. The noise is a
    function of seed, timestep and the example's index.
    """
    posterior = posterior_of(process.alpha_bar)
    alpha, sigma = (jnp.asarray(v, jnp.float32) for v in (process.alpha, process.sigma))
    keys = rngs.example_keys(rngs.stream(seed, "likelihood/noise"), index)

    def term(t: Array) -> Array:
        eps = rngs.normal(rngs.at_step(keys, t), x0.shape[1:])
        level = Level(t.astype(jnp.float32), alpha[t], sigma[t], jnp.zeros((), bool))
        prediction = denoise(alpha[t] * x0 + sigma[t] * eps, level)
        return vlb_terms(posterior, prediction, x0, jnp.full(x0.shape[:1], t), bins=bins)

    terms = jax.lax.map(term, jnp.arange(process.num_timesteps, dtype=jnp.int32))
    prior = prior_bits(x0, process.alpha_bar[-1])
    return {"terms": terms, "prior": prior, "total": prior + jnp.sum(terms, axis=0)}


def exact_bits(
    denoise: Denoise,
    process: Process,
    x0: Float[Array, "b *d"],
    index: UInt32[Array, "b"],
    *,
    seed: int = 0,
    steps: int = 100,
    probe: flow.Probe = "rademacher",
    offset: float = 0.0,
) -> Float[Array, "b"]:
    """Each example's bits per dimension by the probability flow, 4 `steps` evaluations each.

    The divergence is estimated with one random `probe` per example, without bias in the mean.
    x0 counts as lying at the process's t_min. `offset` is as in `flow.bits_per_dim`.
    """
    keys = rngs.example_keys(rngs.stream(seed, "likelihood/probe"), index)
    probes = flow.probes(keys, x0.shape[1:], probe)
    divergence = flow.hutchinson(flow.probability_flow(denoise, process), probes)
    times = flow.flow_times(process, steps)
    found = flow.log_likelihood(divergence, x0, times, flow.normal_prior(process))
    return flow.bits_per_dim(found.log_prob, math.prod(x0.shape[1:]), offset)


def measure(
    model: ldm.LatentDiffusion,
    params: Any,
    frozen: Any,
    batches: Iterable[Any],
    *,
    seed: int = 0,
    steps: int = 100,
    probe: flow.Probe = "rademacher",
    progress: Callable[[int], None] = lambda images: None,
) -> dict[str, Any]:
    """Means over the images of `batches`, {"image", "condition", "index"} with uint8 images.

    "flow_bits_per_dim" with its standard error, and for discrete processes "bound_bits_per_dim",
    its "prior" and its "terms" by timestep; "of" says whether they are of pixels or of latents.
    Pixels are dequantized with uniform noise for the flow; the bound takes them as they are.
    """
    stage = model.config.autoencoder
    pixels = stage.factor == 1 and stage.latent_channels == stage.image_channels
    discrete = isinstance(model.process, NoiseSchedule)

    @jax.jit
    def program(params: Any, frozen: Any, batch: Any) -> dict[str, Any]:
        index, images = batch["index"], batch["image"]
        shape = model.latent_shape_of(*images.shape[1:3])
        condition = model.condition(params, batch["condition"])

        def network(x: Array, t: Array) -> Array:
            return model.network(params, x, t, condition)

        denoise, options = model.denoiser(network), {"seed": seed}
        if pixels:
            keys = rngs.example_keys(rngs.stream(seed, "likelihood/levels"), index)
            x0 = ldm.to_pixels(images)
            spread = flow.dequantized(
                images.astype(jnp.float32), rngs.uniform(keys, images.shape[1:])
            )
        else:
            noise = ldm.noise_of(seed, "likelihood/posterior", index, shape)
            x0 = spread = model.encode(frozen, ldm.to_pixels(images), noise)
        found = {
            "flow": exact_bits(
                denoise, model.process, spread, index, steps=steps, probe=probe,
                offset=flow.PIXEL_BITS if pixels else 0.0, **options,
            )
        }  # fmt: skip
        if discrete:
            bins = 256 if pixels else None
            found |= variational_bound(denoise, model.process, x0, index, bins=bins, **options)
        return found

    parts = []
    for batch in batches:
        parts.append(jax.device_get(program(params, frozen, batch)))
        progress(len(batch["index"]))
    if not parts:
        raise ValueError("there are no images to measure likelihoods on")
    found = {k: np.concatenate([part[k] for part in parts], axis=-1) for k in parts[0]}
    bits = found["flow"]
    report = {
        "of": "pixels" if pixels else "latents",
        "images": bits.size,
        "flow_bits_per_dim": float(bits.mean()),
        "flow_standard_error": float(bits.std() / math.sqrt(bits.size)),
    }
    if discrete:
        report |= {
            "bound_bits_per_dim": float(found["total"].mean()),
            "bound_prior": float(found["prior"].mean()),
            "bound_terms": found["terms"].mean(axis=-1).tolist(),
        }
    return report
