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
    """Peak learning rate; 1e-4 is usual to train, 1e-5 to fine-tune a U-Net."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after warm-up: constant, or decaying to 0 at loop.steps."""
    warmup_steps: CountOrNone = 0
    """Steps over which the learning rate rises from 0."""
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Annotated[float, Within(1e-30, 1.0)] = 1e-8
    weight_decay: Annotated[float, Within(0.0, 1000.0)] = 0.0
    """AdamW's weight decay; 0.01 is usual."""
    clip_norm: Positive | None = 1.0
    """Clip gradients to this norm; None: no clipping."""
    accumulation: Annotated[int, Within(1, 2**20)] = 1
    """Gradient accumulation: split each batch into this many micro-batches, to save memory. The
    effective batch size stays data.batch_size."""
    moment_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of AdamW's first moment. bfloat16 saves two bytes of each parameter; the second moment stays
    float32, in whose small steps bfloat16 would stand still."""
    ema_decay: Decay | None = 0.9999
    """Decay of the EMA (moving average) of the weights; it is lower in the first steps. None: no
    EMA. 0.9999 suits long runs, 0.99 to 0.999 runs of a few thousand steps."""


@settings
class Mesh:
    """Arrangement of the devices. At most one of the sizes is -1, for all remaining devices."""

    data: Annotated[int, Within(-1, 2**20)] = -1
    """Data parallel: the batch is split over these devices."""
    fsdp: Annotated[int, Within(-1, 2**20)] = 1
    """Fully sharded: the batch, parameters, trained and frozen, and optimiser state are split over
    these devices."""
    tensor: Annotated[int, Within(-1, 2**20)] = 1
    """Tensor parallel: only parameters and optimiser state are split over these devices."""

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
    """Length of a run, checkpoints, validation, samples and precision."""

    steps: Count = 1000
    """Optimiser steps of the whole run, including those before a resume."""
    max_hours: Annotated[float, Within(0.0, 1e6, above=True)] | None = None
    """Stop after so many hours since the start of the process, saved, as after SIGTERM; the same
    command goes on. None: no limit."""
    seed: Seed = 0
    log_every: Count = 20
    """Steps between lines of the log."""
    norm_depth: Annotated[int, Within(0, 16)] = 0
    """Levels of the parameters' names down to which the norms of gradients and updates are also
    logged part by part: 1: networks, such as unet; 2: their parts, such as unet/up_blocks; 3:
    unet/up_blocks/0, …; 0: those of all parameters alone."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    keep: Count = 2
    """Newest checkpoints to keep, besides the best one."""
    validate_every: Count = 500
    """Steps between validations."""
    validation_batches: Count = 8
    """Batches in each validation."""
    sample_every: CountOrNone = 1000
    """Steps between grids of reconstructions or samples; 0: none."""
    sample_guidance: Annotated[float, Within(0.0, 1000.0)] = 3.0
    """Classifier-free guidance (CFG) scale of these samples; 1: no guidance."""
    prompts: tuple[str, ...] = ()
    """Prompts to sample during training, besides captions of the data."""
    classes: tuple[str, ...] = ()
    """Classes to sample during training, by name or number, besides those of the data."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the computation; parameters stay float32. bfloat16 is mixed precision: faster
    and less memory on GPUs and TPUs."""
    remat: bool = False
    """Gradient checkpointing: recompute activations in the backward pass. Saves memory, costs
    time."""
    deterministic: bool = False
    """The same bits from the same training step on GPUs too, which add in no fixed order where that
    is faster. CPUs and TPUs always do."""
