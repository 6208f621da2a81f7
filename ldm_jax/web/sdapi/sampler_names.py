"""Samplers and schedulers as the web UI spells them."""

from typing import Any

from ldm_jax.images import infotext
from ldm_jax.images.infotext import DISCRETE, SAMPLERS, SCHEDULES
from ldm_jax.web.refusals import Refused

USUAL = "Euler"
"""The sampler of a request that names none."""
ALIASES = {"Normal": "Uniform"}
"""Other names for a schedule: both are evenly spaced timesteps from last to first."""
_WITHOUT_EFFECT = ("Automatic", "Uniform")
"""Schedules that a sampler over timesteps takes for none."""


def samplers() -> list[dict[str, Any]]:
    """GET samplers"""
    return [{"name": name, "aliases": [ours], "options": {}} for name, ours in SAMPLERS.items()]


def schedulers() -> list[dict[str, Any]]:
    """GET schedulers"""
    return [
        {"name": _key(label), "label": label, "aliases": None, "default_rho": -1.0,
         "need_inner_model": False}
        for label in ("Automatic", *SCHEDULES, *ALIASES)
    ]  # fmt: skip


def settings_of(sampler: str, scheduler: str, steps: int) -> dict[str, Any]:
    """Our sampler and spacing for the web UI's; raises Refused (422), naming the field."""
    ours = {ours: name for name, ours in SAMPLERS.items()}
    named = {"Sampler": ours.get(sampler, sampler), "Steps": str(steps)}
    labels = {_key(label): label for label in ("Automatic", *SCHEDULES, *ALIASES)}
    label = labels.get(_key(scheduler) or "automatic")
    if label is None:
        raise Refused(422, ("scheduler", f"scheduler is {scheduler!r:.80}; known are "
                            f"{', '.join(labels.values())}"))  # fmt: skip
    label = ALIASES.get(label, label)
    if SAMPLERS.get(named["Sampler"]) in DISCRETE and label in _WITHOUT_EFFECT:
        label = "Automatic"
    named |= {"Schedule type": label}
    try:
        found, spacing = infotext.read_sampler(named)
    except infotext.InfotextError as error:
        raise Refused(422, ("sampler_name", str(error))) from error
    return {"sampler": found, "spacing": spacing}


def name_of(sampler: str) -> str:
    """The web UI's name of our sampler, or ours where it has none."""
    return next((name for name, ours in SAMPLERS.items() if ours == sampler), sampler)


def _key(label: str) -> str:
    return label.strip().lower().replace(" ", "_")
