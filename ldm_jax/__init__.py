"""Latent diffusion in JAX/Flax: both training stages, sampling, evaluation, conversion."""

__version__ = "0.1.0"
