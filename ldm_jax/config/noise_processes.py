"""How noise is added: in discrete steps, or in continuous time.

What each is, with its formulas, is in `ldm_jax.diffusion.schedules` and `.processes`, whose names
and fields these are, and in docs/processes.md.
"""

from typing import Annotated, Literal

from ldm_jax.config.checks import LogRatio, Within, require, settings
from ldm_jax.core.names import ScheduleKind

Time = Annotated[float, Within(0.0, 1.0, above=True)]
Rate = Annotated[float, Within(0.0, 1000.0, above=True)]
"""Of noise, in time."""
Ratio = Annotated[float, Within(0.0, 1e6, above=True)]
"""Of noise to signal."""
Variance = Annotated[float, Within(0.0, 1.0, above=True)]
"""That a timestep adds; the last one's may be all."""


@settings
class Discrete:
    """Discrete timesteps with a beta schedule, as in DDPM and Stable Diffusion."""

    num_timesteps: Annotated[int, Within(1, 100_000)] = 1000
    schedule: Literal[ScheduleKind, "given"] = "scaled_linear"
    """Beta schedule. Stable Diffusion uses `scaled_linear`, DDPM `linear`. `given` uses the numbers
    in `betas`. sqrt, cosine and sigmoid ignore beta_start and beta_end."""
    beta_start: Variance = 0.00085
    beta_end: Annotated[float, Within(0.0, 1.0, above=True, below=True)] = 0.012
    betas: tuple[Variance, ...] = ()
    """With schedule `given`: beta of each timestep."""
    shift: Ratio = 1.0
    """Factor on sigma / alpha at all times, for larger images: their side divided by the side that
    the schedule was made for (Hoogeboom 2023)."""
    zero_terminal_snr: bool = False
    """Rescale the schedule, after any shift, to end in pure noise (Lin 2024)."""

    def __post_init__(self) -> None:
        ends = f"in (0, beta_end = {self.beta_end}]"
        require(0 < self.beta_start <= self.beta_end, "Discrete.beta_start", self.beta_start, ends)
        want = self.num_timesteps if self.schedule == "given" else 0
        require(len(self.betas) == want, "Discrete.betas", self.betas[:3],
                f"a tuple of {want} numbers, as schedule is {self.schedule!r} and num_timesteps "
                f"{self.num_timesteps}; it has {len(self.betas)}")  # fmt: skip
        for i, beta in enumerate(self.betas):
            last = i == len(self.betas) - 1 > 0
            require(0 < beta < 1 or (last and beta == 1), f"Discrete.betas[{i}]", beta,
                    "between 0 and 1")  # fmt: skip
        require(not self.zero_terminal_snr or self.num_timesteps > 1, "Discrete.num_timesteps",
                self.num_timesteps, "2 or more for zero_terminal_snr")  # fmt: skip

    @property
    def ends_in_noise(self) -> bool:
        """Whether nothing of the data is left at the last timestep."""
        return self.zero_terminal_snr or self.betas[-1:] == (1,)


class _Continuous:
    """A process in continuous time, unless it says otherwise."""

    @property
    def ends_in_noise(self) -> bool:
        """Whether nothing of the data is left at t_max: some always is."""
        return False


@settings
class VP(_Continuous):
    """Variance preserving SDE (Song 2021)."""

    beta_min: Rate = 0.1
    beta_max: Rate = 20.0
    t_min: Time = 1e-3
    """Smallest time in training and sampling. (score_sde trains down to 1e-5, samples to 1e-3.)"""
    t_max: Time = 1.0

    def __post_init__(self) -> None:
        _check_betas(self)
        _check_times(self)


@settings
class SubVP(_Continuous):
    """Sub-variance preserving SDE (Song 2021)."""

    beta_min: Rate = 0.1
    beta_max: Rate = 20.0
    t_min: Time = 1e-3
    t_max: Time = 1.0

    def __post_init__(self) -> None:
        _check_betas(self)
        _check_times(self)


@settings
class VE(_Continuous):
    """Variance exploding SDE (Song 2021)."""

    sigma_min: Ratio = 0.01
    sigma_max: Ratio = 50.0
    """Largest noise; about the largest distance between two examples of the data."""
    t_min: Time = 1e-5
    t_max: Time = 1.0

    def __post_init__(self) -> None:
        require(0 < self.sigma_min < self.sigma_max, "VE.sigma_min", self.sigma_min,
                f"in (0, sigma_max = {self.sigma_max})")  # fmt: skip
        _check_times(self)


@settings
class EDM(_Continuous):
    """EDM (Karras 2022): time is the standard deviation of the noise."""

    t_min: Ratio = 0.002
    t_max: Ratio = 80.0
    p_mean: LogRatio = -1.2
    """Mean of log(sigma) in training."""
    p_std: Annotated[float, Within(1e-6, 50.0)] = 1.2
    """Standard deviation of log(sigma) in training."""

    def __post_init__(self) -> None:
        require(0 < self.t_min < self.t_max, "EDM.t_min", self.t_min,
                f"in (0, t_max = {self.t_max})")  # fmt: skip


@settings
class RectifiedFlow:
    """Rectified flow: a straight line from data to noise (Liu 2022)."""

    shift: Ratio = 1.0
    """Above 1: more training and sampling times at high noise, for large images (Esser 2024)."""
    t_min: Time = 1e-3
    t_max: Time = 1.0

    def __post_init__(self) -> None:
        _check_times(self)

    @property
    def ends_in_noise(self) -> bool:
        """Whether nothing of the data is left at t_max."""
        return self.t_max == 1


Process = Discrete | VP | SubVP | VE | EDM | RectifiedFlow


def _check_betas(process: VP | SubVP) -> None:
    require(0 < process.beta_min <= process.beta_max, f"{type(process).__name__}.beta_min",
            process.beta_min, f"in (0, beta_max = {process.beta_max}]")  # fmt: skip


def _check_times(process: VP | SubVP | VE | RectifiedFlow) -> None:
    name = type(process).__name__
    require(0 < process.t_min < process.t_max, f"{name}.t_min", process.t_min,
            f"in (0, t_max = {process.t_max})")  # fmt: skip
