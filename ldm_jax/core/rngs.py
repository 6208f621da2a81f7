"""Stateless randomness: a draw is a function of seed, stream name, step and global example index.

Nothing is split and nothing is carried along, so a draw does not depend on how a batch is divided
among devices or processes, on what was drawn before, or on whether a run was interrupted:

    key = stream(seed, "diffusion/noise")
    keys = example_keys(at_step(key, step), index)      # index: global, one per example
    eps = normal(keys, (32, 32, 4))                     # draw i depends on keys[i] only
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer, Key, UInt32


def stream(seed: int | np.integer | Integer[Array, ""], name: str) -> Key[Array, ""]:
    """The key of a named stream: of `seed` (0 to 2^32 - 1, may be traced), `named` so.

    The hash is the same on every machine and in every process, unlike Python's `hash`.
    Raises ValueError for an empty name or for a seed that 32 unsigned bits do not hold.
    """
    if not name:
        raise ValueError("stream name is empty; give every use of randomness a name of its own")
    if isinstance(seed, int | np.integer):
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed is {seed}; it must lie in [0, 2**32 - 1]")
        seed = np.uint32(seed)
    return named(jax.random.key(jnp.asarray(seed).astype(jnp.uint32)), name)


def named(key: Key[Array, "*n"], name: str) -> Key[Array, "*n"]:
    """`key`, or each of an array of keys, folded with the crc32 of `name`."""
    return at_step(key, zlib.crc32(name.encode()))


def at_step(
    key: Key[Array, "*n"], step: int | np.integer | Integer[Array, ""] | Integer[np.ndarray, ""]
) -> Key[Array, "*n"]:
    """`key`, or each of an array of keys, folded with a step number (0 to 2^32 - 1)."""
    step = _uint32(step)
    fold = jax.random.fold_in
    for _ in range(key.ndim):
        fold = jax.vmap(fold, in_axes=(0, None))
    return fold(key, step)


def example_keys(
    key: Key[Array, ""], index: Integer[Array, "b"] | Integer[np.ndarray, "b"]
) -> Key[Array, "b"]:
    """One key per example, from its GLOBAL index: its place in the data set or the image number.

    Indices are taken modulo 2^32: int32 serves below 2^31, uint32 (or int64 from the host, which
    is reduced before it reaches the device) up to 2^32.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, _uint32(index))


def normal(
    keys: Key[Array, "b"], shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Float[Array, "b ..."]:
    """Standard normal draws of `shape` for each key, stacked: [b, *shape]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)


def uniform(
    keys: Key[Array, "b"],
    shape: tuple[int, ...] = (),
    dtype: DTypeLike = jnp.float32,
    *,
    low: float = 0.0,
    high: float = 1.0,
) -> Float[Array, "b ..."]:
    """Uniform draws in [low, high) of `shape` for each key, stacked: [b, *shape]."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, dtype, low, high))(keys)


def randint(
    keys: Key[Array, "b"],
    shape: tuple[int, ...],
    low: int | Integer[Array, ""],
    high: int | Integer[Array, ""],
    dtype: DTypeLike = jnp.int32,
) -> Integer[Array, "b ..."]:
    """Integers in [low, high) of `shape` for each key, stacked: [b, *shape]."""
    return jax.vmap(lambda key: jax.random.randint(key, shape, low, high, dtype))(keys)


def _uint32(
    number: int | np.integer | Integer[Array, "*n"] | Integer[np.ndarray, "*n"],
) -> UInt32[Array, "*n"]:
    """Integers modulo 2^32; on the host first, where 64 bits are exact, if they are there."""
    if isinstance(number, jax.Array):
        return number.astype(jnp.uint32)
    # In their own type first: 2^32 is no number of 32 bits. Arrays are cut by the conversion.
    number = number % 2**32 if isinstance(number, int) else number
    return jnp.asarray(np.asarray(number).astype(np.uint32))
