"""One latent diffusion model as a frozen bundle: encode, decode, condition, denoise, generate.

The bundle holds modules and the noise process, never parameters; those are arguments:

    params = {"unet", "conditioners"}             what stage two trains
             {"adapters": {"control": {"0", …}}}  of ControlNets beside it
    frozen = {"autoencoder", "latent_scale"}      what stage one left

Beside the scale, a number, `frozen` may have "latent_mean" and "latent_std" of each channel [z]:
the network sees (z - mean) / std * scale. These are applied in `encode` (by `sample_posterior`) and
undone in `decode` and nowhere else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, Num, UInt8, UInt32

from ldm_jax import config as cfg
from ldm_jax.core import rngs
from ldm_jax.core.typing import Denoise, Level, Prediction, Process, Solver
from ldm_jax.diffusion.parameterization import make_denoiser
from ldm_jax.models import conditioners
from ldm_jax.models.bottlenecks import Gaussian, Point
from ldm_jax.models.build import build_autoencoder, build_conditioner, build_unet
from ldm_jax.models.conditioners import Condition, Conditioner, Encoder, Hint, Inputs
from ldm_jax.models.control_net import ControlNet, controlled, embed_hint
from ldm_jax.models.pixels import to_images
from ldm_jax.models.process import build_process
from ldm_jax.sampling import scan
from ldm_jax.sampling.guidance import NO_GUIDANCE, Guidance
from ldm_jax.sampling.inpaint import Inpaint

Params = Mapping[str, Any]


def sample_posterior(
    frozen: Params, posterior: Gaussian | Point, noise: Float[Array, "#b zh zw z"]
) -> Float[Array, "#b zh zw z"]:
    """Scaled latents of what the encoder made of pictures, sampled with `noise`."""
    latents = posterior.sample(noise)
    if "latent_mean" in frozen:
        mean, std = _of_channels(frozen)
        latents = (latents - mean) / std
    return latents * frozen["latent_scale"]


def _of_channels(frozen: Params) -> list[Float[Array, "1 1 1 z"]]:
    """Mean and standard deviation of the unscaled latents of each channel."""
    return [jnp.reshape(frozen[name], (1, 1, 1, -1)) for name in ("latent_mean", "latent_std")]


@runtime_checkable
class FirstStage(Protocol):
    """What encodes and decodes: an `Autoencoder`, `Pixels`, or one of these in tiles."""

    def apply(self, variables: Any, *arguments: Any, method: Any) -> Any:
        """As Flax's, for the methods `encode` and `decode`."""
        ...


@runtime_checkable
class UNet(Protocol):
    """What denoises: a `UNet2D`, or one in tiles."""

    def apply(self, variables: Any, *arguments: Any) -> Any:
        """As Flax's."""
        ...


@dataclass(frozen=True)
class LatentDiffusion:
    """Modules and process of one model; every method is a pure function of its arguments."""

    config: cfg.Model
    autoencoder: FirstStage
    unet: UNet
    conditioners: tuple[Conditioner, ...]
    process: Process
    controls: tuple[ControlNet, ...] = ()
    """They act where the condition has a hint for each."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the latents of one training image."""
        return self.latent_shape_of(*self.config.sides)

    def latent_shape_of(self, height: int, width: int) -> tuple[int, int, int]:
        """Height, width and channels of the latents of an image of so many pixels."""
        config = self.config.autoencoder
        return height // config.factor, width // config.factor, config.latent_channels

    def encode(
        self, frozen: Params, pixels: Float[Array, "#b h w c"], noise: Float[Array, "#b zh zw z"]
    ) -> Float[Array, "#b zh zw z"]:
        """Pixels in [-1, 1] → scaled latents, sampled from the posterior with `noise`.

        One picture may serve for noises of many. An autoencoder with codes has no posterior: its
        latents, before quantisation, are certain. So are pixels.
        """
        return sample_posterior(frozen, self._posterior(frozen, pixels), noise)

    def _posterior(self, frozen: Params, pixels: Float[Array, "b h w c"]) -> Gaussian | Point:
        return self.autoencoder.apply({"params": frozen["autoencoder"]}, pixels, method="encode")

    def decode(self, frozen: Params, latents: Float[Array, "b zh zw z"]) -> Float[Array, "b h w c"]:
        """Scaled latents → pixels, about [-1, 1], not clipped."""
        latents = latents / frozen["latent_scale"]
        if "latent_mean" in frozen:
            mean, std = _of_channels(frozen)
            latents = latents * std + mean
        return self.autoencoder.apply({"params": frozen["autoencoder"]}, latents, method="decode")

    def condition(self, params: Params, frozen: Params, inputs: Inputs) -> Condition:
        """Named inputs, such as tokens of the `caption` [b l], → what the U-Net is conditioned on.

        `models.conditioners` says what each conditioner takes; a `hint`, uint8 pictures, is for
        the only ControlNet.
        """
        encoder = Encoder(
            sampled=partial(self.encode, frozen),
            mode=lambda pixels: self._posterior(frozen, pixels).mode,
        )
        made = conditioners.run(self.conditioners, params.get("conditioners", {}), inputs, encoder)
        if not (self.controls and "hint" in inputs):
            return made
        (features,) = self.embed_hints(params, [inputs["hint"].astype(jnp.float32) / 255])
        rows = len(features)
        always = jnp.broadcast_to(jnp.array([jnp.inf, -jnp.inf]), (rows, 2))
        whole = jnp.ones((rows, self.controls[0].branch.residuals), jnp.float32)
        return made._replace(hints=(Hint(features, whole, always),))

    def embed_hints(
        self, params: Params, pictures: Sequence[Float[Array, "b h w c"]]
    ) -> tuple[Float[Array, "b h2 w2 d"], ...]:
        """What each ControlNet makes of its hint, in [0, 1]."""
        own = params["adapters"]["control"]
        nets = enumerate(self.controls)
        return tuple(embed_hint(net, own[str(i)], pictures[i]) for i, net in nets)

    def with_noise(
        self,
        inputs: Inputs,
        seed: UInt32[Array, ""] | int,
        use: str,
        index: UInt32[Array, "b"],
        shape: tuple[int, int, int],
    ) -> Inputs:
        """`inputs` with the noise that conditioners of pictures take, that of each example drawn
        from the streams `use`/… of `seed`; `shape` is that of its latents."""
        shapes: dict[str, tuple[int, int, int]] = {}
        for conditioner in self.config.conditioners:
            match conditioner:
                case cfg.InpaintingConditioner():
                    shapes["masked"] = shape
                case cfg.LowResConditioner(noise=cfg.NoiseAugmentation()):
                    shapes["low_res"] = (*shape[:2], 3)
        drawn = {f"{n}_noise": noise_of(seed, f"{use}/{n}", index, s) for n, s in shapes.items()}
        return {**inputs, **drawn}

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
        example has a key for it. ControlNets act where the condition has hints."""
        if condition.hints:
            own = params["adapters"]["control"]
            control = controlled(self.controls, own, x, t, condition, dropout)
            return self.unet.apply({"params": params["unet"]}, x, t, condition, dropout, control)
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
        conditioners=tuple(
            build_conditioner(part, dtype, config.autoencoder.factor)
            for part in config.conditioners
        ),
        process=build_process(config.diffusion.process),
    )


def zero_inputs(config: cfg.Model, rows: int = 1) -> dict[str, Array]:
    """Inputs of the right shapes, all zero, for each conditioner of the model; noise excepted."""
    stage, (height, width) = config.autoencoder, config.sides
    small = height // stage.factor, width // stage.factor
    zeros: dict[str, Array] = {}
    for conditioner in config.conditioners:
        match conditioner:
            case cfg.TextConditioner(encoder=encoder):
                zeros["caption"] = jnp.zeros((rows, encoder.max_length), jnp.int32)
            case cfg.ClassConditioner():
                zeros["label"] = jnp.zeros((rows,), jnp.int32)
            case cfg.InpaintingConditioner():
                zeros["mask"] = jnp.zeros((rows, height, width, 1), jnp.uint8)
                zeros["image"] = jnp.zeros((rows, height, width, 3), jnp.uint8)
            case cfg.LowResConditioner(noise=noise):
                zeros["low_res"] = jnp.zeros((rows, *small, 3), jnp.uint8)
                if noise is not None:
                    zeros["noise_level"] = jnp.zeros((rows,), jnp.int32)
            case cfg.ClassMapConditioner():
                zeros["class_map"] = jnp.zeros((rows, height, width), jnp.int16)
            case cfg.LayoutConditioner(tokens=tokens, box_map_channels=channels):
                zeros["boxes"] = jnp.zeros((rows, tokens.length), jnp.int32)
                if channels is not None:
                    zeros["box_map"] = jnp.zeros((rows, height, width), jnp.int16)
            case cfg.EditConditioner():
                zeros["edit_image"] = jnp.zeros((rows, height, width, 3), jnp.uint8)
                zeros["edit_given"] = jnp.zeros((rows,), jnp.int32)
            case cfg.DepthConditioner():
                zeros["depth"] = jnp.zeros((rows, *small), jnp.float32)
            case cfg.SizeConditioner():
                zeros["size"] = jnp.zeros((rows, 6), jnp.int32)
    return zeros


def init_params(model: LatentDiffusion, seed: int) -> dict[str, Any]:
    """Fresh trainable parameters, drawn from named streams of `seed`."""
    index, condition = jnp.zeros((1,), jnp.uint32), Condition()
    x = jnp.zeros((1, *model.latent_shape), jnp.float32)
    inputs = model.with_noise(zero_inputs(model.config), seed, "init", index, model.latent_shape)
    params: dict[str, Any] = {}
    for conditioner in model.conditioners:
        key = rngs.stream(seed, f"init/{conditioner.name}")
        own = conditioner.init(key, inputs, condition)
        if own:
            params[conditioner.name] = own
        # What an encoder would make of a picture matters here by its shape alone.
        shaped = Encoder(sampled=lambda *_: x, mode=lambda *_: x)
        condition = condition.joined(conditioner(own, inputs, condition, shaped))
    t = jnp.zeros((1,), jnp.int32)
    unet = model.unet.init(rngs.stream(seed, "init/unet"), x, t, condition)["params"]
    return {"unet": unet, "conditioners": params}


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
    original: Float[Array, "b h w z"] | None = None
    """Scaled latents of a picture that is kept where `mask` is 0 (inpainting)."""
    mask: Float[Array, "b h w 1"] | None = None
    """With `original`: 1 where the picture is drawn anew."""


FROM_NOISE = Start()


class Conditions(NamedTuple):
    """What guidance compares; what is None is absent."""

    cond: Condition
    uncond: Condition | None = None
    pictured: Condition | None = None
    """Of the picture to edit alone, where it has a scale of its own."""


def conditions_of(
    config: cfg.Model, condition: Callable[[Inputs], Condition], inputs: Inputs, uncond: Inputs
) -> Conditions:
    """What `condition` makes of `inputs`, and with `uncond` in place of those of the same name."""
    nothing = {**inputs, **uncond}
    pictured = None
    if config.has_two_guidances:
        pictured = condition({**nothing, "edit_given": inputs["edit_given"]})
    return Conditions(condition(inputs), condition(nothing), pictured)


def with_hints(
    conditions: Conditions, cond: tuple[Hint, ...], uncond: tuple[Hint, ...]
) -> Conditions:
    """`conditions` with hints, of which `uncond` are those of all but the condition itself."""
    every = (conditions.cond._replace(hints=cond), *(
        one if one is None else one._replace(hints=uncond) for one in conditions[1:]
    ))  # fmt: skip
    return Conditions(*every)


class Drawing(NamedTuple):
    """Arguments of `scan.sample` for one batch, and of `scan.advance`, which runs it in parts."""

    solver: Solver
    denoise: Denoise
    x_start: Float[Array, "b zh zw z"]
    levels: Level
    keys: Key[Array, "b"]


def drawing(
    model: LatentDiffusion,
    params: Params,
    cond: Condition,
    uncond: Condition | None,
    *,
    solver: Solver,
    levels: Level,
    seed: UInt32[Array, ""] | int,
    index: UInt32[Array, "b"],
    shape: tuple[int, int, int],
    pictured: Condition | None = None,
    start: Start = FROM_NOISE,
    guidance: Guidance = NO_GUIDANCE,
    resample: int = 1,
    jump: int = 1,
) -> Drawing:
    """Drawing scaled latents of `shape` for each example of `cond`.

    Example `i` is a function of `seed`, `index[i]`, `cond[i]` and `start[i]` alone. With
    `uncond` (the unconditional condition) every evaluation is one network call of twice the
    batch, ordered [unconditional, conditional]; without, classifier-free guidance is off. With
    `pictured` beside it (the condition of the picture to edit alone) it is one of three times.
    `resample` and `jump` are those of `Inpaint`.
    """
    noise = start.noise
    if noise is None:
        noise = noise_of(seed, "sample/initial", index, shape)
    first: Level = jax.tree.map(lambda values: values[0], levels)
    x = scan.initial_x(noise, first)
    if start.latents is not None:
        x = first.alpha * start.latents + first.sigma * noise
    solver = guidance.solver(solver)
    if start.original is not None:
        solver = Inpaint(solver, start.original, noise, start.mask, resample, jump)

    def denoise_of(x: Array, level: Level, cond: Condition) -> Prediction:
        network = partial(model.network, params, condition=cond)
        return model.denoiser(network)(x, level)

    denoise = guidance.denoiser(denoise_of, cond, uncond, pictured)
    keys = rngs.example_keys(rngs.stream(seed, "sample/solver"), index)
    return Drawing(solver, denoise, x, levels, keys)


def invert(
    model: LatentDiffusion,
    params: Params,
    condition: Condition,
    latents: Float[Array, "b zh zw z"],
    levels: Level,
) -> Float[Array, "b zh zw z"]:
    """The noise, of unit variance if the model is right, from which a solver without noise of its
    own draws the scaled `latents` at the first of `levels`; see `sampling.scan.invert`."""
    network = partial(model.network, params, condition=condition)
    noisy = scan.invert(model.denoiser(network), latents, levels)
    first: Level = jax.tree.map(lambda values: values[0], levels)
    return noisy / scan.initial_x(jnp.ones_like(noisy), first)


def generate(
    model: LatentDiffusion,
    params: Params,
    frozen: Params,
    inputs: Inputs,
    uncond: Inputs | None,
    **how: Any,
) -> UInt8[Array, "b h w c"]:
    """Images for the named `inputs`, as one traceable program: condition, sample, decode.

    `uncond` holds the inputs that are unconditional, in place of those of the same name, or is
    None for no guidance; `how` is as in `drawing`.
    """
    inputs = model.with_noise(inputs, how["seed"], "sample", how["index"], how["shape"])
    condition = partial(model.condition, params, frozen)
    if uncond is None:
        found = Conditions(condition(inputs))
    else:
        found = conditions_of(model.config, condition, inputs, uncond)
    how |= {"pictured": found.pictured}
    latents = scan.sample(*drawing(model, params, found.cond, found.uncond, **how)).x
    return to_images(model.decode(frozen, latents))
