"""Linen modules, architecture only: autoencoder, U-Net, text encoders and conditioners."""
