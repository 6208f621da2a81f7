"""Whole pictures drawn with ControlNets: our pipeline beside diffusers' own, from the same files
and the same noise, in float32; how close is as in `test_pipelines.py`."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from PIL import Image  # noqa: E402
from test_pipelines import (  # noqa: E402
    CLOSE,
    FIRST,
    GUIDANCE,
    NEGATIVE,
    PROMPT,
    STEPS,
    apart,
    noise,
    settings,
    with_scheduler,
)
from tiny_pipelines import WIDTHS, seeded  # noqa: E402
from tiny_pipelines import pipeline as peer_pipeline  # noqa: E402

from ldm_jax import config as cfg  # noqa: E402
from ldm_jax.config.control_choice import ControlHints  # noqa: E402
from ldm_jax.generation.pipeline import Pipeline  # noqa: E402
from ldm_jax.generation.resolve import resolve_request  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SIDE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, three ControlNets for it, the third of means, and two hints, as both write them."""
    folder = tmp_path_factory.mktemp("control")
    peer = peer_pipeline(folder, "shallow")
    peer.save_pretrained(folder / "model")
    for i in range(3):
        torch.manual_seed(i)
        net = seeded(diffusers.ControlNetModel(
            in_channels=4, conditioning_embedding_out_channels=(8, 12), attention_head_dim=4,
            block_out_channels=WIDTHS[:1], layers_per_block=1, cross_attention_dim=64,
            down_block_types=["CrossAttnDownBlock2D"], global_pool_conditions=i == 2,
        ))  # fmt: skip
        with torch.no_grad():  # each another
            net.controlnet_mid_block.weight.mul_(1 - i)
        net.save_pretrained(folder / f"net{i}")
    random = np.random.default_rng(0)
    for i in range(2):
        pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"hint{i}.png")
    return folder


def _theirs(folder, nets, **how):
    peer = diffusers.StableDiffusionPipeline.from_pretrained(folder / "model", safety_checker=None)
    loaded = [diffusers.ControlNetModel.from_pretrained(folder / f"net{i}") for i in nets]
    peer = diffusers.StableDiffusionControlNetPipeline(
        **peer.components, controlnet=loaded if len(loaded) > 1 else loaded[0],
        requires_safety_checker=False,
    )  # fmt: skip
    peer.set_progress_bar_config(disable=True)
    hints = [Image.open(folder / f"hint{i % 2}.png") for i in range(len(nets))]
    start = noise("initial", (SIDE // 2, SIDE // 2, 4), channels_last=False)
    return with_scheduler(peer, "ddim")(
        PROMPT, hints if len(hints) > 1 else hints[0], negative_prompt=NEGATIVE, height=SIDE,
        width=SIDE, num_inference_steps=STEPS, guidance_scale=GUIDANCE, latents=start,
        output_type="latent", **how,
    ).images  # fmt: skip


def _ours(folder, nets, scales, **how):
    control = tuple(f"{folder}/net{i}:{scale}" for i, scale in zip(nets, scales, strict=True))
    pipeline = Pipeline(folder / "model", control=control)
    hint = tuple(f"{folder}/hint{i % 2}.png" for i in range(len(nets)))
    request = cfg.Request(
        prompt=(PROMPT,), negative_prompt=NEGATIVE, first_image=FIRST,
        sampling=settings("ddim", height=SIDE, width=SIDE), hints=ControlHints(hint, **how),
        model=pipeline.choice,
    )  # fmt: skip
    (batch,) = pipeline.run(resolve_request(pipeline, request).plan, decode=False)
    return batch.images


def test_one(folder):
    expected = _theirs(folder, [0], controlnet_conditioning_scale=0.8)
    assert apart(_ours(folder, [0], [0.8]), expected) <= CLOSE
    # It matters.
    assert apart(_ours(folder, [0], [0.0]), expected) > 0.05


def test_several_with_times_of_their_own(folder):
    expected = _theirs(
        folder, [0, 1], controlnet_conditioning_scale=[0.8, 0.5],
        control_guidance_start=[0.0, 0.33], control_guidance_end=[0.61, 1.0],
    )  # fmt: skip
    found = _ours(folder, [0, 1], [0.8, 0.5], control_start=(0.0, 0.33), control_end=(0.61, 1.0))
    assert apart(found, expected) <= CLOSE


def test_guess_mode(folder):
    expected = _theirs(folder, [0], controlnet_conditioning_scale=0.9, guess_mode=True)
    assert apart(_ours(folder, [0], [0.9], guess_mode=True), expected) <= CLOSE


def test_of_means(folder):
    expected = _theirs(folder, [2], controlnet_conditioning_scale=1.0)
    assert apart(_ours(folder, [2], [1.0]), expected) <= CLOSE
