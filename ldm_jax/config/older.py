"""Settings as earlier versions wrote them, turned into today's."""

from typing import Any

_OF_DISCRETE = ("num_timesteps", "schedule", "beta_start", "beta_end")
_OF_OBJECTIVE = ("min_snr_gamma", "map_weight")


def upgraded(value: dict[str, Any]) -> dict[str, Any]:
    """One object of a config's JSON; what is of today comes back as it is.

    `Diffusion` once had the fields of its only process itself, and those of the objective.
    """
    match value.get("type"):
        case "DiffusionRun":
            return _with_objective(value)
        case "Diffusion":
            return _with_process(_without(value, _OF_OBJECTIVE))
    return value


def _with_process(diffusion: dict[str, Any]) -> dict[str, Any]:
    flat = {name: diffusion[name] for name in _OF_DISCRETE if name in diffusion}
    if not flat or "process" in diffusion:
        return diffusion
    return _without(diffusion, _OF_DISCRETE) | {"process": {"type": "Discrete"} | flat}


def _with_objective(run: dict[str, Any]) -> dict[str, Any]:
    diffusion = run.get("diffusion")
    if "objective" in run or not isinstance(diffusion, dict):
        return run
    objective = {"type": "Objective", "map_weight": diffusion.get("map_weight", 0.0)}
    if diffusion.get("min_snr_gamma") is not None:
        objective |= {"weighting": "min_snr", "min_snr_gamma": diffusion["min_snr_gamma"]}
    return run | {"objective": objective}


def _without(value: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: field for name, field in value.items() if name not in names}
