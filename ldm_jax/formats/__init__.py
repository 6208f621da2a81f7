"""Containers of other people's models, read strictly and without running anything in them."""
