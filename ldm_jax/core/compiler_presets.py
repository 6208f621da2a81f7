"""Options of XLA's compilers under names that say what they are for, on each platform."""

from collections.abc import Sequence

from ldm_jax.core.names import CompilerPreset

PRESETS: dict[CompilerPreset, dict[str, dict[str, bool]]] = {
    # Sums in a fixed order: scatters over sorted places, and no kernels with atomic additions.
    # CPUs and TPUs have no others.
    "deterministic": {"gpu": {"xla_gpu_exclude_nondeterministic_ops": True}},
    # What devices send each other travels while they compute.
    "overlap": {
        "gpu": {"xla_gpu_enable_latency_hiding_scheduler": True},
        "tpu": {
            "xla_tpu_enable_async_collective_fusion": True,
            "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
            "xla_tpu_enable_async_collective_fusion_multiple_steps": True,
            "xla_tpu_overlap_compute_collective_tc": True,
            "xla_enable_async_all_gather": True,
        },
    },
}
"""The options of each preset by platform; what is not here is left as the compiler has it."""


def compiler_options(presets: Sequence[CompilerPreset], platform: str) -> dict[str, bool]:
    """What the compiler of `platform` (`cpu`, `gpu`, `tpu`) is told for all of `presets`."""
    options: dict[str, bool] = {}
    for preset in presets:
        options |= PRESETS[preset].get(platform, {})
    return options
