"""What XLA's compilers are told beyond their defaults.

They already send values between devices while these compute, on TPUs and GPUs; options that ask for
it change nothing in what they compile here.
"""

DETERMINISTIC: dict[str, dict[str, bool]] = {"gpu": {"xla_gpu_exclude_nondeterministic_ops": True}}
"""By platform, what makes a program give the same bits whenever it runs: scatters to sorted places
and no kernels that add in the order in which they happen to come. CPUs and TPUs have no others."""


def compiler_options(deterministic: bool, platform: str) -> dict[str, bool]:
    """Options for the compiler of `platform`: `cpu`, `gpu` or `tpu`."""
    return DETERMINISTIC.get(platform, {}) if deterministic else {}
