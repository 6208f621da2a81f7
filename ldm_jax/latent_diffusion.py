"""One latent diffusion model as a frozen bundle: encode, decode, condition, denoise, generate.

The bundle holds modules and the noise process, never parameters; those are arguments:

    params = {"unet", "conditioner"}              what stage two trains
    frozen = {"autoencoder", "latent_scale"}      what stage one left

The latent scale is applied in `encode` (by `sample_posterior`) and `decode` and nowhere else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key, Num, UInt8, UInt32

from ldm_jax import config as cfg
from ldm_jax.core import rngs
from ldm_jax.core.typing import Denoise, Level, Prediction, Process, Solver
from ldm_jax.diffusion.parameterization import make_denoiser
from ldm_jax.models.autoencoder import Autoencoder
from ldm_jax.models.bottlenecks import Gaussian, Point
from ldm_jax.models.build import build_autoencoder, build_conditioner, build_unet
from ldm_jax.models.conditioners import Condition
from ldm_jax.models.emphasis import weigh
from ldm_jax.models.pixels import Pixels
from ldm_jax.models.process import build_process
from ldm_jax.models.unet import UNet2D
from ldm_jax.sampling import inversion
from ldm_jax.sampling.guided import ALONE, Guides
from ldm_jax.sampling.inpaint import Inpaint
from ldm_jax.sampling.loop import Sampled, sample
from ldm_jax.sampling.loop import start as start_at

Params = Mapping[str, Any]


def to_pixels(images: UInt8[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """uint8 images [0, 255] → pixels in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


def to_images(pixels: Float[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
    """Pixels in [-1, 1] → uint8 images, rounded to nearest and clipped."""
    return jnp.clip(jnp.round((pixels + 1) * 127.5), 0, 255).astype(jnp.uint8)


def sample_posterior(
    frozen: Params, posterior: Gaussian | Point, noise: Float[Array, "#b zh zw z"]
) -> Float[Array, "#b zh zw z"]:
    """Scaled latents of what the encoder made of pictures, sampled with `noise`."""
    return posterior.sample(noise) * frozen["latent_scale"]


@dataclass(frozen=True)
class LatentDiffusion:
    """Modules and process of one model; every method is a pure function of its arguments."""

    config: cfg.Model
    autoencoder: Autoencoder | Pixels
    unet: UNet2D
    conditioner: nn.Module
    process: Process

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the latents of one training image."""
        return self.latent_shape_of(self.config.image_size, self.config.image_size)

    def latent_shape_of(self, height: int, width: int) -> tuple[int, int, int]:
        """Height, width and channels of the latents of an image of so many pixels."""
        config = self.config.autoencoder
        return height // config.factor, width // config.factor, config.latent_channels

    @property
    def condition_shape(self) -> tuple[int, ...]:
        """Shape of one example's condition input: (max_length,) for text, () otherwise."""
        if isinstance(self.config.condition, cfg.TextCondition):
            return (self.config.condition.encoder.max_length,)
        return ()

    def encode(
        self, frozen: Params, pixels: Float[Array, "#b h w c"], noise: Float[Array, "#b zh zw z"]
    ) -> Float[Array, "#b zh zw z"]:
        """Pixels in [-1, 1] → scaled latents, sampled from the posterior with `noise`.

        One picture may serve for noises of many. An autoencoder with codes has no posterior: its
        latents, before quantisation, are certain. So are pixels.
        """
        encoded = self.autoencoder.apply({"params": frozen["autoencoder"]}, pixels, method="encode")
        return sample_posterior(frozen, encoded, noise)

    def decode(self, frozen: Params, latents: Float[Array, "b zh zw z"]) -> Float[Array, "b h w c"]:
        """Scaled latents → pixels, about [-1, 1], not clipped."""
        return self.autoencoder.apply(
            {"params": frozen["autoencoder"]}, latents / frozen["latent_scale"], method="decode"
        )

    def condition(
        self,
        params: Params,
        inputs: Int[Array, "b ..."],
        weights: Float[Array, "b k l"] | None = None,
    ) -> Condition:
        """Tokens [b l] or labels [b] → what the U-Net is conditioned on.

        With `weights` inputs are k chunks of tokens, [b k l], whose states are weighed and put
        one after the other.
        """
        variables = {"params": params["conditioner"]}
        if weights is None:
            return self.conditioner.apply(variables, inputs)
        b, k, length = inputs.shape
        condition = self.conditioner.apply(variables, inputs.reshape(b * k, length))
        context = weigh(condition.context, weights.reshape(b * k, length))
        return condition._replace(context=context.reshape(b, k * length, -1))

    def network(
        self,
        params: Params,
        x: Float[Array, "b zh zw z"],
        t: Num[Array, "b"],
        condition: Condition,
        dropout: Key[Array, "b"] | None = None,
    ) -> Float[Array, "b zh zw c"]:
        """The U-Net's raw output (of `diffusion.prediction`, and the variance where it learns
        one) at `t`, as `process.network_time` has it; dropout is on where each
        example has a key for it."""
        return self.unet.apply({"params": params["unet"]}, x, t, condition, dropout)

    def denoiser(
        self, network: Callable[[Float[Array, "b ..."], Float[Array, "b"]], Float[Array, "b ..."]]
    ) -> Denoise:
        """What `network(x, t)`, this model's with parameters and condition, says of noisy x."""
        diffusion = self.config.diffusion
        return make_denoiser(
            network, diffusion.prediction, self.process, sigma_data=diffusion.sigma_data,
            learned_variance=diffusion.learned_variance,
        )  # fmt: skip


def build(config: cfg.Model, dtype: DTypeLike = "float32", remat: bool = False) -> LatentDiffusion:
    """The model that `config` describes; its networks compute in `dtype`.

    For float16 the autoencoder computes in float32: inside Stable Diffusion's, activations pass
    65504, the largest float16, and pictures come out black. bfloat16 has float32's range.
    """
    dtype = jnp.dtype(dtype)
    first_stage = jnp.dtype(jnp.float32) if dtype == jnp.float16 else dtype
    return LatentDiffusion(
        config=config,
        autoencoder=build_autoencoder(config.autoencoder, dtype=first_stage),
        unet=build_unet(config.unet, dtype=dtype, remat=remat),
        conditioner=build_conditioner(config.condition, dtype=dtype),
        process=build_process(config.diffusion.process),
    )


def init_params(model: LatentDiffusion, seed: int) -> dict[str, Any]:
    """Fresh trainable parameters, drawn from named streams of `seed`."""
    inputs = jnp.zeros((1, *model.condition_shape), jnp.int32)
    conditioner = model.conditioner.init(rngs.stream(seed, "init/conditioner"), inputs)
    conditioner = conditioner.get("params", {})
    condition = model.condition({"conditioner": conditioner}, inputs)
    x = jnp.zeros((1, *model.latent_shape), jnp.float32)
    t = jnp.zeros((1,), jnp.int32)
    unet = model.unet.init(rngs.stream(seed, "init/unet"), x, t, condition)["params"]
    return {"unet": unet, "conditioner": conditioner}


def noise_of(
    seed: UInt32[Array, ""] | int, name: str, index: UInt32[Array, "b"], shape: tuple[int, int, int]
) -> Float[Array, "b ..."]:
    """Standard normal noise of `shape` for each example, from the stream `name` of `seed`."""
    return rngs.normal(rngs.example_keys(rngs.stream(seed, name), index), shape)


class Start(NamedTuple):
    """What sampling starts from; what is None is absent."""

    noise: Float[Array, "b h w z"] | None = None
    """Standard normal; None: drawn from the seed."""
    latents: Float[Array, "b h w z"] | None = None
    """Scaled latents of a picture, which get noise at the first level (image-to-image)."""
    known: Float[Array, "b h w z"] | None = None
    """Scaled latents of a picture that is kept where `mask` is 0 (inpainting)."""
    mask: Float[Array, "b h w 1"] | None = None
    """With `known`: 1 where the picture is drawn anew."""


NOISE = Start()


def draw(
    model: LatentDiffusion,
    params: Params,
    condition: Condition,
    nothing: Condition | None,
    **how: Any,
) -> Float[Array, "b zh zw z"]:
    """Scaled latents for each example of `condition`: `watch`, of which only the end is kept."""
    return watch(model, params, condition, nothing, **how).x


def watch(
    model: LatentDiffusion,
    params: Params,
    condition: Condition,
    nothing: Condition | None,
    *,
    solver: Solver,
    levels: Level,
    seed: UInt32[Array, ""] | int,
    index: UInt32[Array, "b"],
    guidance_scale: Float[Array, ""] | float = 1.0,
    shape: tuple[int, int, int],
    start: Start = NOISE,
    guides: Guides = ALONE,
    resample: int = 1,
    jump: int = 1,
    previews: int = 0,
) -> Sampled:
    """Scaled latents of `shape` for each example of `condition`, and what was thought of them.

    Example `i` is a function of `seed`, `index[i]`, `condition[i]` and `start[i]` alone. With
    `nothing` (the unconditional condition) every evaluation is one network call of twice the
    batch, ordered [unconditional, conditional]; without, classifier-free guidance is off.
    `guides` holds all other guidance; `resample` and `jump` are those of `Inpaint`. Of the
    predictions of x0 on the way, `previews` are kept, from the first to the last.
    """
    noise = start.noise
    if noise is None:
        noise = noise_of(seed, "sample/initial", index, shape)
    first: Level = jax.tree.map(lambda values: values[0], levels)
    x = start_at(noise, first)
    if start.latents is not None:
        x = first.alpha * start.latents + first.sigma * noise
    solver = guides.solver(solver)
    if start.known is not None:
        solver = Inpaint(solver, start.known, noise, start.mask, resample, jump)

    def denoise_given(x: Array, level: Level, cond: Condition) -> Prediction:
        network = partial(model.network, params, condition=cond)
        return model.denoiser(network)(x, level)

    denoise = guides.denoiser(denoise_given, condition, nothing, guidance_scale)
    keys = rngs.example_keys(rngs.stream(seed, "sample/solver"), index)
    return sample(solver, denoise, x, levels, keys, return_x0s=previews)


def invert(
    model: LatentDiffusion,
    params: Params,
    condition: Condition,
    latents: Float[Array, "b zh zw z"],
    levels: Level,
) -> Float[Array, "b zh zw z"]:
    """The noise, of unit variance if the model is right, from which a solver without noise of its
    own draws the scaled `latents` at the first of `levels`; see `sampling.inversion`."""
    network = partial(model.network, params, condition=condition)
    noisy = inversion.invert(model.denoiser(network), latents, levels)
    first: Level = jax.tree.map(lambda values: values[0], levels)
    return noisy / start_at(jnp.ones_like(noisy), first)


def generate(
    model: LatentDiffusion,
    params: Params,
    frozen: Params,
    inputs: Int[Array, "b ..."],
    empty: Int[Array, "b ..."] | None,
    **how: Any,
) -> UInt8[Array, "b h w c"]:
    """Images for the conditions `inputs`, as one traceable program: condition, draw, decode.

    `empty` holds the unconditional inputs, or is None for no guidance; `how` is as in `draw`.
    """
    condition = model.condition(params, inputs)
    nothing = None if empty is None else model.condition(params, empty)
    return to_images(model.decode(frozen, draw(model, params, condition, nothing, **how)))
