"""CLIP and DINOv2 as transformers keeps them."""
