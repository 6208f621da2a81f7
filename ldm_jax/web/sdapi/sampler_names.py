"""Samplers and schedulers as the web UI spells them."""

from typing import Any

from ldm_jax.images import infotext
from ldm_jax.images.infotext import DISCRETE, SAMPLERS, SCHEDULES
from ldm_jax.web.refused import Refused

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
    named = {"Sampler": _known_name(sampler), "Steps": str(steps)}
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
    except infotext.InfotextError as error:  # such as "DPM++ 2M Karras" with another scheduler
        raise Refused(422, ("scheduler", str(error))) from error
    return {"sampler": found, "spacing": spacing}


def _known_name(sampler: str) -> str:
    """The web UI's spelling of its own name or of ours, in any case of letters; raises Refused
    (422)."""
    names = {name.lower(): name for name in SAMPLERS}
    names |= {ours: name for name, ours in SAMPLERS.items()}
    plain = sampler.strip().lower()
    of_old = plain.removesuffix(" karras")  # which older versions write behind the name
    if of_old not in names:
        raise Refused(422, ("sampler_name", f"sampler_name is {sampler!r:.80}; known are "
                            f"{', '.join(SAMPLERS)}"))  # fmt: skip
    return names[of_old] + (" Karras" if plain != of_old else "")


def name_of(sampler: str) -> str:
    """The web UI's name of our sampler, or ours where it has none."""
    return next((name for name, ours in SAMPLERS.items() if ours == sampler), sampler)


def _key(label: str) -> str:
    return label.strip().lower().replace(" ", "_")
