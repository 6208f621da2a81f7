"""Single files of the published models in full size are known by their shapes alone."""

from dataclasses import replace

import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.config import published_models
from ldm_jax.convert import imported_model, state_dicts
from ldm_jax.convert.compvis import components, keys, reader, writer
from ldm_jax.core import tree


def shapes_only(model):
    """A file's tensors, each one number that takes no memory."""
    kind = writer._kind_of(model)
    prefixes = {"unet": keys.UNET, "autoencoder": keys.FIRST_STAGE}
    if kind is not None:
        prefixes[components.encoder_of(model).name] = kind.prefix
    places = components.places_of(model, kind)
    tensors = {}
    for part, leaves in imported_model.shapes(model).items():
        for leaf in state_dicts.leaves(leaves):
            place, shape = places[part][leaf.name], leaf.torch_shape
            if place.part is not None:
                shape = (3 * shape[0], *shape[1:])
            tensors[prefixes[part] + place.name] = np.broadcast_to(
                np.float32(0), shape + (1,) * place.trailing
            )
    if kind is components.OPEN_CLIP:
        last = f"{kind.prefix}transformer.resblocks.{components.encoder_of(model).encoder.layers}."
        tensors[last + "ln_1.weight"] = np.zeros(1024, np.float32)
    return tensors


@pytest.mark.parametrize(
    ("name", "count"),
    [("bsr_sr", 113_622_563), ("inpainting_big", 387_245_827),
     ("layout2img-openimages256", 246_277_379), ("Stable Diffusion x4 upscaler", 473_398_020),
     ("semantic_synthesis256 or semantic_synthesis512", 215_229_315),
     ("Stable Diffusion 1 inpainting", 859_535_364), ("InstructPix2Pix", 859_532_484),
     ("Stable Diffusion 2 depth", 865_913_604)],
)  # fmt: skip
def test_parameters_of_tasks(name, count):
    assert tree.count(imported_model.unet_shapes(published_models.MODELS[name].unet)) == count


def test_parameters_of_the_encoder_of_boxes():
    """The published file's, without a language head that nothing uses."""
    encoder = published_models.MODELS["layout2img-openimages256"].conditioners[0]
    head = 512 * 8192 + 8192
    assert tree.count(imported_model.conditioner_shapes(encoder)) == 58_858_496 - head


@pytest.mark.parametrize("name", published_models.MODELS)
def test_known_by_shapes(monkeypatch, tmp_path, name):
    model = published_models.MODELS[name]
    tensors, prediction = shapes_only(model), None
    if model.unet.context_dim == 1024:
        prediction = model.diffusion.prediction
    if model.autoencoder.latent_scale is None:
        tensors["scale_factor"] = np.asarray(0.25, np.float32)
        scaled = replace(model.autoencoder, latent_scale=0.25)
        model = replace(model, autoencoder=scaled)
    monkeypatch.setattr(reader, "read_any", lambda path: (tensors, {}))
    found = reader.read_checkpoint(tmp_path / "model.ckpt", prediction=prediction)
    assert found.config == model
    assert isinstance(found.config, cfg.Model)
