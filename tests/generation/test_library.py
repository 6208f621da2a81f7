"""Drawing from Python: the pictures that the command line draws, which say how."""

import numpy as np
import pytest
from PIL import Image

import ldm_jax
from ldm_jax import config as cfg
from ldm_jax.images.sample_writer import read_written

PROMPTS = ["a red three alone", "a blue seven alone"]


@pytest.fixture(scope="module")
def model(trained_text2img):
    return ldm_jax.open(trained_text2img, weights="raw")


@pytest.fixture(scope="module")
def drawn(model):
    return model.draw(PROMPTS, num=2, seed=3, steps=2, guidance_scale=2.0)


def test_pictures_are_those_of_the_pipeline_prompt_by_prompt(model, drawn):
    assert model.inputs == ("caption",)
    sampling = cfg.Sampling(seed=3, steps=2, guidance_scale=2.0)
    expected = model.pipeline.generate(PROMPTS, num=2, sampling=sampling)
    np.testing.assert_array_equal([sample.array for sample in drawn], expected)
    assert [sample.request.prompt for sample in drawn] == [(p,) for p in PROMPTS for _ in (0, 1)]
    assert [sample.request.first_image for sample in drawn] == [0, 1, 0, 1]


def test_a_saved_picture_says_how_it_was_drawn(drawn, tmp_path):
    drawn[3].save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), drawn[3].array)
    assert read_written(tmp_path / "a.png").request == drawn[3].request
    drawn[3].save(tmp_path / "a.webp")
    with Image.open(tmp_path / "a.webp") as image:
        assert image.size == drawn[3].image.size


def test_one_of_many_is_drawn_alone_and_with_its_latents(model, drawn):
    request = drawn[3].request
    alone = model.stream(
        PROMPTS[1], seed=3, steps=2, guidance_scale=2.0, first_prompt=1, first_image=1,
        return_latents=True,
    )  # fmt: skip
    (sample,) = alone
    assert sample.request == request
    np.testing.assert_array_equal(sample.array, drawn[3].array)
    assert sample.latents.shape == model.pipeline.model.latent_shape
    assert drawn[3].latents is None


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"stepps": 2}, "'stepps' is no setting of a drawing; perhaps you meant 'steps'"),
        ({"weights": "ema"}, "weights is a choice of the model; give it to ldm_jax.open"),
        ({"classes": 3}, "give captions or classes, not both"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_what_cannot_be_is_refused(model, settings, complaint):
    with pytest.raises(cfg.ConfigError, match=complaint):
        model.draw(PROMPTS[0], **settings)


def test_choices_that_do_not_exist_are_refused(trained_text2img):
    with pytest.raises(cfg.ConfigError, match="'seed' is no choice of a model, which are model,"):
        ldm_jax.open(trained_text2img, seed=3)
