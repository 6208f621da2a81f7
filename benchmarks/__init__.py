"""Measurements that can be repeated with one command each; RESULTS.md holds what they said."""

from ldm_jax.core.kept_memory import prepare_to_keep

prepare_to_keep()  # before JAX is imported; what measures training then keeps memory, as it does
