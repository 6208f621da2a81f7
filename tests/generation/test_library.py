"""Drawing from Python: the pictures that the command line draws, which say how."""

import numpy as np
import pytest
from PIL import Image

import ldm_jax
from ldm_jax import config as cfg
from ldm_jax.generation.library import FORMATS, Sample, captions_of
from ldm_jax.generation.resolve import with_own_batch
from ldm_jax.images.picture_text import read_written

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


@pytest.mark.parametrize(
    ("settings", "batch"),
    [({}, 1), ({"num": 3}, 3), ({"num": 20}, None), ({"batch_size": 4}, 4)],
)
def test_a_batch_is_no_larger_than_what_is_drawn_for_those_who_wait(model, settings, batch):
    prompts = PROMPTS[: 2 if settings.get("num") == 20 else 1]
    request = cfg.Request.from_dict({"prompt": prompts, **settings})
    assert with_own_batch(model.pipeline, request).sampling.batch_size == batch


def test_progress_comes_between_the_pictures(model, drawn):
    events = [*model.watch(PROMPTS, num=2, seed=3, steps=2, guidance_scale=2.0)]
    samples = [event for event in events if isinstance(event, Sample)]
    for sample, other in zip(samples, drawn, strict=True):
        np.testing.assert_array_equal(sample.array, other.array)
        assert sample.request == other.request and sample.text == other.text
    first = events[0]
    assert isinstance(first, ldm_jax.Progress) and ldm_jax.Sample is Sample
    assert str(first).partition(": ")[2].startswith("step 0 of 2, 0 of 4 pictures")


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
        ({"num": 0}, "num is 0"),
        ({"latents": np.zeros((1, 8, 8, 4))}, "^latents is of type ndarray; .* name of a file"),
        ({"init_image": Image.new("L", (2, 2))}, r"^init_image is of type Image; .* \(as a PNG\)"),
        ({"mask": "mask.png"}, "^mask needs init_image, the name of a file$"),
        ({"steps": np.zeros((2, 2))}, "^steps is of type ndarray; it must be a number"),
        ({"steps": object()}, "^steps is of type object; it must be a number"),
        ({"return_latents": "yes"}, "return_latents is 'yes'; it must be True or False"),
    ],
)
def test_what_cannot_be_is_refused(model, settings, complaint):
    with pytest.raises(cfg.ConfigError, match=complaint):
        model.draw(PROMPTS[0], **settings)
    with pytest.raises(cfg.ConfigError, match=complaint):
        model.stream(PROMPTS[0], **settings)  # without asking for a picture


def test_prompts_and_paths_of_another_type_are_refused():
    for prompt, complaint in (
        (None, "prompt is None; it must be a caption or"), (3, "prompt is 3; it must"),
        (b"a", "prompt is b'a'"), (["a", None], "prompt has None in it"),
    ):  # fmt: skip
        with pytest.raises(cfg.ConfigError, match=complaint):
            captions_of(prompt)
    for path in (None, 3, ""):
        with pytest.raises(TypeError, match=f"open\\({path!r}\\): name the file or folder"):
            ldm_jax.open(path)


def test_numbers_of_numpy_are_numbers(model):
    plain = {"seed": 7, "num": 2, "guidance_scale": 1.5, "sigmas": [4.0, 0.5], "tile": 64}
    same = {"seed": np.uint32(7), "num": np.array(2), "guidance_scale": np.float32(1.5),
            "sigmas": np.array([4.0, 0.5]), "tile": np.int64(64)}  # fmt: skip
    one, other = (model._request(PROMPTS[:1], values) for values in (plain, same))
    assert one == other and str(one) == str(other)
    assert model._request([], {"classes": np.int64(3)}).classes == (3,)


def test_where_and_as_what_a_picture_cannot_be_saved(tmp_path):
    sample = Sample(np.zeros((2, 2, 3), np.uint8), cfg.Request(), {})
    for name, complaint in (
        ("x.xyz", r"x.xyz does not end in the name of a format: \.png, \.jpg"),
        ("x", "does not end in the name of a format"),
        ("nodir/x.png", "there is no folder .*nodir; make it first"),
        ("nodir/x.jpg", "there is no folder .*nodir; make it first"),
    ):
        with pytest.raises((OSError, ValueError), match=complaint):
            sample.save(tmp_path / name)
    for suffix in FORMATS:
        sample.save(tmp_path / f"x{suffix}")
    assert len(list(tmp_path.iterdir())) == len(FORMATS)


def test_choices_that_do_not_exist_are_refused(trained_text2img):
    with pytest.raises(cfg.ConfigError, match="'seed' is no choice of a model, which are model,"):
        ldm_jax.open(trained_text2img, seed=3)
