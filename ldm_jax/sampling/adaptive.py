"""The probability flow by a method that chooses its own steps (diffrax)."""

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from ldm_jax.core.typing import Denoise, Process
from ldm_jax.diffusion.likelihood import probability_flow

MOST_STEPS = 4096


def flow(
    process: Process,
    denoise: Denoise,
    x: Float32[Array, "b *d"],
    start: float | int,
    end: float | int,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Float32[Array, "b *d"]:
    """x at time `start` of `process` brought to time `end`, either way, by Dormand-Prince 5(4).

    dx/dt = f x + g^2 / (2 sigma) eps (Song 2021, arXiv:2011.13456, eq. 13). `rtol` and `atol` bound
    the error of a step, in the largest of all entries: one list of steps serves the whole batch,
    on which an example so depends within the tolerance. Both times need signal and noise. The
    program holds `denoise` once.

    Raises a runtime error after 4096 steps.
    """

    field = probability_flow(denoise, process)

    def slope(t: Float32[Array, ""], x: Float32[Array, "b *d"], _: None) -> Float32[Array, "b *d"]:
        return field(x, jnp.asarray(t, jnp.float32))

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(slope), diffrax.Dopri5(), t0=start, t1=end, dt0=(end - start) / 100,
            y0=x, stepsize_controller=diffrax.PIDController(
                rtol=rtol, atol=atol, norm=lambda error: jnp.max(jnp.abs(error))
            ),
            saveat=diffrax.SaveAt(t1=True), max_steps=MOST_STEPS,
            adjoint=diffrax.ForwardMode(),
        )  # fmt: skip
    return solution.ys[0]
