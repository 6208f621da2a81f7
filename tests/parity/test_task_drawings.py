"""Whole pictures of conditional tasks, drawn from a single file with the original code's names and
weights as that code draws them with DDIM, whose numbers are in golden/ (see its README).

The relative difference of latents after 20 steps, in float32, of which each agrees to some 1e-6.
"""

from pathlib import Path

import convert_models
import numpy as np
import originals
import pytest
import weights

from ldm_jax import config as cfg
from ldm_jax.generation.conditions import Picture
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.images import masks

CLOSE = 1e-3
COMPONENTS = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")
REPEATED = "cond_stage_model."


def write(name, path):
    """A file of the original code with seeded weights; where the condition's encoder repeats the
    first stage, with the same."""
    golden = convert_models.golden("compvis_names")[name]
    repeats = golden["config"].get("repeats")
    own = {}
    for tensor, shape in golden["shapes"].items():
        if tensor.startswith(COMPONENTS):
            named = tensor.replace(REPEATED, "first_stage_model.") if repeats else tensor
            own[tensor] = weights.weight(named, tuple(shape))
    return convert_models.original(name, path, own)


def picture_of(name, given):
    noise = given["noise"][None]
    if name != "inpainting_big":
        key = "class_map" if "class_map" in given else "boxes"
        dtype = np.int16 if key == "class_map" else np.int32
        return Picture(noise=noise, shown={key: given[key].astype(dtype)})
    prepared = masks.prepare(given["image"], 255 * given["mask"], 32, 32)
    return Picture(image=prepared.image, mask=prepared.mask, noise=noise)


@pytest.mark.parametrize("name", originals.DRAWN)
def test_the_original_draws_the_same(name, tmp_path):
    path = write(name, tmp_path / "model.safetensors")
    yaml = convert_models.settings(name, tmp_path / "settings.yaml")
    pipeline = Pipeline.open(cfg.ModelChoice.of(path, original_config=str(yaml)))
    sampling = cfg.Sampling(
        sampler="ddim", steps=originals.DRAWING_STEPS, guidance_scale=1.0, height=32, width=32
    )
    given = originals.drawing_inputs(name)
    with np.load(Path(__file__).parent / "golden" / "task_drawings.npz") as file:
        latents, image = file[f"{name}/latents"], file[f"{name}/image"]

    def draw(given, decode):
        picture = picture_of(name, given)
        return pipeline.generate([None], sampling=sampling, picture=picture, decode=decode)[0]

    def apart(found):
        return np.linalg.norm(found - latents) / np.linalg.norm(latents)

    assert apart(draw(given, decode=False)) < CLOSE
    other = {key: value if key == "noise" else value[::-1].copy() for key, value in given.items()}
    assert apart(draw(other, decode=False)) > 10 * CLOSE, "it is seen what is drawn from"
    expected = (np.clip(image, -1, 1) + 1) * 127.5
    assert np.std(expected) > 10
    assert np.abs(draw(given, decode=True) - expected).max() < 0.6
