"""The corpus' files of ControlNets, for a small model of Stable Diffusion's kind."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import convert_models as small
import jax
import ml_dtypes
import numpy as np
from corpus import Case, Make, content, safetensors, torch_file, unsorted_safetensors

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model, state_dicts
from ldm_jax.convert.compvis import keys
from ldm_jax.convert.controlnets.control_files import ImportedControl, read_control
from ldm_jax.convert.controlnets.control_names import PREFIX, control_places
from ldm_jax.convert.controlnets.control_writer import write_control
from ldm_jax.core import tree

# Of Stable Diffusion's factor between pixels and latents.
STAGE = replace(small.AUTOENCODER, block_out_channels=(32,) * 4)
MODEL = replace(small.MODELS["sd1"], autoencoder=STAGE, image_size=64)
BRANCH = cfg.control_of(MODEL.unet, STAGE)
F = np.float32


def random(shapes: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(F), shapes)


UNET = random(imported_model.unet_shapes(MODEL.unet), seed=1)
CONTROL = ImportedControl(BRANCH, random(imported_model.control_shapes(BRANCH)), "edges", {})
DIFFUSERS = state_dicts.to_torch(CONTROL.params)
ORIGINAL = keys.write(DIFFUSERS, control_places(DIFFUSERS, BRANCH))
"""The tensors of the original's file, without anything before their names."""
PREFIXED = {PREFIX + name: array for name, array in ORIGINAL.items()}
WEIGHTS = "diffusion_pytorch_model.safetensors"
FIRST, TO_K = "input_hint_block.0.weight", "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
ZERO = "zero_convs.1.0.weight"


def read(path: Path) -> dict[str, np.ndarray]:
    params = read_control(path, MODEL, UNET).params
    return {name: np.asarray(leaf, F) for name, leaf in tree.flatten(params).items()}


def answer(dtype: Any = F) -> dict[str, np.ndarray]:
    flat = tree.flatten(CONTROL.params)
    return {name: leaf.astype(dtype).astype(F) for name, leaf in flat.items()}


def clean() -> dict[str, np.ndarray]:
    return answer()


def added() -> dict[str, np.ndarray]:
    """What differences from the model's weights come to."""
    base = tree.flatten(UNET)
    return {name: base.get(name, F(0)) + leaf for name, leaf in answer().items()}


def put(key: str, array: Any) -> Make:
    return safetensors(ORIGINAL | {key: array})


def without(key: str) -> Make:
    return safetensors({name: array for name, array in ORIGINAL.items() if name != key})


def folder(
    tensors: Any = DIFFUSERS, name: str = WEIGHTS, text: str | None = None, **config: Any
) -> Make:
    """As diffusers writes it."""

    def make(folder: Path) -> Path:
        write_control(CONTROL, folder / "net", "diffusers")
        (folder / "net" / WEIGHTS).unlink()
        said = json.loads((folder / "net" / "config.json").read_text()) | config
        content(json.dumps(said) if text is None else text, "config.json")(folder / "net")
        if tensors is not None:
            safetensors(tensors, name)(folder / "net")
        return folder / "net"

    return make


def only(*names: str) -> Make:
    return safetensors(dict.fromkeys(names, np.zeros(1, F)))


NUMBERS = "has values that are no finite numbers; the file is damaged, or of a training that failed"
CASES = {
    "original": Case(safetensors(ORIGINAL)),
    "original with prefixes": Case(safetensors(PREFIXED)),
    "beside its model": Case(safetensors(PREFIXED | {
        "model.diffusion_model.out.2.bias": np.zeros(4, F), "betas": np.zeros(1000, F),
        "cond_stage_model.transformer.x": np.zeros(1, F),
    })),
    "diffusers'": Case(safetensors(DIFFUSERS)),
    "folder": Case(folder()),
    "folder of a variant": Case(folder(name=WEIGHTS.replace(".s", ".fp16.s"))),
    "weights in a folder": Case(safetensors(DIFFUSERS, WEIGHTS)),
    "reversed": Case(unsorted_safetensors(dict(reversed(ORIGINAL.items())))),
    "torch": Case(torch_file(ORIGINAL, "a.pth")),
    "torch before 1.6": Case(torch_file(ORIGINAL, "a.ckpt", old=True)),
    "torch's state_dict": Case(torch_file(PREFIXED, outer="state_dict")),
    "double": Case(safetensors({name: np.float64(array) for name, array in ORIGINAL.items()})),
    **{
        f"in {np.dtype(dtype)}": Case(
            safetensors({name: array.astype(dtype) for name, array in ORIGINAL.items()}),
            expected=lambda dtype=dtype: answer(dtype),
        )
        for dtype in (np.float16, ml_dtypes.bfloat16)
    },
    "difference": Case(put("difference", F(0)), expected=added),
    "difference with prefixes": Case(safetensors(PREFIXED | {"difference": F(0)}), expected=added),
    "Control-LoRA": Case(only("lora_controlnet", FIRST), "is a Control-LoRA"),
    "lllite": Case(only("lllite_unet_input_blocks_4.depth1.0.weight"), "ControlNet-LLLite for SDX"),
    "T2I adapter": Case(only("adapter.body.0.in_conv.weight"), "is a T2I adapter, another network"),
    "bare T2I adapter": Case(only("body.0.block1.weight"), "is a T2I adapter, another network"),
    "IP adapter": Case(only("image_proj.proj.weight"), "is an IP adapter, which adds attention"),
    "SDXL": Case(only("control_model.label_emb.0.0.weight"), "is a ControlNet for SDXL, which is"),
    "SDXL by its text": Case(put(TO_K, np.ones((32, 2048), F)), "a ControlNet for SDXL, whose att"),
    "SD 2": Case(put(TO_K, np.ones((32, 1024), F)), "for Stable Diffusion 2, whose .* width 1024"),
    "Flux": Case(only("controlnet_x_embedder.weight", "controlnet_blocks.0.weight"), "for Flux or"),
    "Flux of x-labs": Case(only(FIRST, "double_blocks.0.img_attn.qkv.weight"), "ControlNet for Fl"),
    "something": Case(only("something.weight"), f"is no ControlNet: it has neither {FIRST}"),
    "nothing": Case(safetensors({}), f"is no ControlNet: it has neither {FIRST}"),
    "prefixed otherwise": Case(
        safetensors({f"model.{name}": array for name, array in ORIGINAL.items()}), "is no Control"),
    "one missing": Case(without(ZERO), "1 missing: controlnet_down_blocks.1.weight"),
    "one renamed": Case(
        safetensors({name.replace("zero_convs.1.", "zero_convs.9."): array
                     for name, array in ORIGINAL.items()}),
        "2 missing: controlnet_down_blocks.1.*2 unexpected: 'zero_convs.9.0"),
    "no hint": Case(without(FIRST), f"is no ControlNet: it has neither {FIRST}"),
    "a hint alone": Case(safetensors({FIRST: ORIGINAL[FIRST]}), "has layers of a hint that no Con"),
    "a hint's number": Case(put(FIRST, F(1)), "does not fit its architecture"),
    "layers more of a hint": Case(put("input_hint_block.999.weight", ORIGINAL[FIRST]), "hint_bloc"),
    "narrower": Case(put("input_blocks.0.0.weight", np.ones((16, 4, 3, 3), F)), r"is \[16, 4, 3,"),
    "two spellings": Case(
        put("controlnet_down_blocks.1.weight", ORIGINAL[ZERO]), "twice, under the original's name"),
    "with prefixes and without": Case(safetensors(PREFIXED | {ZERO: ORIGINAL[ZERO]}), "1 unexpect"),
    "both forms": Case(safetensors(ORIGINAL | DIFFUSERS), r"unexpected: 'input_blocks"),
    "not a number": Case(put(FIRST, ORIGINAL[FIRST] * np.nan), NUMBERS),
    "not a number in a folder": Case(
        folder(DIFFUSERS | {"conv_in.bias": np.full(32, np.inf, F)}), NUMBERS),
    "whole numbers": Case(put(FIRST, np.int32(ORIGINAL[FIRST])), "of a dtype that weights do not"),
    "folder without weights": Case(folder(None), "has no weights: no file called diffusion_pyt"),
    "folder with a page": Case(folder(text="<html>"), "config.json: it is not JSON"),
    "folder of Flux": Case(folder(_class_name="FluxControlNetModel"), '"FluxControlNetModel"; it'),
    "folder of a U-Net": Case(folder(_class_name="UNet2DConditionModel"), "must be one of \"Contr"),
    "folder of SDXL": Case(folder(addition_embed_type="text_time"), "addition_embed_type is"),
    "folder of another width": Case(folder(cross_attention_dim=96), "text of width 96; this model"),
    "folder without levels": Case(folder(down_block_types=None), "down_block_types is None; it mu"),
    "folder of other colours": Case(
        folder(controlnet_conditioning_channel_order="xyz"), 'one of "rgb", "bgr"'),
}  # fmt: skip
