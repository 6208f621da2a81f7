"""Latent diffusion in JAX/Flax: both training stages, sampling, fine-tuning and evaluation."""

__version__ = "0.1.0"
