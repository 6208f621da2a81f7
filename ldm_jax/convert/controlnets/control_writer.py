"""ControlNets written in the forms of other programs: diffusers' folder and the original's file."""

from pathlib import Path
from typing import Any, Literal

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model, state_dicts
from ldm_jax.convert.compvis import keys
from ldm_jax.convert.controlnets.control_files import CLASS, ImportedControl
from ldm_jax.convert.controlnets.control_names import PREFIX, control_places
from ldm_jax.convert.diffusers import architectures
from ldm_jax.convert.diffusers.pipeline_folders import CONFIG, VERSION
from ldm_jax.convert.diffusers.text_encoders import as_text
from ldm_jax.convert.imported_model import ConvertError, Dtype
from ldm_jax.convert.model_folders import check_file, new_folder
from ldm_jax.convert.obstacles import differing
from ldm_jax.core.stores import as_path
from ldm_jax.formats.safetensors_file import write_safetensors

Form = Literal["diffusers", "original"]
WEIGHTS = "diffusion_pytorch_model.safetensors"
_OF_UNET = (
    "up_block_types", "out_channels", "sample_size", "dropout", "center_input_sample",
)  # fmt: skip
"""Fields of a U-Net's config that a ControlNet's does not have."""


def write_control(
    control: ImportedControl, path: str | Path, form: Form, *, dtype: Dtype = None,
    overwrite: bool = False,
) -> None:  # fmt: skip
    """Writes it to `path`: a new folder, or the original's file, its names after `PREFIX`.

    Raises:
        ConvertError: the target is there, or the form cannot hold this ControlNet; says why.
        NotWritten: it cannot be written.
    """
    path, branch = as_path(path), control.config
    others = architectures.OTHERS if form == "diffusers" else "the original's files"
    found = _obstacles(branch, others, form)
    if found:
        raise ConvertError("; ".join(found))
    tensors = imported_model.cast(state_dicts.to_torch(control.params), dtype)
    if form == "diffusers":
        with new_folder(path, overwrite) as folder:
            (folder / CONFIG).write_bytes(as_text(describe(branch)))
            write_safetensors(folder / WEIGHTS, tensors, {"format": "pt"})
        return
    check_file(path, overwrite)
    if branch.global_pool != ("shuffle" in path.stem.lower()):
        raise ConvertError(
            f"{path}: readers of this form tell by a name with shuffle in it that the mean over "
            f"the picture is added, which is {branch.global_pool} here; choose another name"
        )
    there = keys.write(tensors, control_places(tensors, branch))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, {PREFIX + n: t for n, t in there.items()}, {"format": "pt"})


def describe(branch: cfg.ControlBranch) -> dict[str, Any]:
    """The `config.json` of a ControlNet, as diffusers has it."""
    written = architectures.write_unet(branch.unet, 1)
    written = {name: value for name, value in written.items() if name not in _OF_UNET}
    return written | {
        "_class_name": CLASS, "_diffusers_version": VERSION,
        "conditioning_channels": branch.hint_channels,
        "conditioning_embedding_out_channels": list(branch.hint_widths),
        "controlnet_conditioning_channel_order": "rgb",
        "global_pool_conditions": branch.global_pool,
    }  # fmt: skip


def _obstacles(branch: cfg.ControlBranch, others: str, form: Form) -> list[str]:
    unet = branch.unet
    if form == "diffusers":
        return [
            *architectures.unet_obstacles(unet),
            *differing(others, [("unet.attention_kind", unet.attention_kind, "transformer")]),
        ]
    usual = cfg.ControlBranch().hint_widths
    return differing(others, [
        ("unet.patch_size", unet.patch_size, 1), ("unet.norm_num_groups", unet.norm_num_groups, 32),
        ("unet.pooled_dim", unet.pooled_dim, None), ("hint_widths", branch.hint_widths, usual),
    ])  # fmt: skip
