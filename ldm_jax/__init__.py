"""Latent diffusion in JAX/Flax: both training stages, sampling, fine-tuning and evaluation."""
