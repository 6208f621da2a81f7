"""Settings as earlier versions wrote them, turned into today's."""

from typing import Any

_OF_DISCRETE = ("num_timesteps", "schedule", "beta_start", "beta_end")


def upgraded(value: dict[str, Any]) -> dict[str, Any]:
    """One object of a config's JSON; what is of today comes back as it is.

    `Diffusion` once had the fields of its only process itself.
    """
    flat = {name: value[name] for name in _OF_DISCRETE if name in value}
    if value.get("type") != "Diffusion" or not flat or "process" in value:
        return value
    rest = {name: field for name, field in value.items() if name not in flat}
    return rest | {"process": {"type": "Discrete"} | flat}
