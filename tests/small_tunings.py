"""A small model with CLIP's text encoder, and an adapter, a hypernetwork, an embedding and a
ControlNet for it."""

from dataclasses import replace

import clip_files
import convert_models as small
import jax
import numpy as np
from small_adapters import Maker

from ldm_jax import config as cfg
from ldm_jax.adapters.adapter import Adapter
from ldm_jax.adapters.hypernetwork import fresh_nets
from ldm_jax.convert import imported_model
from ldm_jax.convert.adapters.adapter_writer import write_adapter
from ldm_jax.convert.adapters.module_names import ModuleNames
from ldm_jax.convert.controlnets.control_files import ImportedControl
from ldm_jax.convert.controlnets.control_writer import write_control
from ldm_jax.convert.hypernetworks.hypernetwork_files import HypernetworkFile, write_hypernetwork
from ldm_jax.convert.native import write_native
from ldm_jax.formats.safetensors_file import write_safetensors

CONFIG = replace(
    small.MODELS["sd1"],
    unet=replace(
        small.UNET, block_out_channels=(32,), attention=(True,), num_heads=(4,)
    ),
    conditioners=(cfg.TextConditioner(replace(small.CLIP, vocab_size=600), tokenizer="clip"),),
)  # fmt: skip
TAG = {"ss_tag_frequency": '{"10_cats": {"red cat": 7, "sitting": 3}, "dogs": {"sitting": 2}}'}


def write_all(folder):
    """`model`, `net`, `loras/style.safetensors`, `nets/hyper.pt` and `words/zork.safetensors`."""
    tokenizer = clip_files.write_clip(folder / "tokenizer")
    numbers = {name: _quiet(part) for name, part in small.numbers(CONFIG).items()}
    model = imported_model.make(CONFIG, numbers, tokenizer=tokenizer)
    write_native(model, folder / "model")
    names = ModuleNames.of(CONFIG, model.params)
    dotted = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"
    change = (Maker(0).make("lora", names.places[dotted].shape),)
    _write_control(folder)
    (folder / "loras").mkdir()
    adapter = Adapter({"unet": {names.places[dotted].path: change}}, "style", metadata=TAG)
    write_adapter(adapter, folder / "loras" / "style.safetensors", "kohya")
    (folder / "nets").mkdir()
    write_hypernetwork(hypernetwork(), folder / "nets" / "hyper.pt")
    (folder / "words").mkdir()
    random = np.random.default_rng(0)
    for name, width in (("zork", small.CLIP.width), ("wide", 768)):
        rows = random.standard_normal((2, width)).astype(np.float32)
        write_safetensors(folder / "words" / f"{name}.safetensors", {"emb_params": rows})


def _write_control(folder):
    """`net`, a ControlNet with numbers."""
    branch = cfg.control_of(CONFIG.unet, CONFIG.autoencoder)
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (0.3 * random.standard_normal(leaf.shape)).astype(np.float32),
        imported_model.control_shapes(branch),
    )
    write_control(ImportedControl(branch, params, "net", {}), folder / "net", "diffusers")


def hypernetwork(seed=0, **form):
    """One that changes what is drawn."""
    widths = (CONFIG.unet.context_dim, *CONFIG.unet.block_out_channels)
    form = cfg.Hypernetwork(tuple(sorted({*widths})), **form)
    random = np.random.default_rng(seed)
    nets = jax.tree.map(
        lambda a: random.normal(0, 0.3, np.shape(a)).astype(np.float32),
        fresh_nets(form, form.widths, 0),
    )
    return HypernetworkFile(form, nets, "hyper")


def _quiet(tree):
    return jax.tree.map(lambda a: a * np.float32(0.2 if a.ndim > 1 else 1), tree)
