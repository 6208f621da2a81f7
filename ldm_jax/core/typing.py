"""The words that the rooms share: names of axes, and the contracts of denoisers and solvers.

Axis legend, for every annotation in the package:

    b   examples of a batch            s   noise levels, in the order a sampler visits them
    h w height and width (NHWC)        l   tokens of a text
    c   channels                       d   width of an embedding
    z   channels of a latent           t   timesteps of the noise schedule

A noisy example is `x = alpha * x0 + sigma * eps`, whatever the schedule: variance preserving
(alpha^2 + sigma^2 = 1) or exploding (alpha = 1).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Float64, Int, Num

Times = Num[Array, "*t"] | Num[np.ndarray, "*t"] | float | int
"""Times of a process: on the host in float64, or in a program."""

Scales = Float[Array, "*t"] | Float[np.ndarray, "*t"] | float
"""A number for each of `Times`, on the host or in a program as they are."""


@runtime_checkable
class Process(Protocol):
    """A forward process x_t = alpha(t) x0 + sigma(t) eps, and as dx = f(t) x dt + g(t) dw.

    Arrays come back as they are given: NumPy's in float64, JAX's in float32. Time is the
    process's own, and noise grows with it from `t_min` to `t_max`, the ends of what networks are
    trained and asked at.
    """

    @property
    def t_min(self) -> float | int:
        """Where data is all but reached."""
        ...

    @property
    def t_max(self) -> float | int:
        """Where sampling starts."""
        ...

    def alpha_at(self, t: Times) -> Scales:
        """Scale of the signal."""
        ...

    def sigma_at(self, t: Times) -> Scales:
        """Standard deviation of the noise."""
        ...

    def drift_at(self, t: Times) -> Scales:
        """f = d log alpha / dt."""
        ...

    def diffusion_at(self, t: Times) -> Scales:
        """g, with g^2 = d sigma^2 / dt - 2 f sigma^2."""
        ...

    def time_at(self, u: Times) -> Scales:
        """The time that a uniform `u` in [0, 1) stands for in training."""
        ...

    def time_of(self, noise_to_signal: Times) -> Scales:
        """The time at which sigma / alpha is a given ratio; between the ends of the process."""
        ...

    def network_time(self, t: Times) -> Scales:
        """What a network is told of t: of the size of 0 to 1000, as sinusoids resolve."""
        ...


class Prediction(NamedTuple):
    """What a denoiser says of a noisy x: both parts of `x = alpha * x0 + sigma * eps`."""

    x0: Float[Array, "b ..."]
    eps: Float[Array, "b ..."]
    variance: Float[Array, "b ..."] | None = None
    """Where the network predicts it: the share (about 0 to 1) of log beta, the rest being log
    beta_tilde, in the log-variance of the step (Nichol & Dhariwal 2021, eq. 15)."""


class Level(NamedTuple):
    """A noise level, or a sequence of them along one leading axis.

    `timestep` is the process's own time: 0..T-1 in a discrete schedule, where fractions lie
    between its levels; what a network is told of it is `Process.network_time`. `final` marks the
    level that sampling ends on: nothing is evaluated there, and no noise is added on the way to it.
    Its `timestep` is 0 for a clean example, else the process's `t_min`.
    """

    timestep: Float32[Array, "*s"]
    alpha: Float[Array, "*s"]
    sigma: Float[Array, "*s"]
    final: Bool[Array, "*s"]


Denoise = Callable[[Float[Array, "b ..."], Level], Prediction]
"""`denoise(x, level)`: noisy examples, all at one level, to the prediction."""


class Carry(Protocol):
    """What every solver's carry has, among fields of its own."""

    @property
    def x(self) -> Float[Array, "b ..."]:
        """The examples at the level reached."""
        ...

    @property
    def x0(self) -> Float[Array, "b ..."]:
        """The latest prediction of the clean examples."""
        ...


@runtime_checkable
class Solver(Protocol):
    """A sampler as a state machine: pure functions over a carry that `lax.scan` can hold.

    A step calls `denoise` once. What needs more evaluations visits a level twice, or levels
    between those of the list (`inner_ratios`).
    """

    @property
    def order(self) -> int | None:
        """The error on the probability flow falls with the steps to this power, for eta 0, and for
        a solver with memory once it has its first values.

        None for those that always draw noise, whose limit is a distribution.
        """
        ...

    @property
    def stochastic(self) -> bool:
        """Whether `step` wants noise. Static: it decides what is compiled."""
        ...

    def visits(self, steps: int) -> Int[np.ndarray, "e"]:
        """The indices, 0 to `steps`, of the levels to go through; a repeated one is a correction.

        `denoise` is called at each but the last, which is `steps`.
        """
        ...

    def evaluations(self, steps: int) -> int:
        """How often a drawing of `steps` steps, the last to a clean example, calls `denoise`."""
        ...

    def inner_ratios(
        self, ratio: Float64[np.ndarray, "s"], next_ratio: Float64[np.ndarray, "s"]
    ) -> Float64[np.ndarray, "k s"]:
        """sigma / alpha of the k levels inside steps from `ratio` to `next_ratio`.

        On the host; all ratios are finite and above 0. `inner_levels` puts them into the list.
        """
        ...

    def init(self, x: Float[Array, "b ..."]) -> Any:
        """The `Carry` before the first step."""
        ...

    def step(
        self,
        carry: Any,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float[Array, "b ..."] | None,
    ) -> Any:
        """The carry at `next_level`, from the one at `level`."""
        ...
