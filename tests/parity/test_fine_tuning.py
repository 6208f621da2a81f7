"""A pipeline of diffusers is trained on here, written again, and drawn from by diffusers.

The text encoder is frozen: what is written has its bits. Drawings agree as in `test_pipelines.py`.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import tiny  # noqa: E402
from tiny_pipelines import pipeline  # noqa: E402

from ldm_jax import config as cfg  # noqa: E402
from ldm_jax import latent_diffusion as ldm  # noqa: E402
from ldm_jax.convert import load  # noqa: E402
from ldm_jax.convert.diffusers.pipeline_folders import write_folder  # noqa: E402
from ldm_jax.generation.pipeline import Pipeline  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
STEPS = 3
SEED, SAMPLER_STEPS, GUIDANCE = 3, 5, 4.0


def test_a_model_of_diffusers_is_trained_on_and_drawn_by_diffusers(pictures, tmp_path):
    peer = pipeline(tmp_path, "sd1")
    peer.save_pretrained(tmp_path / "theirs")
    model = load(tmp_path / "theirs").config
    loop = dataclasses.replace(tiny.LOOP, steps=STEPS, checkpoint_every=STEPS, sample_every=0)
    run = cfg.DiffusionRun(
        tiny.data(pictures, validation=0.0), model.unet, model.conditioners, model.diffusion,
        cfg.Optim(learning_rate=1e-3, ema_decay=None), loop, train=("unet",),
    )  # fmt: skip
    with pytest.raises(
        cfg.ConfigError, match="train is .unet., so .* are not trained.* with --init=MODEL"
    ):
        tiny.fit(run, tmp_path / "run", first_stage=tmp_path / "theirs")
    state = tiny.fit(run, tmp_path / "run", init=tmp_path / "theirs")
    assert state.params.keys() == {"unet"}
    losses = tiny.losses(tmp_path / "run")
    assert len(losses) == STEPS and all(np.isfinite(list(losses.values())))

    write_folder(load(tmp_path / "run", weights="raw"), tmp_path / "ours")
    trained = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "ours")
    trained.set_progress_bar_config(disable=True)
    for part, same in (("text_encoder", True), ("vae", True), ("unet", False)):
        before, after = (getattr(p, part).state_dict() for p in (peer, trained))
        assert all(torch.equal(before[name], after[name]) for name in before) == same, part

    ours = Pipeline(tmp_path / "run", weights="raw")
    shape = ours.model.latent_shape_of(16, 16)
    noise = np.array(ldm.noise_of(SEED, "sample/initial", jnp.zeros(1, jnp.uint32), shape))
    expected = trained(
        "a red three", negative_prompt="blue", height=16, width=16, guidance_scale=GUIDANCE,
        num_inference_steps=SAMPLER_STEPS, output_type="latent",
        latents=torch.from_numpy(noise.transpose(0, 3, 1, 2).copy()),
    ).images  # fmt: skip
    sampling = cfg.Sampling(
        sampler="ddim", eta=0.0, steps=SAMPLER_STEPS, guidance_scale=GUIDANCE, seed=SEED,
        spacing="leading",
    )  # fmt: skip
    found = ours.generate(["a red three"], sampling=sampling, negative="blue", decode=False)
    expected = expected.permute(0, 2, 3, 1).numpy()
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-3
