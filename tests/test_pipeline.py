"""Drawing with a trained model: an image depends on what it was asked for, and on nothing else."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.pipeline import Pipeline, Sampling

FAST = Sampling(steps=3, batch_size=4, guidance_scale=2.0)
RED, BLUE = "a red three alone", "a blue seven above a green one"


@pytest.fixture(scope="module")
def pipeline(trained_text2img):
    return Pipeline(trained_text2img)


@pytest.fixture(scope="module")
def draw(pipeline):
    """`draw(conditions, index, **changes of the settings)`."""

    def images(conditions, index=None, negative=None, **changes):
        index = None if index is None else np.array(index, np.uint32)
        sampling = replace(FAST, **changes)
        return pipeline.generate(conditions, index, sampling=sampling, negative=negative)

    return images


@pytest.fixture(scope="module")
def four(draw):
    """Images 0 to 3 of seed 0."""
    return draw([RED, BLUE, RED, BLUE])


def test_images_are_pictures_of_the_training_size(four):
    assert four.shape == (4, 16, 16, 3) and four.dtype == np.uint8
    assert len(np.unique(four)) > 50
    assert len({image.tobytes() for image in four}) == 4


def test_an_image_does_not_depend_on_how_many_or_which_others_are_drawn(draw, four):
    np.testing.assert_array_equal(draw([BLUE], [1])[0], four[1])
    others = draw([BLUE, None, RED, RED, BLUE, RED], [3, 70000, 2, 5, 8, 0])
    np.testing.assert_array_equal(others[[0, 2, 5]], four[[3, 2, 0]])


def test_an_image_hardly_depends_on_the_batch_size(draw, four):
    # Other sizes are other programs, which add up in another order: roundings of 1e-6 or so,
    # after which a value may fall on the other side of a half when it becomes an integer.
    of_two = draw([RED, BLUE, RED], batch_size=2)
    difference = np.abs(of_two.astype(int) - four[:3].astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_seed_prompt_negative_prompt_and_guidance_matter_without_a_new_program(
    pipeline, draw, four
):
    programs = len(pipeline._programs)
    for changed in (
        draw([RED], seed=1),
        draw([BLUE]),
        draw([RED], negative=BLUE),
        draw([RED], guidance_scale=4.0),
        draw([RED], [1]),
    ):
        assert np.abs(changed[0].astype(int) - four[0]).max() > 1
    np.testing.assert_array_equal(draw([RED], negative="")[0], four[0])
    assert len(pipeline._programs) == programs


def test_ddpm_is_noisy_and_repeatable(draw, four):
    first = draw([RED, BLUE], sampler="ddpm")
    np.testing.assert_array_equal(draw([None, BLUE], sampler="ddpm")[1], first[1])
    assert np.abs(first.astype(int) - four[:2]).max() > 1


def test_progress_is_told_and_weights_can_be_chosen(trained_text2img, four):
    raw, told = Pipeline(trained_text2img, weights="raw"), []
    images = raw.generate([RED] * 6, sampling=FAST, progress=told.append)
    assert told == [4, 2]
    assert np.abs(images[0].astype(int) - four[0]).max() > 1
    assert raw.step == 24


def test_conditions_that_the_model_does_not_know_are_refused(pipeline):
    for conditions, complaint in (
        (["a mauve three alone"], "mauve"),
        ([3], r"conditioned on captions \(--prompt\), not on classes \(--classes\): 3"),
    ):
        with pytest.raises(ValueError, match=complaint):
            pipeline.check_conditions(conditions)
    pipeline.check_conditions([None, "", RED])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"steps": 0}, "steps is 0; it must be 1 or more"),
        ({"batch_size": 0}, "batch_size is 0; it must be 1 or more"),
        ({"eta": -0.5}, "eta is -0.5; it must be 0 or more, and finite"),
        ({"eta": float("inf")}, "eta is inf"),
        ({"seed": 2**32}, "seed is 4294967296; it must be between 0 and 4294967295"),
        ({"sampler": "unipc"}, r"sampler is unipc; it must be one of \('ddim', 'ddpm'"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan; it must be finite"),
        ({"sampler": "ddpm", "eta": 0.5}, "eta is 0.5, but sampler 'ddpm' has none"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, complaint):
    with pytest.raises(cfg.ConfigError, match=complaint):
        replace(FAST, **change)


def test_too_many_steps_are_refused(draw):
    with pytest.raises(ValueError, match="101"):
        draw([RED], steps=101)


def test_what_is_no_model_is_refused(trained_autoencoder, trained_text2img, tmp_path):
    with pytest.raises(cfg.ConfigError, match="AutoencoderRun, not a diffusion model"):
        Pipeline(trained_autoencoder)
    with pytest.raises(FileNotFoundError, match="is not a work directory"):
        Pipeline(tmp_path)
    untrained = tmp_path / "untrained"
    ignore = shutil.ignore_patterns("checkpoints")
    shutil.copytree(trained_text2img, untrained, ignore=ignore)
    with pytest.raises(FileNotFoundError, match="has no checkpoint"):
        Pipeline(untrained)
    weights = untrained / "first_stage" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"weights\.safetensors is damaged"):
        Pipeline(untrained)
