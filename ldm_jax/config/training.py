"""Optimiser, devices and the length of a run."""

from dataclasses import dataclass
from typing import Literal

from ldm_jax.config.checks import require, require_fraction, require_positive


@dataclass(frozen=True)
class Optim:
    """AdamW with a learning-rate schedule, clipping and gradient accumulation."""

    learning_rate: float = 1e-4
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    accumulation: int = 1
    """Micro-batches per optimiser step; the gradients are averaged under `lax.scan`."""
    ema_decay: float | None = 0.9999
    """Upper bound of the parameter average's decay; None keeps no average."""

    def __post_init__(self) -> None:
        require_positive(self, "learning_rate", "accumulation", "eps")
        require_fraction(self, "beta1", "beta2")
        require(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, "0 or more")


@dataclass(frozen=True)
class Mesh:
    """How devices are arranged; -1 takes those that are left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        require(
            all(n == -1 or n > 0 for n in sizes) and sizes.count(-1) <= 1,
            "mesh",
            sizes,
            "three positive sizes (data, fsdp, tensor), at most one of them -1",
        )


@dataclass(frozen=True)
class Loop:
    """How long a run lasts and what it leaves behind."""

    steps: int = 1000
    seed: int = 0
    log_every: int = 20
    checkpoint_every: int = 500
    keep: int = 2
    """Checkpoints kept beside the best one."""
    validate_every: int = 500
    validation_batches: int = 8
    sample_every: int = 1000
    """Steps between picture grids (reconstructions or samples)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the networks compute in; parameters stay float32."""
    remat: bool = False
    """Recompute each block in the backward pass instead of keeping its activations."""

    def __post_init__(self) -> None:
        require_positive(
            self, "steps", "log_every", "checkpoint_every", "keep", "validate_every",
            "validation_batches", "sample_every",
        )  # fmt: skip
