"""Whole pictures: our pipeline beside diffusers' own, from the same files and the same noise.

Relative differences of latents after 20 steps with guidance, in float32: each evaluation agrees
to a few 1e-6, and guidance multiplies the difference of two of them by 7.5, twenty times over.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from PIL import Image  # noqa: E402
from tiny_pipelines import pipeline as peer_pipeline  # noqa: E402
from tiny_pipelines import scheduler  # noqa: E402

from ldm_jax import config as cfg  # noqa: E402
from ldm_jax import latent_diffusion as ldm  # noqa: E402
from ldm_jax.generation.condition_files import read_shown  # noqa: E402
from ldm_jax.generation.conditions import Picture  # noqa: E402
from ldm_jax.generation.pipeline import Pipeline  # noqa: E402
from ldm_jax.images import masks  # noqa: E402
from ldm_jax.models.conditioners import Condition  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
CLOSE = 1e-3
PROMPT, NEGATIVE = "a b cat", "ugly"
GUIDANCE, STEPS, SEED = 7.5, 20, 3
FIRST = 5
INDEX = np.array([FIRST], np.uint32)
SAMPLERS = {"ddim": {"spacing": None}, "dpmpp_2m": {"spacing": "trailing"}}
LEADING = {
    "ddim": diffusers.DDIMScheduler, "plms": diffusers.PNDMScheduler,
    "euler": diffusers.EulerDiscreteScheduler, "heun": diffusers.HeunDiscreteScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
}  # fmt: skip


def with_scheduler(peer, sampler):
    prediction = peer.scheduler.config.prediction_type
    peer.scheduler = scheduler(prediction_type=prediction)
    if sampler == "dpmpp_2m":
        peer.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(
            peer.scheduler.config, timestep_spacing="trailing", final_sigmas_type="zero",
            lower_order_final=False,
        )  # fmt: skip
    return peer


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """kind → diffusers' pipeline, and ours of the folder that it wrote."""
    made = {}

    def get(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            peer = peer_pipeline(folder, kind)
            peer.save_pretrained(folder / "model")
            peer.set_progress_bar_config(disable=True)
            made[kind] = peer, Pipeline(folder / "model")
        return made[kind]

    return get


def noise(name, shape, channels_last=True):
    drawn = np.array(ldm.noise_of(SEED, f"sample/{name}", jnp.asarray(INDEX), shape))
    return drawn if channels_last else torch.from_numpy(drawn.transpose(0, 3, 1, 2).copy())


def apart(found, expected):
    expected = expected.permute(0, 2, 3, 1).numpy()
    assert found.shape == expected.shape
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def settings(sampler, **changes):
    return cfg.Sampling(
        sampler=sampler, steps=STEPS, guidance_scale=GUIDANCE, seed=SEED,
        **SAMPLERS[sampler] | changes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "sampler", "size"),
    [("sd1", "ddim", (16, 16)), ("sd1", "dpmpp_2m", (24, 40)), ("sd2", "ddim", (24, 40))],
)
def test_text_to_image(models, kind, sampler, size):
    peer, ours = models(kind)
    shape = ours.model.latent_shape_of(*size)
    start = noise("initial", shape, channels_last=False)
    common = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "latents": start}
    expected = with_scheduler(peer, sampler)(
        PROMPT, negative_prompt=NEGATIVE, height=size[0], width=size[1], output_type="latent",
        **common,
    ).images  # fmt: skip
    sampling = settings(sampler, height=size[0], width=size[1])
    found = ours.generate(
        [PROMPT], first_image=FIRST, sampling=sampling, negative=NEGATIVE, decode=False
    )
    assert apart(found, expected) <= CLOSE


@pytest.mark.parametrize(
    ("sampler", "steps"),
    [*(("ddim", steps) for steps in (7, 10, 30, 45)), ("plms", 30), ("euler", 45),
     ("heun", 7), ("dpmpp_2m", 30), ("unipc", 45)],
)  # fmt: skip
def test_step_counts_that_do_not_divide_the_schedule(models, sampler, steps):
    """With the folder's own list, 'leading' with an offset of 1, as each scheduler counts it."""
    peer, ours = models("shallow")
    peer.scheduler = LEADING[sampler].from_config(
        scheduler().config, timestep_spacing="leading", skip_prk_steps=True
    )
    start = noise("initial", ours.model.latent_shape_of(16, 16), channels_last=False)
    expected = peer(
        PROMPT, negative_prompt=NEGATIVE, height=16, width=16, num_inference_steps=steps,
        guidance_scale=GUIDANCE, latents=start, output_type="latent",
    ).images  # fmt: skip
    sampling = cfg.Sampling(
        sampler=sampler, spacing="leading", steps=steps, guidance_scale=GUIDANCE, seed=SEED,
        height=16, width=16,
    )  # fmt: skip
    found = ours.generate(
        [PROMPT], first_image=FIRST, sampling=sampling, negative=NEGATIVE, decode=False
    )
    assert apart(found, expected) <= CLOSE


def test_text_to_image_with_bert(models):
    peer, ours = models("bert")
    latents, decode = [], peer.vqvae.decode
    peer.vqvae.decode = lambda z: latents.append(z * peer.vqvae.config.scaling_factor) or decode(z)
    # The peer takes its first stage's factor for 8.
    peer(
        ["a b"], height=64, width=64, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        latents=noise("initial", (8, 8, 4), channels_last=False),
    )  # fmt: skip
    found = ours.generate(["a b"], first_image=FIRST, sampling=settings("ddim"), decode=False)
    assert apart(found, latents[0]) <= CLOSE


def test_odd_latents(models):
    peer, ours = models("sd1")
    x = np.random.default_rng(0).standard_normal((1, 9, 13, 4)).astype(np.float32)
    context = np.random.default_rng(1).standard_normal((1, 7, 64)).astype(np.float32)
    with torch.no_grad():
        expected = peer.unet(
            torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.tensor([801]),
            encoder_hidden_states=torch.from_numpy(context),
        ).sample  # fmt: skip
    condition = Condition(context=jnp.asarray(context))
    found = ours.model.network(ours.params, jnp.asarray(x), jnp.array([801]), condition)
    assert apart(np.asarray(found), expected) <= 1e-4


@pytest.fixture
def scripted(monkeypatch):
    """Makes diffusers' random tensors those that are given, one after the other."""

    def script(*tensors):
        remaining = list(tensors)

        def draw(shape, **_):
            tensor = remaining.pop(0)
            assert tuple(shape) == tuple(tensor.shape)
            return tensor

        from diffusers.models.autoencoders import vae
        from diffusers.pipelines.latent_diffusion import pipeline_latent_diffusion_superresolution
        from diffusers.pipelines.stable_diffusion import (
            pipeline_stable_diffusion_depth2img,
            pipeline_stable_diffusion_img2img,
            pipeline_stable_diffusion_inpaint,
            pipeline_stable_diffusion_upscale,
        )

        for module in (
            vae, pipeline_stable_diffusion_img2img, pipeline_stable_diffusion_inpaint,
            pipeline_stable_diffusion_upscale, pipeline_latent_diffusion_superresolution,
            pipeline_stable_diffusion_depth2img,
        ):  # fmt: skip
            monkeypatch.setattr(module, "randn_tensor", draw)
        return remaining

    return script


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def mask():
    white = np.zeros((16, 16), np.uint8)
    white[4:12, 6:] = 255
    return white


@pytest.mark.parametrize(
    ("sampler", "strength"), [("ddim", 0.3), ("dpmpp_2m", 0.75), ("ddim", 1.0)]
)
def test_image_to_image(models, scripted, image, sampler, strength):
    peer, ours = models("shallow")
    peer = diffusers.StableDiffusionImg2ImgPipeline(
        **peer.components, requires_safety_checker=False
    )
    peer.set_progress_bar_config(disable=True)
    shape = ours.model.latent_shape_of(16, 16)
    left = scripted(noise("image", shape, False), noise("initial", shape, False))
    expected = with_scheduler(peer, sampler)(
        PROMPT, Image.fromarray(image), strength=strength, num_inference_steps=STEPS,
        guidance_scale=GUIDANCE, output_type="latent",
    ).images  # fmt: skip
    assert not left
    sampling = settings(sampler, strength=strength)
    found = ours.generate(
        [PROMPT], first_image=FIRST, sampling=sampling, picture=Picture(image=image), decode=False
    )
    assert apart(found, expected) <= CLOSE


@pytest.mark.parametrize(
    ("kind", "strength", "sampler"),
    [
        ("shallow", 0.75, "dpmpp_2m"), ("shallow", 1.0, "ddim"), ("inpaint", 1.0, "dpmpp_2m"),
        ("inpaint", 0.5, "ddim"),
    ],
)  # fmt: skip
def test_inpainting(models, scripted, image, mask, kind, strength, sampler):
    peer, ours = models(kind)
    if kind == "shallow":
        peer = diffusers.StableDiffusionInpaintPipeline(
            **peer.components, requires_safety_checker=False
        )
        peer.set_progress_bar_config(disable=True)
    shape = ours.model.latent_shape_of(16, 16)
    drawn = {name: noise(name, shape, False) for name in ("image", "initial", "masked")}
    # In the order in which the peer asks; its 9 channels need no latents of the whole picture
    # where it starts from noise alone.
    names = ["initial", "masked"] if kind == "inpaint" and strength == 1 else [
        "image", "initial", "masked"
    ]  # fmt: skip
    scripted(*(drawn[name] for name in names))
    expected = with_scheduler(peer, sampler)(
        PROMPT, image=Image.fromarray(image), mask_image=Image.fromarray(mask), height=16,
        width=16, strength=strength, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        output_type="latent",
    ).images  # fmt: skip
    prepared = masks.prepare(image, mask, 16, 16)
    found = ours.generate(
        [PROMPT], first_image=FIRST, sampling=settings(sampler, strength=strength),
        picture=Picture(image=prepared.image, mask=prepared.mask), decode=False,
    )  # fmt: skip
    assert apart(found, expected) <= CLOSE


@pytest.fixture(scope="module")
def low_res():
    return np.random.default_rng(1).integers(0, 256, (12, 8, 3)).astype(np.uint8)


def pixels(image):
    return torch.from_numpy(image.astype(np.float32).transpose(2, 0, 1)[None] / 127.5 - 1)


def test_upscaling_with_text(models, scripted, low_res):
    """Both halves of guidance see the low-resolution picture with the same noise."""
    peer, ours = models("upscale")
    left = scripted(noise("low_res", (12, 8, 3), False), noise("initial", (12, 8, 4), False))
    expected = peer(
        PROMPT, pixels(low_res), negative_prompt=NEGATIVE, noise_level=30, output_type="latent",
        num_inference_steps=STEPS, guidance_scale=GUIDANCE,
    ).images  # fmt: skip
    assert not left
    shown = {"low_res": low_res, "noise_level": np.asarray(30, np.int32)}
    found = ours.generate(
        [PROMPT], first_image=FIRST, sampling=settings("ddim", height=24, width=16),
        negative=NEGATIVE, picture=Picture(shown=shown), decode=False,
    )  # fmt: skip
    assert apart(found, expected) <= CLOSE


def test_super_resolution(models, scripted, low_res):
    """The decoded picture too: its first stage has no scale, whatever its file says."""
    peer, ours = models("super resolution")
    scripted(noise("initial", (12, 8, 3), False))
    expected = peer(pixels(low_res), num_inference_steps=STEPS, eta=0.0, output_type="pt").images
    found = ours.generate(
        [None], first_image=FIRST, picture=Picture(shown={"low_res": low_res}),
        sampling=replace(settings("ddim", height=24, width=16), guidance_scale=1.0),
    )  # fmt: skip
    assert np.abs(found / 255 - expected.permute(0, 2, 3, 1).numpy()).max() < 0.6 / 255


@pytest.mark.parametrize(("sampler", "image_scale"), [("ddim", 1.5), ("dpmpp_2m", 1.0)])
def test_editing(models, image, sampler, image_scale):
    """The peer's unconditional picture is one of zero latents, its condition an unscaled mode."""
    peer, ours = models("edit")
    shape = ours.model.latent_shape_of(16, 16)
    expected = with_scheduler(peer, sampler)(
        PROMPT, Image.fromarray(image), negative_prompt=NEGATIVE, num_inference_steps=STEPS,
        guidance_scale=GUIDANCE, image_guidance_scale=image_scale, output_type="latent",
        latents=noise("initial", shape, False),
    ).images  # fmt: skip
    shown = {"edit_image": image, "edit_given": np.asarray(1, np.int32)}
    sampling = settings(sampler, height=16, width=16, image_guidance_scale=image_scale)
    found = ours.generate(
        [PROMPT], first_image=FIRST, sampling=sampling, negative=NEGATIVE,
        picture=Picture(shown=shown), decode=False,
    )  # fmt: skip
    assert apart(found, expected) <= CLOSE


@pytest.mark.parametrize(("sampler", "strength"), [("ddim", 0.6), ("dpmpp_2m", 1.0)])
def test_depth_to_image(models, scripted, image, tmp_path, sampler, strength):
    """From a file of another size than the picture, resized as the peer resizes it."""
    peer, ours = models("depth")
    shape = ours.model.latent_shape_of(16, 16)
    left = scripted(noise("image", shape, False), noise("initial", shape, False))
    depth = np.random.default_rng(2).uniform(100, 4000, (11, 23)).astype(np.float32)
    expected = with_scheduler(peer, sampler)(
        PROMPT, Image.fromarray(image), depth_map=torch.from_numpy(depth[None]),
        negative_prompt=NEGATIVE, strength=strength, num_inference_steps=STEPS,
        guidance_scale=GUIDANCE, output_type="latent",
    ).images  # fmt: skip
    assert not left
    np.save(tmp_path / "depth.npy", depth)
    files = read_shown(ours.config, cfg.ConditionFiles(depth=tmp_path / "depth.npy"))
    picture = Picture(image=image, shown=files.scaled(ours.config, (16, 16)).inputs)
    found = ours.generate(
        [PROMPT], first_image=FIRST, sampling=settings(sampler, strength=strength),
        negative=NEGATIVE, picture=picture, decode=False,
    )  # fmt: skip
    assert apart(found, expected) <= CLOSE
