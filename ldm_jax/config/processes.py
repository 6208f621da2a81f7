"""How noise is added: in discrete steps, or in continuous time.

What each is, with its formulas, is in `ldm_jax.diffusion.schedules` and `.processes`, whose names
and fields these are, and in docs/processes.md.
"""

from dataclasses import dataclass
from typing import Literal

from ldm_jax.config.checks import require, require_positive


@dataclass(frozen=True)
class Discrete:
    """T steps of given betas, as DDPM and Stable Diffusion have them."""

    num_timesteps: int = 1000
    schedule: Literal[
        "linear", "scaled_linear", "sqrt", "cosine", "sigmoid", "sigmoid_betas", "given"
    ] = "scaled_linear"
    """"given" has its numbers in `betas`; sqrt, cosine and sigmoid have no ends."""
    beta_start: float = 0.00085
    beta_end: float = 0.012
    betas: tuple[float, ...] = ()
    """With schedule "given": the variance that each of the timesteps adds."""
    shift: float = 1.0
    """What every ratio of noise to signal is multiplied by: the side of the pictures over that of
    the pictures that the schedule was made for (Hoogeboom 2023)."""
    zero_terminal_snr: bool = False
    """Whether the schedule is rescaled to end in noise alone (Lin 2024), after any shift."""

    def __post_init__(self) -> None:
        require_positive(self, "num_timesteps", "shift")
        ends = f"in (0, beta_end = {self.beta_end}]"
        require(0 < self.beta_end < 1, "Discrete.beta_end", self.beta_end, "between 0 and 1")
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


@dataclass(frozen=True)
class VP(_Continuous):
    """Variance preserving SDE (Song 2021)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    """Where training and sampling end; score_sde trains to 1e-5 and samples to 1e-3."""
    t_max: float = 1.0

    def __post_init__(self) -> None:
        _check_betas(self)
        _check_times(self)


@dataclass(frozen=True)
class SubVP(_Continuous):
    """Sub-variance preserving SDE (Song 2021)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        _check_betas(self)
        _check_times(self)


@dataclass(frozen=True)
class VE(_Continuous):
    """Variance exploding SDE (Song 2021)."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    """About the largest distance between two examples of the data."""
    t_min: float = 1e-5
    t_max: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.sigma_min < self.sigma_max, "VE.sigma_min", self.sigma_min,
                f"in (0, sigma_max = {self.sigma_max})")  # fmt: skip
        _check_times(self)


@dataclass(frozen=True)
class EDM(_Continuous):
    """Time is the standard deviation of the noise (Karras 2022)."""

    t_min: float = 0.002
    t_max: float = 80.0
    p_mean: float = -1.2
    """Mean of log(sigma) in training."""
    p_std: float = 1.2

    def __post_init__(self) -> None:
        require(0 < self.t_min < self.t_max, "EDM.t_min", self.t_min,
                f"in (0, t_max = {self.t_max})")  # fmt: skip
        require_positive(self, "p_std")


@dataclass(frozen=True)
class RectifiedFlow:
    """A straight line from data to noise (Liu 2022)."""

    shift: float = 1.0
    """Over 1 moves evenly spaced times towards noise, for large pictures (Esser 2024)."""
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "shift")
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
    require(0 < process.t_max <= 1, f"{name}.t_max", process.t_max, "in (0, 1]")
    require(0 < process.t_min < process.t_max, f"{name}.t_min", process.t_min,
            f"in (0, t_max = {process.t_max})")  # fmt: skip
