"""A training step of a small text-conditional U-Net on this machine's CPU, ours beside diffusers'.

    python -m benchmarks.train_step [--repeats=20] [--lora=8] [--devices=2]

Forward, backward and AdamW on the squared error to noise, in float32; both sides have the same
layers, batch and number of parameters. With --lora a LoRA of that rank is trained beside the
network, of its attention; theirs is PEFT's. With --devices JAX takes the machine for so many, and
splits the batch. Of ours the memory that the compiler plans for a device is told as well.
Needs the extra `parity`.
"""

import argparse

import diffusers
import jax
import jax.numpy as jnp
import optax
import torch

from benchmarks import timing, torchvision_python  # noqa: F401
from ldm_jax import config as cfg
from ldm_jax.adapters.adapted import Adapted, put_beside
from ldm_jax.adapters.adapter import AdapterUse
from ldm_jax.adapters.fresh import fresh
from ldm_jax.core import sharding, tree
from ldm_jax.core.kept_memory import keep_freed_memory
from ldm_jax.models.build import build_unet
from ldm_jax.models.conditioners import Condition

BATCH, SIDE, TOKENS = 16, 16, 16
WIDTHS, HEADS, GROUPS, CONTEXT = (64, 128), 4, 16, 128
RATE, DECAY = 1e-4, 1e-2
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def ours(rank: int | None) -> tuple[object, int]:
    """A call that makes one step of ours, and the number of parameters that it trains."""
    config = cfg.UNet(
        in_channels=4, out_channels=4,
        block_out_channels=WIDTHS, layers_per_block=1, attention=(True, True),
        num_heads=(HEADS, HEADS), context_dim=CONTEXT, norm_num_groups=GROUPS,
    )  # fmt: skip
    unet, optimizer = build_unet(config), optax.adamw(RATE, weight_decay=DECAY)
    key = jax.random.key(0)
    x, eps = (jax.random.normal(k, (BATCH, SIDE, SIDE, 4)) for k in jax.random.split(key))
    t = jnp.arange(BATCH)
    condition = Condition(context=jax.random.normal(key, (BATCH, TOKENS, CONTEXT)))
    mesh = sharding.make_mesh(cfg.Mesh())
    rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    params, frozen = {"unet": jax.jit(unet.init)(key, x, t, condition)["params"]}, {}
    if rank is not None:
        unet = Adapted(unet)
        adapter = fresh(cfg.ModuleAdapter(cfg.LoRA(rank)), params, None, seed=0)
        beside = put_beside(params, [AdapterUse(adapter)])
        params, frozen = tree.split(beside, [(cfg.TRAINED["adapter"], True), (r".*", False)])
        params, frozen = (jax.tree.map(jnp.array, part) for part in (params, frozen))

    def loss(params: object, frozen: object, x: object, eps: object, *given: object) -> jax.Array:
        every = tree.join(params, frozen)["unet"]
        return jnp.mean((unet.apply({"params": every}, x, *given) - eps) ** 2)

    def step(state: tuple, frozen: object, batch: tuple) -> tuple:
        params, moments = state
        gradients = jax.grad(loss)(params, frozen, *batch)
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments

    state, frozen = jax.device_put(((params, optimizer.init(params)), frozen), whole)
    batch = jax.device_put((x, eps, t, condition), rows)
    step = jax.jit(step, donate_argnums=0, out_shardings=whole)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        program = step.lower(state, frozen, batch).compile()
    planned = program.memory_analysis()
    used = (planned.argument_size_in_bytes + planned.temp_size_in_bytes) / 1e6
    print(f"ldm_jax: arguments and temporaries {used:.0f} MB")

    def run() -> None:
        nonlocal state
        state = jax.block_until_ready(program(state, frozen, batch))

    return run, sum(leaf.size for leaf in jax.tree.leaves(params))


def theirs(rank: int | None) -> tuple[object, int]:
    """The same of diffusers' and PyTorch's AdamW."""
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=WIDTHS, layers_per_block=1, cross_attention_dim=CONTEXT,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        attention_head_dim=HEADS, norm_num_groups=GROUPS,
    )  # fmt: skip
    if rank is not None:
        unet.requires_grad_(False)
        import peft  # which imports torchvision at once

        unet.add_adapter(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=ATTENTION))
    trained = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY)
    x, eps = (torch.randn(BATCH, 4, SIDE, SIDE) for _ in range(2))
    t, context = torch.arange(BATCH), torch.randn(BATCH, TOKENS, CONTEXT)

    def run() -> None:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(unet(x, t, encoder_hidden_states=context).sample, eps)
        loss.backward()
        optimizer.step()

    return run, sum(p.numel() for p in trained)


def main() -> None:
    """Prints the times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--lora", type=int)
    parser.add_argument("--devices", type=int, default=1)
    given = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", given.devices)
    keep_freed_memory()
    programs, counts = {}, {}
    for name, build in (("diffusers", theirs), ("ldm_jax", ours)):
        programs[name], counts[name] = build(given.lora)
    if len(set(counts.values())) != 1:
        raise SystemExit(f"the networks differ in their number of parameters: {counts}")
    seconds = timing.in_turn(programs, given.repeats)
    what = "a U-Net" if given.lora is None else f"a LoRA of rank {given.lora} beside a U-Net"
    title = f"Training step of {what}, {counts['ldm_jax']:,} parameters, batch {BATCH}, "
    timing.report(
        title + f"{SIDE}x{SIDE} latents, float32, {given.devices} devices",
        seconds,
        "ldm_jax",
        "diffusers",
    )


if __name__ == "__main__":
    main()
