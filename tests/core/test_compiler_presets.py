"""Options of compilers by name."""

import typing

import jax

from ldm_jax.core.compiler_presets import PRESETS, compiler_options
from ldm_jax.core.names import CompilerPreset


def test_every_name_stands_for_options_that_are_joined():
    names = typing.get_args(CompilerPreset)
    assert PRESETS.keys() == set(names)
    for platform in ("gpu", "tpu"):
        joined = compiler_options(names, platform)
        assert joined and all(
            PRESETS[name].get(platform, {}).items() <= joined.items() for name in names
        )
        assert compiler_options((), platform) == {}


def test_what_a_platform_does_not_know_is_not_said_to_it():
    options = compiler_options(typing.get_args(CompilerPreset), "cpu")
    assert jax.jit(lambda x: x + 1).lower(1.0).compile(options)(1.0) == 2
