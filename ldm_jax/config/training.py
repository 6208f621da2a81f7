"""Optimiser, devices and the length of a run."""

from typing import Annotated, Literal

from ldm_jax.config.checks import (
    Count,
    CountOrNone,
    Decay,
    LearningRate,
    Positive,
    Seed,
    Within,
    require,
    settings,
)


@settings
class Optim:
    """AdamW with a learning-rate schedule, clipping and gradient accumulation."""

    learning_rate: LearningRate = 1e-4
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: CountOrNone = 0
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Annotated[float, Within(1e-30, 1.0)] = 1e-8
    weight_decay: Annotated[float, Within(0.0, 1000.0)] = 0.0
    clip_norm: Positive | None = 1.0
    accumulation: Annotated[int, Within(1, 2**20)] = 1
    """Micro-batches per optimiser step; the gradients are averaged under `lax.scan`."""
    ema_decay: Decay | None = 0.9999
    """Upper bound of the parameter average's decay; None keeps no average."""


@settings
class Mesh:
    """How devices are arranged; -1 takes those that are left."""

    data: Annotated[int, Within(-1, 2**20)] = -1
    fsdp: Annotated[int, Within(-1, 2**20)] = 1
    tensor: Annotated[int, Within(-1, 2**20)] = 1

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        require(
            all(n == -1 or n > 0 for n in sizes) and sizes.count(-1) <= 1,
            "mesh",
            sizes,
            "three positive sizes (data, fsdp, tensor), at most one of them -1",
        )


@settings
class Loop:
    """How long a run lasts and what it leaves behind."""

    steps: Count = 1000
    seed: Seed = 0
    log_every: Count = 20
    checkpoint_every: Count = 500
    keep: Count = 2
    """Checkpoints kept beside the best one."""
    validate_every: Count = 500
    validation_batches: Count = 8
    sample_every: CountOrNone = 1000
    """Steps between pictures of what is learnt (reconstructions or samples); 0 draws none."""
    sample_guidance: Annotated[float, Within(0.0, 1000.0)] = 3.0
    """Scale of classifier-free guidance in these samples; 1 is none."""
    prompts: tuple[str, ...] = ()
    """Captions that are drawn beside those of the data."""
    classes: tuple[str, ...] = ()
    """Classes, by name or number, that are drawn beside those of the data."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the networks compute in; parameters stay float32."""
    remat: bool = False
    """Recompute each block in the backward pass instead of keeping its activations."""
