"""What other programs' forms cannot hold of a model, asked before there is one."""

from ldm_jax import config as cfg
from ldm_jax.convert.compvis import writer
from ldm_jax.convert.diffusers import pipeline_folders


def export_obstacles(config: cfg.Model | cfg.Autoencoder) -> dict[str, list[str]]:
    """For each form that models are exported to, by the name of its program, why a model of
    `config` cannot be: what its writer refuses it for. [] where it can."""
    return {
        "diffusers": pipeline_folders.obstacles(config),
        "CompVis' single files": writer.obstacles(config),
    }


def obstacles_told(config: cfg.Model | cfg.Autoencoder) -> str | None:
    """`export_obstacles` as a sentence, the first two of each form; None where there are none."""
    found = {form: _first(why) for form, why in export_obstacles(config).items() if why}
    if not found:
        return None
    what = "first stage" if isinstance(config, cfg.Autoencoder) else "model"
    listed = ". Nor to ".join(f"{form}: {why}" for form, why in found.items())
    return f"this {what} can be used here but not be exported to {listed}"


def _first(why: list[str]) -> str:
    more = f" (and {len(why) - 2} more reasons)" if len(why) > 2 else ""
    return "; ".join(why[:2]) + more
