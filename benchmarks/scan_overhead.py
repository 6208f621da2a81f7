"""What the samplers' scan costs beyond its network calls.

    python -m benchmarks.scan_overhead                          a network of some milliseconds
    python -m benchmarks.scan_overhead --channels=320 --size=64 --steps=3   as Stable Diffusion 1.5

Times S steps of each sampler under one jit against S times one jitted call of the same network.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.timing import in_turn
from ldm_jax.config import UNet
from ldm_jax.core import rngs
from ldm_jax.diffusion.parameterization import make_denoiser
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.models.build import build_unet
from ldm_jax.models.conditioners import Condition
from ldm_jax.sampling.levels import inner_levels, levels
from ldm_jax.sampling.scan import sample
from ldm_jax.sampling.solvers import make_solver


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compares samplers with bare network calls."""

    size: int = 16
    channels: int = 32
    steps: int = 10
    repeats: int = 5
    samplers: tuple[str, ...] = ("ddim", "dpmpp_2m", "dpmpp_2m_sde", "unipc_3", "dpm_solver_3")


def main(arguments: Arguments) -> None:
    """Prints a line for each sampler."""
    process = NoiseSchedule.create("scaled_linear", 1000)
    widths = tuple(arguments.channels * times for times in (1, 2, 4, 4))
    unet = build_unet(
        UNet(in_channels=4, out_channels=4, block_out_channels=widths, context_dim=768)
    )
    shape = (1, arguments.size, arguments.size, 4)
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    nothing = Condition(context=jnp.zeros((1, 77, 768)))
    params = jax.jit(unet.init)(jax.random.key(0), x, jnp.zeros(1), nothing)
    keys = rngs.example_keys(rngs.stream(0, "noise"), jnp.arange(1))
    network = jax.jit(unet.apply)
    for name in arguments.samplers:
        solver = make_solver(name)
        path = inner_levels(solver, process, levels(process, arguments.steps, "karras", "one"))

        @jax.jit
        def draw(params, x, path, solver=solver):
            denoise = make_denoiser(lambda x, t: unet.apply(params, x, t, nothing), "eps", process)
            return sample(solver, denoise, x, path, keys).x

        calls = solver.evaluations(arguments.steps)
        programs = {
            "network": lambda: network(params, x, jnp.zeros(1), nothing).block_until_ready(),
            "sampler": lambda draw=draw, path=path: draw(params, x, path).block_until_ready(),
        }
        seconds = in_turn(programs, arguments.repeats)
        once, whole = min(seconds["network"]), min(seconds["sampler"])
        print(
            f"{name}: {calls} calls of {1e3 * once:.2f} ms and {1e3 * whole:.1f} ms in all, "
            f"{whole / (calls * once) - 1:+.1%}"
        )


if __name__ == "__main__":
    main(tyro.cli(Arguments))
