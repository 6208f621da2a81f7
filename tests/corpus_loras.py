"""The corpus' files of LoRA and its relatives, for the small model of `small_adapters`."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from corpus import Case, Make, content, safetensors, torch_file, unsorted_safetensors
from small_adapters import CONVOLUTION, KEY, OUT, QUERY, TEXT, loras, mixed, names, params

from ldm_jax.adapters.adapter import UNET, Adapter
from ldm_jax.adapters.loha import LoHa
from ldm_jax.adapters.merging import deltas
from ldm_jax.convert.adapters.adapter_files import METADATA, read_adapter
from ldm_jax.convert.adapters.kohya_form import kohya_form

F = np.float32
Tensors = dict[str, np.ndarray]
ATTENTION, TO_K = ("lora_unet_" + path.replace("/", "_") for path in (QUERY, KEY))
CONV, WORDS = "lora_unet_" + CONVOLUTION.replace("/", "_"), "lora_te_" + TEXT.replace("/", "_")
DOTTED = QUERY.replace("/", ".")


def read(path: Path) -> dict[str, np.ndarray]:
    """What it changes, by parameter."""
    return answer(read_adapter(path, names()))


def answer(adapter: Adapter) -> dict[str, np.ndarray]:
    found = {}
    for component, modules in adapter.components.items():
        for path, kinds in modules.items():
            own = params()[UNET] if component == UNET else params()["conditioners"][component]
            for level in path.split("/"):
                own = own[level]
            changes = deltas(kinds, own)
            found |= {f"{component}/{path}/{leaf}": np.asarray(a) for leaf, a in changes.items()}
    return found


@cache
def clean() -> dict[str, np.ndarray]:
    return answer(loras())


def kohya(adapter: Adapter | None = None) -> Tensors:
    return kohya_form(adapter or loras())[0]


def put(key: str, array: Any) -> Make:
    """The clean file with this tensor."""
    return safetensors(kohya() | {key: array})


def without(key: str) -> Make:
    return safetensors({name: array for name, array in kohya().items() if name != key})


def only(key: str) -> Make:
    """A file with nothing but a tensor of this name."""
    return safetensors({key: ones(1, 1)})


def factors(**arrays: Any) -> Make:
    """A file with these arrays of one module."""
    return safetensors({f"{ATTENTION}.{name}": array for name, array in arrays.items()})


def changed(**changes: Any) -> Tensors:
    """The clean file's; those of `down`, `up` or `alpha` changed."""
    ends = {"down": "lora_down.weight", "up": "lora_up.weight", "alpha": "alpha"}
    return {
        key: next((change(array) for n, change in changes.items() if key.endswith(ends[n])), array)
        for key, array in kohya().items()
    }


def respelled(*rules: tuple[str, str]) -> Tensors:
    found = {}
    for key, array in kohya().items():
        for pattern, new in rules:
            key = re.sub(pattern, new, key)
        found[key] = array
    return found


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, F)


def pixels(array: np.ndarray) -> np.ndarray:
    return array[..., None, None] if array.ndim == 2 else array


def peft(config: Any = None, default: str = "", weights: str = "adapter_model.safetensors") -> Make:
    """A folder of PEFT that says what the clean file does."""
    paths = {f"lora_unet_{path.replace('/', '_')}": path for path in (QUERY, KEY, OUT, CONVOLUTION)}
    dots = [("^" + name, "base_model.model." + path.replace("/", "."))
            for name, path in (paths | {WORDS: TEXT}).items()]  # fmt: skip
    found = respelled(
        *dots, (r"lora_down\.", f"lora_A{default}."), (r"lora_up\.", f"lora_B{default}.")
    )
    alphas = {key[17:-6]: float(array) for key, array in found.items() if key.endswith(".alpha")}
    usual = {"peft_type": "LORA", "r": 3, "lora_alpha": 3, "alpha_pattern": alphas}
    text = config if isinstance(config, str) else json.dumps(usual | (config or {}))
    tensors = {key: array for key, array in found.items() if not key.endswith(".alpha")}

    def make(folder: Path) -> Path:
        if weights:
            write = torch_file if weights.endswith(".bin") else safetensors
            write(tensors, weights)(folder)
        return content(text, "adapter_config.json")(folder).parent

    return make


def _in_folder(write: Callable[..., Make], name: str) -> Make:
    return lambda folder: write(kohya(), name)(folder).parent


def loha(*ends: int, **arrays: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    shapes = {"w1_a": (32, 2), "w1_b": (2, 32), "w2_a": (32, 2), "w2_b": (2, 32)}
    drawn = {f"hada_{n}": F(random.standard_normal(s)).reshape(*s, *ends)
             for n, s in shapes.items()}  # fmt: skip
    return {name: array for name, array in (drawn | arrays).items() if array is not None}


READ = {
    "clean": Case(safetensors(kohya())),
    "reversed": Case(unsorted_safetensors(dict(reversed(kohya().items())))),
    "double": Case(safetensors({key: np.float64(array) for key, array in kohya().items()})),
    "whole alphas": Case(
        safetensors(changed(alpha=lambda a: np.int64(2 * a), down=lambda a: a / 2))
    ),
    "alphas as vectors": Case(safetensors(changed(alpha=lambda a: a.reshape(1)))),
    "alpha under another spelling": Case(
        safetensors(respelled((f"^{ATTENTION}.alpha", f"unet.{DOTTED}.alpha")))
    ),
    "dense as convolutions": Case(
        safetensors({k: pixels(a) if "attn" in k else a for k, a in kohya().items()})
    ),
    "convolution's up as a matrix": Case(safetensors(changed(up=lambda a: a.reshape(a.shape[:2])))),
    "torch": Case(torch_file(kohya())),
    "torch before 1.6": Case(torch_file(kohya(), "a.ckpt", old=True)),
    "torch's state_dict": Case(torch_file(kohya(), "a.bin", outer="state_dict")),
    "safetensors called .pt": Case(safetensors(kohya(), "a.pt")),
    "odd metadata": Case(safetensors(kohya(), ss_tag_frequency="{", ss_network_dim="drei")),
    "PEFT": Case(peft()),
    "PEFT of torch": Case(peft(weights="adapter_model.bin")),
    "PEFT's default": Case(peft(default=".default")),
    **{
        f"all kinds in {np.dtype(dtype)}": Case(
            unsorted_safetensors(dict(reversed(kohya(mixed(dtype=dtype)).items()))),
            expected=lambda dtype=dtype: answer(mixed(dtype=dtype)),
        )
        for dtype in (np.float32, np.float16, ml_dtypes.bfloat16)
    },
    "LoHa as convolutions": Case(
        factors(**loha(1, 1)),
        expected=lambda: answer(Adapter({UNET: {QUERY: (LoHa(*loha().values()),)}})),
    ),
    **{
        f"folder of diffusers, {end}": Case(_in_folder(write, f"pytorch_lora_weights.{end}"))
        for end, write in (("safetensors", safetensors), ("bin", torch_file))
    },
}

TWICE = "is there twice, the first time as 'lora"
FITS = "it is made for another model, or damaged"
OTHER = "is of another family of models than Stable Diffusion 1 and 2"
SHAPE = r"has the shape \[.*\], which no part of a change has"
DOWN, UP = f"{ATTENTION}.lora_down.weight", f"{ATTENTION}.lora_up.weight"
REFUSED = {
    # Kinds that are not read.
    "GLoRA": Case(put(f"{ATTENTION}.a1.weight", ones(1, 1)), "a1.weight' is GLoRA"),
    "OFT": Case(put(f"{ATTENTION}.oft_blocks", ones(1, 1)), "oft_blocks' is of an orthogonal"),
    "T-LoRA": Case(put(f"{ATTENTION}.lambda_layer", ones(1, 1)), "lambda_layer' is T-LoRA"),
    "numbered": Case(only("unet:0:up"), "'unet:0:up' is numbered, not named"),
    "scalar": Case(put(f"{ATTENTION}.scalar", F(2)), "scalar' multiplies the change in some"),
    "Control-LoRA": Case(put("lora_controlnet", F(1)), "is of a ControlNet that is stored as an a"),
    "trained whole": Case(only("base_model.model.a.modules_to_save.weight"), "was trained whole"),
    "unknown part": Case(put(f"{ATTENTION}.lora_sideways", ones(1, 1)), "placed: .*lora_sideways"),
    # Other models.
    "SDXL": Case(
        put(f"{TO_K}.lora_down.weight", ones(3, 2048)),
        "is an adapter for SDXL, whose attention reads text of width 2048; this model reads text "
        "of width 64; use it with a model of the family that it is made for"),
    "SDXL's second encoder": Case(
        put("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", ones(1, 1)),
        "is of SDXL's second text encoder, which the models here do not have"),
    "SDXL's tenth block": Case(
        put("lora_unet_input_blocks_4_1_transformer_blocks_9_attn1_to_q.diff", ones(1, 1)),
        "1 of 16 tensors cannot be placed: .*transformer_blocks_9.*this model has no such modules"),
    "SD 1": Case(put(f"{TO_K}.lora_down.weight", ones(3, 768)), "an adapter for Stable Diffusion"),
    "SD 2": Case(put(f"{TO_K}.lora_down.weight", ones(3, 1024)), "adapter for Stable Diffusion 2,"),
    "96 wide": Case(put(f"{TO_K}.lora_down.weight", ones(3, 96)), "another model, whose .* width"),
    "Flux of kohya": Case(only("lora_unet_double_blocks_0_img_attn_proj.lora_down.weight"), OTHER),
    "Flux of x-labs": Case(only("double_blocks.0.processor.proj_lora1.down.weight"), OTHER),
    "Flux of ComfyUI": Case(only("diffusion_model.single_blocks.0.linear1.lora_A.weight"), OTHER),
    "Flux of diffusers": Case(
        only("transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight"), OTHER),
    "SD 3 of kohya": Case(only("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight"), OTHER),
    "Stable Cascade": Case(only("lora_prior_unet_blocks_0.lora_up.weight"), OTHER),
    # Keys.
    "renamed": Case(safetensors(respelled(("down_blocks", "dwon_blocks"))), "12 of 15 tensors can"),
    "prefixed": Case(safetensors(respelled(("^", "model."))), "15 of 15 tensors cannot be placed"),
    "nameless": Case(put("", ones(1, 1)), "cannot be placed: ''"),
    "two spellings": Case(put(f"unet.{DOTTED}.lora_A.weight", ones(3, 32)), TWICE),
    "two text encoders": Case(put(f"{WORDS.replace('te_', 'te1_')}.alpha", F(1)), TWICE),
    "no up": Case(without(UP), "lora_down.weight' is there, but not its up; the file is incomplet"),
    "no down": Case(without(DOWN), "lora_up.weight' is there, but not its down"),
    "no w2_b": Case(factors(**loha(hada_w2_b=None)), "hada_w1_a' is there, but not its w2_b"),
    "no w2": Case(factors(lokr_w1=ones(4, 4)), "w2 must be there either whole or as w2_a and w2_b"),
    "no t2": Case(factors(**loha(hada_t1=ones(2, 2, 1, 1))), "one of t1 and t2 is missing"),
    "alpha alone": Case(put("lora_unet_conv_out.alpha", F(1)), "conv_out.alpha' stands alone"),
    "magnitude alone": Case(factors(dora_scale=ones(32, 1)), "dora_scale' stands alone"),
    "two kinds": Case(put(f"{ATTENTION}.diff", ones(32, 32)), "is of a module with lora and full"),
    "nothing": Case(safetensors({}), "has no tensors in it"),
    # Shapes.
    "other ranks": Case(put(UP, ones(32, 4)), rf"up is \[32, 4\], wanted \[32, 3\]; {FITS}"),
    "48 wide": Case(put(DOWN, ones(3, 48)), rf"down is \[3, 48\], wanted \[3, 32\]; {FITS}"),
    "rank 0": Case(safetensors(changed(down=lambda a: a[:0], up=lambda a: a[:, :0])), SHAPE),
    "number as down": Case(put(DOWN, F(1)), SHAPE),
    "vector as down": Case(put(DOWN, ones(32)), r"down is \[32\], wanted \[32, 32\]"),
    "number as w1_b": Case(factors(**loha(hada_w1_b=F(1))), SHAPE),
    "other products": Case(
        factors(lokr_w1=ones(4, 4), lokr_w2=ones(4, 4)), r"make a weight of \[16, 16\], wanted"),
    "middle of a dense layer": Case(
        put(f"{ATTENTION}.lora_mid.weight", ones(3, 3, 1, 1)), "mid is there, which only convolut"),
    "magnitudes of 31": Case(put(f"{ATTENTION}.dora_scale", ones(31, 1)), r"is \[31, 1\], 31 numb"),
    "31 shares": Case(factors(weight=ones(31), on_input=np.bool_(True)), "31 numbers, wanted one"),
    "LoRA of a norm": Case(
        safetensors({"lora_unet_conv_norm_out.lora_down.weight": ones(1, 32),
                     "lora_unet_conv_norm_out.lora_up.weight": ones(32, 1)}),
        "it is the scale of a norm, which only w_norm and b_norm change"),
    "a bias that is not there": Case(
        put(f"{ATTENTION}.diff_b", ones(32)), "a bias, which this module does not have"),
    # Numbers.
    "not a number": Case(put(UP, np.full((32, 3), np.nan, F)), "values that are no finite numbers"),
    "infinity": Case(put(UP, np.full((32, 3), -np.inf, F)), "values that are no finite numbers"),
    "too large": Case(put(UP, np.full((32, 3), 1e300)), "values that are no finite numbers"),
    "whole numbers": Case(put(UP, np.ones((32, 3), np.int8)), "is of int8, a type that weights do"),
    "complex numbers": Case(put(UP, np.ones((32, 3), np.complex64)), "is of complex64, a type tha"),
    "alpha of 0": Case(put(f"{ATTENTION}.alpha", F(0)), "alpha' must be one number other than 0"),
    "two alphas": Case(put(f"{ATTENTION}.alpha", F([1, 2])), "alpha' must be one number other tha"),
    "no alpha in it": Case(put(f"{ATTENTION}.alpha", F([])), "alpha' must be one number other tha"),
    "alpha not a number": Case(put(f"{ATTENTION}.alpha", F(np.nan)), "alpha' has values that are"),
    # PEFT.
    "PEFT without weights": Case(peft(weights=""), "has adapter_config.json, but no adapter_model"),
    "PEFT's page": Case(peft("<html>"), "adapter_config.json: it is not JSON"),
    "PEFT's list": Case(peft("[]"), "adapter_config.json: it is not a JSON object"),
    "PEFT's other type": Case(peft({"peft_type": ["LORA"]}), r"peft_type is \['LORA'\]; LORA, LOH"),
    "PEFT's alpha of 0": Case(peft({"alpha_pattern": {"to_q": 0}}), "no map of names to numbers a"),
    "PEFT's ranks as a list": Case(peft({"rank_pattern": [3]}), "rank_pattern is no map of names"),
    "PEFT's endless pattern": Case(
        peft({"alpha_pattern": {"(.+)+!": 1}}), "alpha_pattern has '.*', which may be compared fo"),
    "diffusers' settings": Case(
        safetensors(kohya(), **{METADATA: "{"}), "lora_adapter_metadata is not JSON"),
}  # fmt: skip
CASES = READ | REFUSED
