"""What compilers are told."""

import jax

from ldm_jax.core.compiler_options import compiler_options


def test_a_platform_is_told_what_it_needs_for_the_same_bits_alone():
    assert compiler_options(True, "gpu") == {"xla_gpu_exclude_nondeterministic_ops": True}
    assert compiler_options(False, "gpu") == compiler_options(True, "tpu") == {}
    options = compiler_options(True, "cpu")
    assert jax.jit(lambda x: x + 1).lower(1.0).compile(options)(1.0) == 2
