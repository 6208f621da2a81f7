"""Solvers over one `denoise(x, t)`, the scan that runs them, and guidance."""
