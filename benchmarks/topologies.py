"""Chips that programs can be compiled for without having them: TPU pods and CUDA GPUs."""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from ldm_jax.core import flops
from ldm_jax.core.compiler_options import compiler_options

LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
GPU = (
    "gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32 "
    "shared_memory_per_block: 49152 threads_per_core_limit: 2048 block_dim_limit_x: 2147483647 "
    "block_dim_limit_y: 65535 block_dim_limit_z: 65535 registers_per_core_limit: 65536 "
    "registers_per_block_limit: 65536 {} }} platform_name: 'CUDA' "
    "dnn_version_info {{ major: 9 minor: 28 patch: 1 }}"
)
GPUS = {
    "a100": GPU.format(
        "shared_memory_per_core: 167936 shared_memory_per_block_optin: 166912 core_count: 108 "
        "fpus_per_core: 64 memory_bandwidth: 2039000000000 l2_cache_size: 41943040 "
        "clock_rate_ghz: 1.41 device_memory_size: 84978434048 "
        "cuda_compute_capability { major: 8 minor: 0 }"
    ),
    "h100": GPU.format(
        "shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448 core_count: 132 "
        "fpus_per_core: 128 memory_bandwidth: 3352320000000 l2_cache_size: 52428800 "
        "clock_rate_ghz: 1.98 device_memory_size: 84978434048 "
        "cuda_compute_capability { major: 9 minor: 0 }"
    ),
}
"""What XLA's compiler must know of a GPU, as it would ask the driver."""
CAPABILITIES = {"a100": 8, "h100": 9}
"""Of CUDA, the major number."""

LINKS = {"v4": 300e9, "v5e": 200e9, "v5p": 600e9, "v6e": 400e9, "a100": 300e9, "h100": 450e9}
"""Bytes a second that a chip sends to others, as the makers state it: of TPUs over all links."""
NETWORK = {"v5e": 25e9 / 8, "v5p": 50e9 / 8}
"""The same of what goes to other slices: a chip's share of its machine's, as Google states it."""
PEAK_KINDS = {"v4": "TPU v4", "v5e": "TPU v5e", "v5p": "TPU v5p", "v6e": "TPU v6e"}


def link_share(name: str, sent: float, computed: float, between_slices: bool = False) -> float:
    """Time to send so many bytes, compared with the time to compute so many FLOPs, each at the
    chip's full speed; nan where that is not known."""
    kind = name.partition(":")[0]
    speed = NETWORK.get(kind, math.nan) if between_slices else LINKS[kind]
    return (sent / speed) / (computed / flops.peak(PEAK_KINDS.get(kind, kind.upper())))


def topology(name: str) -> list[Any]:
    """The chips of a pod slice such as `v5e:4x4`, of several such as `v5e:4x4x2slices`, or of one
    machine with GPUs such as `h100:8`.

    They are for compilation alone. TPUs need libtpu (the extra `pods`), GPUs the CUDA plugin and
    cuDNN (the extra `gpus`).
    """
    # libtpu would ask the cloud's metadata server, which only a TPU machine has, and would let
    # only one process of a machine in, as for the chips themselves.
    for variable, value in LIBTPU.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    kind, _, count = name.partition(":")
    if kind in GPUS:
        described = topologies.get_topology_desc(
            platform="cuda", topology_name=name, topology=f"1x1x{count}", target_config=GPUS[kind]
        )
    else:
        slices = re.fullmatch(r"(.+)x(\d+)slices", name)
        one, several = slices.groups() if slices else (name, 1)
        # The two cores of a v4 are one device only where this asks for it.
        cores = {"chip_config_name": "megacore"} if kind == "v4" else {}
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=one, num_slices=int(several), **cores
        )
    return list(described.devices)


@contextmanager
def attention_of(kind: str) -> Iterator[None]:
    """Attention is chosen by the GPUs of the machine: here as if they were of this kind."""
    from jax._src.cudnn import fused_attention_stablehlo as kernels

    from ldm_jax.models import attention

    major = CAPABILITIES[kind]
    with (
        patch.object(kernels, "check_compute_capability", lambda least: major >= float(least)),
        patch.object(attention, "widest_cudnn_head", lambda: attention.CUDNN_WIDTHS[major]),
    ):
        yield


def options_for(device: Any, deterministic: bool = False) -> dict[str, Any]:
    """What a run tells the compiler, and what one without the chip must be told: not to try out
    which kernels are fast."""
    platform = "tpu" if device.platform == "tpu" else "gpu"
    tried = {"xla_gpu_autotune_level": 0} if platform == "gpu" else {}
    return tried | compiler_options(deterministic, platform)
