"""Writes golden/task_drawings.npz: whole pictures as the original code of conditional tasks draws
them with DDIM.

    python tests/parity/make_task_drawings.py LATENT_DIFFUSION TAMING_TRANSFORMERS

The two are checkouts of CompVis/latent-diffusion (a506df5) and CompVis/taming-transformers
(3ba01b2). Needs PyTorch and einops, and none of the originals' other packages; the tests that read
the file need no original.
"""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import originals
import torch
from make_references import fill


class Network:
    """What the sampler asks of a model: its schedule, and the U-Net with the condition."""

    num_timesteps, device = 1000, torch.device("cpu")

    def __init__(self, unet: torch.nn.Module, betas: tuple[float, float]) -> None:
        from ldm.modules.diffusionmodules.util import make_beta_schedule

        found = make_beta_schedule("linear", 1000, linear_start=betas[0], linear_end=betas[1])
        alphas = np.cumprod(1.0 - found)
        self.unet, self.betas = unet, torch.tensor(found, dtype=torch.float32)
        self.alphas_cumprod = torch.tensor(alphas, dtype=torch.float32)
        self.alphas_cumprod_prev = torch.tensor(np.append(1.0, alphas[:-1]), dtype=torch.float32)

    def apply_model(self, x: Any, t: Any, condition: Any) -> Any:
        if condition.ndim == 3:
            return self.unet(x, t, context=condition)
        return self.unet(torch.cat([x, condition], dim=1), t)


class FirstStage:
    """The VQ autoencoder in the order of `VQModelInterface`."""

    def __init__(self, settings: dict) -> None:
        from ldm.modules.diffusionmodules.model import Decoder, Encoder
        from taming.modules.vqvae.quantize import VectorQuantizer2

        z, dd, prefix = settings["embed_dim"], settings["ddconfig"], "first_stage_model."
        self.encoder = fill(Encoder(**dd), f"{prefix}encoder.")
        self.decoder = fill(Decoder(**dd), f"{prefix}decoder.")
        self.quantize = fill(VectorQuantizer2(settings["n_embed"], z, beta=0.25),
                             f"{prefix}quantize.")  # fmt: skip
        self.before = fill(torch.nn.Conv2d(z, z, 1), f"{prefix}quant_conv.")
        self.after = fill(torch.nn.Conv2d(z, z, 1), f"{prefix}post_quant_conv.")

    def encode(self, image: Any) -> Any:
        return self.before(self.encoder(image))

    def decode(self, latents: Any) -> Any:
        return self.decoder(self.after(self.quantize(latents)[0]))


def condition(name: str, given: dict[str, np.ndarray], stage: FirstStage) -> Any:
    """As scripts/inpaint.py and the configs of the other two have it."""
    from ldm.modules.encoders.modules import BERTEmbedder, SpatialRescaler

    settings = originals.TASKS[name]
    if name == "inpainting_big":
        image = torch.from_numpy(given["image"].astype(np.float32).transpose(2, 0, 1)[None] / 255)
        mask = torch.from_numpy(given["mask"].astype(np.float32)[None, None])
        masked = stage.encode((1 - mask) * image * 2 - 1)
        small = torch.nn.functional.interpolate(mask * 2 - 1, size=masked.shape[-2:])
        return torch.cat((masked, small), dim=1)
    if name == "semantic_synthesis256":
        module = fill(SpatialRescaler(**settings["class_map"]), "cond_stage_model.")
        one_hot = np.eye(settings["class_map"]["in_channels"], dtype=np.float32)[given["class_map"]]
        return module(torch.from_numpy(one_hot.transpose(2, 0, 1)[None].copy()))
    module = fill(BERTEmbedder(**settings["boxes"], device="cpu"), "cond_stage_model.")
    return module(torch.from_numpy(given["boxes"][None]))


def draw(name: str) -> dict[str, np.ndarray]:
    from ldm.models.diffusion.ddim import DDIMSampler
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    class Sampler(DDIMSampler):
        def register_buffer(self, name: str, attr: Any) -> None:
            setattr(self, name, attr)  # on the CPU

    settings, given = originals.TASKS[name], originals.drawing_inputs(name)
    stage = FirstStage(originals.FIRST_STAGES[settings["first_stage"]])
    unet = fill(UNetModel(**settings["unet"]), "model.diffusion_model.")
    noise = torch.from_numpy(given["noise"].transpose(2, 0, 1)[None].copy())
    latents, _ = Sampler(Network(unet, settings["betas"])).sample(
        originals.DRAWING_STEPS, 1, noise.shape[1:], condition(name, given, stage), x_T=noise,
        verbose=False,
    )  # fmt: skip
    drawn = {"latents": latents, "image": stage.decode(latents)}
    return {f"{name}/{key}": x[0].permute(1, 2, 0).numpy() for key, x in drawn.items()}


@torch.inference_mode()
def main() -> None:
    """Computes and writes everything."""
    for path in sys.argv[1:]:
        sys.path.insert(0, path)
    # What it imports, and needs for other tasks alone.
    for name in ("clip", "kornia", "omegaconf", "omegaconf.listconfig"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["omegaconf.listconfig"].ListConfig = list
    found: dict[str, np.ndarray] = {}
    for name in originals.DRAWN:
        found |= draw(name)
    np.savez_compressed(Path(__file__).parent / "golden" / "task_drawings.npz", **found)


if __name__ == "__main__":
    main()
