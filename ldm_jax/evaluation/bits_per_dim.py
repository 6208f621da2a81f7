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

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.core import rngs
from ldm_jax.core.typing import Denoise, Level, Process
from ldm_jax.diffusion import likelihood as flow
from ldm_jax.diffusion.posterior import posterior_tables, prior_bits, vlb_terms
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.models.pixels import to_pixels

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
    posterior = posterior_tables(process.alpha_bar)
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
    tolerance: float | None = None,
    probe: flow.Probe = "rademacher",
    number: int | UInt32[Array, ""] = 0,
    offset: float = 0.0,
) -> Float[Array, "b"]:
    """Each example's bits per dimension by the probability flow, 4 `steps` evaluations each.

    With a `tolerance`, relative and absolute, steps are chosen by the error instead. The
    divergence is estimated with one random `probe` per example, without bias in the mean; each
    `number` is another draw of it. x0 counts as lying at the process's t_min. `offset` is as in
    `flow.bits_per_dim`.
    """
    keys = rngs.at_step(rngs.example_keys(rngs.stream(seed, "likelihood/probe"), index), number)
    probes = flow.probes(keys, x0.shape[1:], probe)
    divergence = flow.hutchinson(flow.probability_flow(denoise, process), probes)
    prior = flow.normal_prior(process)
    if tolerance is None:
        found = flow.log_likelihood(divergence, x0, flow.flow_times(process, steps), prior)
    else:
        found = flow.adaptive_log_likelihood(
            divergence, x0, process, prior, rtol=tolerance, atol=tolerance
        )
    return flow.bits_per_dim(found.log_prob, math.prod(x0.shape[1:]), offset)


def measure(
    model: ldm.LatentDiffusion,
    params: Any,
    frozen: Any,
    batches: Iterable[Any],
    *,
    bound: bool = True,
    exact: bool = True,
    seed: int = 0,
    steps: int = 100,
    tolerance: float | None = None,
    probe: flow.Probe = "rademacher",
    probes: int = 1,
    progress: Callable[[int], None] = lambda images: None,
) -> dict[str, Any]:
    """Means over the images of `batches`, {"image", "inputs", "index"} with uint8 images.

    `inputs` are what they are conditioned on, by name. With `exact` the report has
    "flow_bits_per_dim" with "flow_standard_error", over images, and with two `probes` or more
    "flow_probe_error", the part of it that Hutchinson's estimate of the divergence makes. With
    `bound`, for discrete processes, it has "bound_bits_per_dim" with "bound_standard_error",
    "bound_prior", and "bound_terms" by timestep, L_0 first. "of" says whether they are of pixels
    or of latents, for which "normalization_bits_per_dim" is what their normalisation adds: without
    it the numbers are those of unscaled latents. Pixels are dequantized with uniform noise for the
    flow; the bound takes them as they are.

    Raises:
        ValueError: no images, or nothing to measure on this process.
    """
    pixels = of_pixels(model.config)
    bound = bound and isinstance(model.process, NoiseSchedule)
    if not (bound or exact):
        raise ValueError(
            "nothing to measure: only processes of discrete timesteps have a variational bound; "
            "ask for the exact likelihood"
        )

    @jax.jit
    def program(params: Any, frozen: Any, batch: Any) -> dict[str, Any]:
        index, images = batch["index"], batch["image"]
        shape = model.latent_shape_of(*images.shape[1:3])
        condition = model.condition(params, frozen, batch["inputs"])

        def network(x: Array, t: Array) -> Array:
            return model.network(params, x, t, condition)

        denoise = model.denoiser(network)
        if pixels:
            keys = rngs.example_keys(rngs.stream(seed, "likelihood/levels"), index)
            x0 = to_pixels(images)
            spread = flow.dequantized(
                images.astype(jnp.float32), rngs.uniform(keys, images.shape[1:])
            )
        else:
            noise = ldm.noise_of(seed, "likelihood/posterior", index, shape)
            x0 = spread = model.encode(frozen, to_pixels(images), noise)
        found = {}
        if exact:

            def once(number: Array) -> Array:
                return exact_bits(
                    denoise, model.process, spread, index, seed=seed, steps=steps,
                    tolerance=tolerance, probe=probe, number=number,
                    offset=flow.PIXEL_BITS if pixels else 0.0,
                )  # fmt: skip

            found["flow"] = jax.lax.map(once, jnp.arange(probes, dtype=jnp.uint32))
        if bound:
            bins = 256 if pixels else None
            found |= variational_bound(denoise, model.process, x0, index, seed=seed, bins=bins)
        return found

    parts = []
    for batch in batches:
        parts.append(jax.device_get(program(params, frozen, batch)))
        progress(len(batch["index"]))
    if not parts:
        raise ValueError("there are no images to measure likelihoods on")
    found = {k: np.concatenate([part[k] for part in parts], axis=-1) for k in parts[0]}
    if pixels:
        return {"of": "pixels"} | _report(found)
    return {"of": "latents", "normalization_bits_per_dim": volume_bits(frozen)} | _report(found)


def volume_bits(frozen: Any) -> float:
    """log2 of what the first stage's normalisation multiplies latents by, the mean over channels:
    the change of volume, in bits per dimension."""
    factor = np.asarray(frozen["latent_scale"], np.float64)
    if "latent_std" in frozen:
        factor = factor / np.asarray(frozen["latent_std"], np.float64)
    return float(np.log2(factor).mean())


def of_pixels(config: cfg.Model) -> bool:
    """Whether a model's likelihoods are those of 8-bit pixels."""
    return isinstance(config.autoencoder, cfg.Pixels)


def _report(found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Means and standard errors of what was found, examples last."""
    report: dict[str, Any] = {}
    if "flow" in found:
        bits = found["flow"].astype(np.float64)
        probes, images = bits.shape
        report |= {
            "images": images,
            "flow_bits_per_dim": float(bits.mean()),
            "flow_standard_error": float(bits.mean(0).std() / math.sqrt(images)),
        }
        if probes > 1:
            variance = bits.var(0, ddof=1).mean() / probes
            report["flow_probe_error"] = math.sqrt(variance / images)
    if "total" in found:
        total = found["total"].astype(np.float64)
        report |= {
            "images": total.size,
            "bound_bits_per_dim": float(total.mean()),
            "bound_standard_error": float(total.std() / math.sqrt(total.size)),
            "bound_prior": float(found["prior"].mean()),
            "bound_terms": found["terms"].mean(axis=-1).tolist(),
        }
    return report
