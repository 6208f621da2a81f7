"""Writes golden/tunings.npz and the files beside it: a LoRA, hypernetworks and a ControlNet, as the
originals write and apply them.

    python tests/parity/make_tunings.py SD_SCRIPTS WEBUI CONTROLNET

The three are checkouts of kohya-ss/sd-scripts (48d368f), AUTOMATIC1111/stable-diffusion-webui
(bef51ae) and lllyasviel/ControlNet (ed85cd1). Needs PyTorch and einops, for kohya's what its
training imports, and none of the originals' other packages; the tests that read the files need no
original.
"""

import json
import math
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
import transformers
import tunings
import weights

from benchmarks import torchvision_python  # noqa: F401

Numbers = dict[str, np.ndarray]
GIVEN = {name: torch.from_numpy(array) for name, array in tunings.inputs().items()}


def stub(name: str, **members: object) -> types.ModuleType:
    """A module that is imported and has nothing but `members`."""
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(members)
    parent, _, last = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], last, module)
    return module


def filled(module: Any, prefix: str) -> tuple[Any, np.ndarray]:
    """The module with the weights of its names after `prefix`, for inference; and the shapes that
    go with these names, as JSON."""
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in module.state_dict().items() if tensor.is_floating_point()
    }  # fmt: skip
    state = {name: torch.from_numpy(w) for name, w in tunings.drawn(prefix, shapes).items()}
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected and all("position_ids" in name for name in missing)
    return module.eval().requires_grad_(False), np.array(json.dumps(shapes))


# -------------------------------------------------------------------------------------- LoRA


class Text(torch.nn.Module):
    """CLIP's text encoder under the name that it has in files."""

    def __init__(self) -> None:
        super().__init__()
        self.text_model = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(**tunings.CLIP, bos_token_id=0, eos_token_id=1)
        )


def prepare_kohya() -> None:
    stub("imagesize")
    stub("library.lpw_stable_diffusion", StableDiffusionLongPromptWeightingPipeline=None)
    stub("library.sdxl_lpw_stable_diffusion", SdxlStableDiffusionLongPromptWeightingPipeline=None)


def kohya() -> Numbers:
    from library import original_unet
    from networks import lora

    widths = tuple(tunings.UNET["model_channels"] * n for n in tunings.UNET["channel_mult"])
    vars(original_unet).update(
        BLOCK_OUT_CHANNELS=widths, TIMESTEP_INPUT_DIM=widths[0], TIME_EMBED_DIM=4 * widths[0],
        LAYERS_PER_BLOCK=1, LAYERS_PER_BLOCK_UP=2,
        DOWN_BLOCK_TYPES=["CrossAttnDownBlock2D", "DownBlock2D"],
        UP_BLOCK_TYPES=["UpBlock2D", "CrossAttnUpBlock2D"],
    )  # fmt: skip
    found: Numbers = {}

    def made() -> Any:
        return original_unet.UNet2DConditionModel(
            sample_size=8, attention_head_dim=4, cross_attention_dim=64
        )

    unet, found["kohya/unet/shapes"] = filled(made(), "kohya/")
    text, found["kohya/text/shapes"] = filled(Text(), "kohya/")
    network = lora.create_network(1.0, 3, 2, None, text, unet, conv_dim=2, conv_alpha=1.5)
    network.apply_to(text, unet)  # before that it has no parameters
    for name, parameter in network.named_parameters():
        fan_in = math.prod(parameter.shape[1:])
        size = 0.5 if "lora_up" in name else fan_in**-0.5
        drawn = weights.normal(name, tuple(parameter.shape), size)
        parameter.data = torch.from_numpy(drawn)
    path = tunings.GOLDEN / tunings.LORA
    network.save_weights(str(path), torch.float16, {"ss_network_module": "networks.lora"})

    # Once more from the file, as it is used for drawing.
    (unet, _), (text, _) = filled(made(), "kohya/"), filled(Text(), "kohya/")
    found |= {"kohya/unet/without": unet(GIVEN["x"], GIVEN["t"], GIVEN["context"]).sample,
              "kohya/text/without": text.text_model(GIVEN["tokens"]).last_hidden_state}  # fmt: skip
    network, state = lora.create_network_from_weights(
        tunings.LORA_STRENGTH, str(path), None, text, unet, for_inference=True
    )
    network.apply_to(text, unet)
    told = network.load_state_dict(state, strict=False)
    assert not told.missing_keys and not told.unexpected_keys
    network.eval()
    return found | {
        "kohya/unet": unet(GIVEN["x"], GIVEN["t"], GIVEN["context"]).sample,
        "kohya/text": text.text_model(GIVEN["tokens"]).last_hidden_state,
    }


# ------------------------------------------------------------------------------ hypernetworks


def metadata(path: str) -> dict[str, str]:
    with safetensors.safe_open(path, "np") as file:
        return file.metadata() or {}


def prepare_webui() -> None:
    import modules  # noqa: F401

    options = types.SimpleNamespace(print_hypernet_extra=False, save_optimizer_state=False)
    commands = types.SimpleNamespace(no_hashing=False)
    stub("modules.shared", opts=options, cmd_opts=commands, hypernetworks={},
         loaded_hypernetworks=[])  # fmt: skip
    stub("modules.cache", dump_cache=lambda: None, cache=lambda _: {},
         cached_data_for_file=lambda _, title, path, read: read())  # fmt: skip
    stub("modules.devices", device="cpu", cond_cast_unet=lambda x: x, cond_cast_float=lambda x: x)
    stub("modules.sd_models", read_metadata_from_safetensors=metadata)
    stub("networks", available_network_hash_lookup={})
    for name in ("sd_samplers", "sd_hijack_checkpoint", "errors"):
        stub(f"modules.{name}")
    for name in ("", ".dataset", ".textual_inversion", ".logging"):
        stub(f"modules.textual_inversion{name}")
    stub("modules.textual_inversion.learn_schedule", LearnRateScheduler=None)


def webui(unet: torch.nn.Module) -> Numbers:
    from ldm.modules.attention import CrossAttention
    from modules import shared
    from modules.hypernetworks import hypernetwork

    forms = (
        {"layer_structure": [1, 0.5, 0.5, 1], "activation_func": "swish", "add_layer_norm": True,
         "activate_output": True, "use_dropout": True, "dropout_structure": [0, 0.3, 0.1, 0]},
        {"layer_structure": [1, 1.5, 1], "activation_func": "leakyrelu", "use_dropout": True,
         "last_layer_dropout": True, "activate_output": False},
    )  # fmt: skip
    for file, sizes, form in zip(tunings.HYPERNETWORKS, ([32, 64], [32]), forms, strict=True):
        name = file.removesuffix(".pt")
        made = hypernetwork.Hypernetwork(name, sizes, weight_init="Normal", **form)
        for size, pair in made.layers.items():
            for side, net in zip("kv", pair, strict=True):
                filled(net, f"{name}/{size}/{side}/")
        made.step = 7
        shared.hypernetworks[name] = str(tunings.GOLDEN / file)
        made.save(shared.hypernetworks[name])
    hypernetwork.load_hypernetworks([*shared.hypernetworks], tunings.HYPERNETWORK_STRENGTHS)
    assert len(shared.loaded_hypernetworks) == 2
    before, CrossAttention.forward = (
        CrossAttention.forward, hypernetwork.attention_CrossAttention_forward
    )  # fmt: skip
    found = {"webui/unet": unet(GIVEN["x"], GIVEN["t"], GIVEN["context"])}
    CrossAttention.forward = before
    first = shared.loaded_hypernetworks[0]
    return found | {"webui/hash/hypernetwork": np.array(first.shorthash())}


def lora_hashes() -> Numbers:
    """Of the LoRA as kohya wrote it, and without what its metadata say of a hash."""
    from network import NetworkOnDisk

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        whole, bare = tunings.GOLDEN / tunings.LORA, Path(folder) / tunings.LORA
        safetensors.torch.save_file(safetensors.torch.load_file(whole), bare)
        for name, path in (("lora", whole), ("bare", bare)):
            on_disk = NetworkOnDisk(name, str(path))
            on_disk.read_hash()
            found[f"webui/hash/{name}"] = np.array(on_disk.shorthash)
    return found


# --------------------------------------------------------------------------------- ControlNet


def controlnet() -> tuple[torch.nn.Module, Numbers]:
    """The U-Net without anything added, and the numbers."""
    stub("omegaconf")
    stub("omegaconf.listconfig", ListConfig=list)
    stub("ldm.models.diffusion.ddpm", LatentDiffusion=torch.nn.Module)
    stub("ldm.models.diffusion.ddim", DDIMSampler=None)
    from cldm.cldm import ControlLDM, ControlledUnetModel, ControlNet

    settings = {name: value for name, value in tunings.UNET.items() if name != "out_channels"}
    unet, shapes = filled(ControlledUnetModel(**settings, out_channels=4), "model.diffusion_model.")
    control, own_shapes = filled(ControlNet(**settings, hint_channels=3), "control_model.")
    residuals = control(GIVEN["x"], GIVEN["hint"], GIVEN["t"], GIVEN["context"])
    whole = types.SimpleNamespace(
        model=types.SimpleNamespace(diffusion_model=unet), control_model=control,
        control_scales=[tunings.CONTROL_STRENGTH] * len(residuals), only_mid_control=False,
    )  # fmt: skip
    shown = {"c_crossattn": [GIVEN["context"]], "c_concat": [GIVEN["hint"]]}
    return unet, {
        "original/unet/shapes": shapes, "original/control/shapes": own_shapes,
        "original/unet/without": unet(GIVEN["x"], GIVEN["t"], GIVEN["context"]),
        "original/control/unet": ControlLDM.apply_model(whole, GIVEN["x"], GIVEN["t"], shown),
        **{f"original/control/{i}": one for i, one in enumerate(residuals)},
    }  # fmt: skip


@torch.no_grad()
def main(*paths: str) -> None:
    """Computes and writes everything."""
    for path in paths:
        sys.path.insert(0, path)
    prepare_kohya()
    found = kohya()
    unet, numbers = controlnet()
    prepare_webui()
    found |= numbers | webui(unet)
    sys.path.insert(0, f"{paths[1]}/extensions-builtin/Lora")  # it has a `networks` as well
    found |= lora_hashes()
    np.savez_compressed(
        tunings.GOLDEN / "tunings.npz", **{name: np.asarray(one) for name, one in found.items()}
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
