"""The mathematics of diffusion: schedules, parameterizations, losses. No networks, no settings."""
