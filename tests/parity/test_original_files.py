"""Single files with the original code's names and weights compute what that code computed.

`golden/README.md` says how the numbers were made; see `test_originals.py` for the tolerance.
"""

from pathlib import Path

import convert_models
import jax
import jax.numpy as jnp
import numpy as np
import originals
import pytest
import weights

from ldm_jax.convert.compvis.reader import read_checkpoint
from ldm_jax.convert.imported_model import materialize
from ldm_jax.models.build import build_autoencoder, build_conditioner, build_unet
from ldm_jax.models.conditioners import Condition, Encoder

GOLDEN = Path(__file__).with_name("golden")
NO_ENCODER = Encoder(None, None)
"""For conditions without pictures."""


def nhwc(x):
    x = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
    return jnp.asarray(x, jnp.float32 if x.dtype.kind == "f" else jnp.int32)


def relative_error(ours, theirs):
    return np.linalg.norm(ours - nhwc(theirs)) / np.linalg.norm(theirs)


def on_device(tree):
    return {"params": jax.tree.map(jnp.asarray, materialize(tree))}


def read(folder, name, own):
    path = convert_models.original(name, folder / "model.safetensors", own)
    yaml = convert_models.settings(name, folder / "settings.yaml")
    return read_checkpoint(path, original_config=yaml)


@pytest.mark.parametrize("name", ["sd2", "txt2img-1p4B", "cin256", "churches256"])
def test_whole_file(tmp_path, name):
    shapes = convert_models.golden("compvis_names")[name]["shapes"]
    prefixes = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")
    own = {n: weights.weight(n, tuple(s)) for n, s in shapes.items() if n.startswith(prefixes)}
    imported = read(tmp_path, name, own)
    given = {key: nhwc(value) for key, value in originals.inputs(name).items()}
    with np.load(GOLDEN / f"{name}.npz") as file:
        want = dict(file)

    config = imported.config
    autoencoder = build_autoencoder(config.autoencoder)
    decode = jax.jit(lambda p, z: autoencoder.apply(p, z, method="decode"))
    decoded = decode(on_device(imported.frozen["autoencoder"]), given["z"])
    assert relative_error(decoded, want["decoded"]) < 1e-5
    condition = Condition()
    if "text" in want or "labels" in given:
        encoder = build_conditioner(config.conditioners[0])
        inputs = {"caption": given.get("tokens"), "label": given.get("labels")}
        params = imported.params["conditioners"].get(encoder.name, {})
        condition = encoder(jax.tree.map(jnp.asarray, params), inputs, Condition(), NO_ENCODER)
    if "text" in want:
        assert relative_error(condition.context, want["text"]) < 1e-5
        condition = Condition(context=given["context"])
    unet = jax.jit(build_unet(config.unet).apply)
    found = unet(on_device(imported.params["unet"]), given["x"], given["t"], condition)
    assert relative_error(found, want["unet"]) < 1e-5


@pytest.mark.parametrize("name", originals.TASKS)
def test_networks_of_tasks(tmp_path, name):
    """The U-Net and what encodes the condition; first stages are those of above."""
    shapes = convert_models.golden("compvis_names")[name]["shapes"]
    prefixes = ("model.diffusion_model.", "cond_stage_model.transformer.", "cond_stage_model.chan")
    own = {n: weights.weight(n, tuple(s)) for n, s in shapes.items() if n.startswith(prefixes)}
    imported = read(tmp_path, name, own)
    config = imported.config
    given = {key: nhwc(value) for key, value in originals.inputs(name).items()}
    with np.load(GOLDEN / f"{name}.npz") as file:
        want = dict(file)
    latents = config.unet.in_channels
    x, beside = jnp.split(given["x"], [latents], axis=-1)
    condition = Condition(concat=beside if beside.size else None)
    if imported.params["conditioners"]:
        encoder = build_conditioner(config.conditioners[0], factor=config.autoencoder.factor)
        inputs = {"class_map": given.get("class_map"), "boxes": given.get("tokens")}
        params = jax.tree.map(jnp.asarray, imported.params["conditioners"][encoder.name])
        found = encoder(params, inputs, Condition(), NO_ENCODER)
        part = "context" if "boxes" in config.inputs else "concat"
        assert relative_error(getattr(found, part), want[part]) < 1e-5
        condition = found if part == "context" else condition
    unet = jax.jit(build_unet(config.unet).apply)
    found = unet(on_device(imported.params["unet"]), x, given["t"], condition)
    assert relative_error(found, want["unet"]) < 1e-5
