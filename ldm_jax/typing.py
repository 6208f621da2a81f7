"""The words that the rooms share: names of axes, and the contracts of denoisers and solvers.

Axis legend, for every annotation in the package:

    b   examples of a batch            s   noise levels, in the order a sampler visits them
    h w height and width (NHWC)        l   tokens of a text
    c   channels                       d   width of an embedding
    z   channels of a latent           t   a timestep: an index into the noise schedule

A noisy example is `x = alpha * x0 + sigma * eps`, whatever the schedule: variance preserving
(alpha^2 + sigma^2 = 1) or exploding (alpha = 1).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int

PredictionKind = Literal["eps", "x0", "v"]
"""What a network's output stands for."""


class Prediction(NamedTuple):
    """What a denoiser says of a noisy x: both parts of `x = alpha * x0 + sigma * eps`."""

    x0: Float[Array, "b ..."]
    eps: Float[Array, "b ..."]


Denoise = Callable[[Float[Array, "b ..."], Int[Array, "b"]], Prediction]
"""`denoise(x, t)`: noisy examples and the timestep of each, to the prediction."""


class Level(NamedTuple):
    """A noise level, or a sequence of them along one leading axis.

    `timestep` is always an index that a network of this schedule knows. `final` marks the level
    that sampling ends on: nothing is evaluated there and no noise is added on the way to it.
    """

    timestep: Int[Array, "*s"]
    alpha: Float[Array, "*s"]
    sigma: Float[Array, "*s"]
    final: Bool[Array, "*s"]


@runtime_checkable
class Solver(Protocol):
    """A sampler as a state machine: pure functions over a carry that `lax.scan` can hold."""

    @property
    def stochastic(self) -> bool:
        """Whether `step` wants noise. Static: it decides what is compiled."""
        ...

    def init(self, x: Float[Array, "b ..."]) -> Any:
        """The carry before the first step."""
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

    def x(self, carry: Any) -> Float[Array, "b ..."]:
        """The examples at the level that the carry has reached."""
        ...

    def x0(self, carry: Any) -> Float[Array, "b ..."]:
        """The latest prediction of the clean examples."""
        ...
