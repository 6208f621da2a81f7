"""Stable Diffusion 1.5's U-Net forward in float32 on this machine's CPU, ours beside diffusers'.

    python -m benchmarks.unet_forward [--repeats=5]

Both take batch 2 (guidance of one image), 64x64 latents and 77 tokens, with random parameters of
the same shapes. Needs the extra `parity` and 9 GB of memory.
"""

import argparse

import diffusers
import jax
import jax.numpy as jnp
import torch

from benchmarks import timing, torchvision_python  # noqa: F401
from ldm_jax import config as cfg
from ldm_jax.models.build import build_unet
from ldm_jax.models.conditioners import Condition

BATCH, SIDE, TOKENS = 2, 64, 77
PARAMETERS = 859_520_964


def ours() -> tuple[object, int]:
    """A call of our compiled U-Net, and its number of parameters."""
    config = cfg.UNet(in_channels=4, out_channels=4, context_dim=768)
    unet = build_unet(config)
    key = jax.random.key(0)
    x = jax.random.normal(key, (BATCH, SIDE, SIDE, config.in_channels))
    t = jnp.array([1, 501])
    condition = Condition(context=jax.random.normal(key, (BATCH, TOKENS, config.context_dim)))
    params = jax.jit(unet.init)(key, x, t, condition)
    forward = jax.jit(unet.apply).lower(params, x, t, condition).compile()
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return lambda: jax.block_until_ready(forward(params, x, t, condition)), count


def theirs() -> tuple[object, int]:
    """The same of diffusers'."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=SIDE, cross_attention_dim=768, attention_head_dim=8
    ).eval()
    x, t = torch.randn(BATCH, 4, SIDE, SIDE), torch.tensor([1, 501])
    context = torch.randn(BATCH, TOKENS, 768)

    def forward() -> object:
        with torch.inference_mode():
            return unet(x, t, encoder_hidden_states=context).sample

    return forward, sum(p.numel() for p in unet.parameters())


def main() -> None:
    """Prints the times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    programs = {}
    for name, build in (("diffusers", theirs), ("ldm_jax", ours)):
        programs[name], count = build()
        if count != PARAMETERS:
            raise SystemExit(f"{name} has {count} parameters instead of {PARAMETERS}")
    seconds = timing.in_turn(programs, repeats)
    title = f"SD 1.5 U-Net forward, batch {BATCH}, {SIDE}x{SIDE} latents, float32"
    timing.report(title, seconds, "ldm_jax", "diffusers")


if __name__ == "__main__":
    main()
