"""Drawing with a trained model: an image depends on what it was asked for, and on nothing else."""

import shutil
from collections import Counter
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.generation import class_images, defaults
from ldm_jax.generation.conditions import Picture
from ldm_jax.generation.pipeline import Drawn, Pipeline, image_numbers
from ldm_jax.generation.programs import NonFiniteError, SamplerRun
from ldm_jax.generation.resolve import resolve_request
from ldm_jax.images.grid import save_png
from ldm_jax.images.picture_files import read_picture
from ldm_jax.models.pixels import to_pixels

LEFT, RIGHT = slice(8), slice(8, 16)
advance = SamplerRun.advance
FAST = cfg.Sampling(steps=3, batch_size=4, guidance_scale=2.0)
RED, BLUE = "a red three alone", "a blue seven above a green one"


@pytest.fixture(scope="module")
def pipeline(trained_text2img):
    return Pipeline(trained_text2img)


@pytest.fixture(scope="module")
def draw(pipeline):
    """`draw(conditions, first, **changes of the settings)`, from prompt `first` on."""

    def images(conditions, first=0, negative=None, **changes):
        sampling = replace(FAST, **changes)
        return pipeline.generate(
            conditions, first_prompt=first, sampling=sampling, negative=negative
        )

    return images


@pytest.fixture(scope="module")
def four(draw):
    """Prompts 0 to 3 of seed 0."""
    return draw([RED, BLUE, RED, BLUE])


def test_images_are_pictures_of_the_training_size(four):
    assert four.shape == (4, 16, 16, 3) and four.dtype == np.uint8
    assert len(np.unique(four)) > 50
    assert len({image.tobytes() for image in four}) == 4


def test_an_image_does_not_depend_on_how_many_or_which_others_are_drawn(draw, four):
    np.testing.assert_array_equal(draw([BLUE], 1)[0], four[1])
    others = draw([BLUE, RED, BLUE, None, RED], 1)
    np.testing.assert_array_equal(others[:3], four[1:])


def test_pictures_are_numbered_by_prompt_and_image(pipeline, four):
    index = image_numbers(2, 3, first_prompt=5, first_image=7)
    assert index.tolist() == [p * 65536 + j for p in (5, 6) for j in (7, 8, 9)]
    with pytest.raises(cfg.ConfigError, match="at most 65536 of each"):
        image_numbers(1, 65536, first_image=1)
    more = pipeline.generate([RED, BLUE], num=3, sampling=FAST)
    np.testing.assert_array_equal(more[[0, 3]], four[:2])
    last = pipeline.generate([BLUE], first_prompt=1, first_image=2, sampling=FAST)
    np.testing.assert_array_equal(last[0], more[5])
    assert len({image.tobytes() for image in more}) == 6


@pytest.mark.parametrize("count", [1, 2])
def test_an_image_hardly_depends_on_the_number_of_devices(trained_text2img, pipeline, count):
    # The fixture has eight. Fewer are another program, as with other batch sizes below.
    conditions, sampling = [RED, BLUE] * 4, replace(FAST, batch_size=8)
    fewer = Pipeline(trained_text2img, devices=jax.devices()[:count])
    of_eight = pipeline.generate(conditions, sampling=sampling).astype(int)
    difference = np.abs(fewer.generate(conditions, sampling=sampling) - of_eight)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_an_image_hardly_depends_on_the_batch_size(draw, four):
    # Other sizes are other programs, which add up in another order: roundings of 1e-6 or so,
    # after which a value may fall on the other side of a half when it becomes an integer.
    of_two = draw([RED, BLUE, RED], batch_size=2)
    difference = np.abs(of_two.astype(int) - four[:3].astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_settings_that_are_numbers_matter_without_a_new_program(pipeline, draw, four):
    programs = len(pipeline.programs.compiled)
    samplers = _samplers(pipeline)
    for changed in (
        draw([RED], steps=4),
        draw([RED], seed=1),
        draw([BLUE]),
        draw([RED], negative=BLUE),
        draw([RED], guidance_scale=4.0),
        draw([RED], 1),
    ):
        assert np.abs(changed[0].astype(int) - four[0]).max() > 1
    np.testing.assert_array_equal(draw([RED], negative="")[0], four[0])
    assert len(pipeline.programs.compiled) == programs
    assert _samplers(pipeline) == samplers


def _samplers(pipeline):
    """How often each sampler was compiled."""
    compiled = pipeline.programs.compiled
    return {key: program._cache_size() for key, program in compiled.items() if key[0] == "draw"}


def test_ddpm_is_noisy_and_repeatable(draw, four):
    first = draw([RED, BLUE], sampler="ddpm")
    np.testing.assert_array_equal(draw([None, BLUE], sampler="ddpm")[1], first[1])
    assert np.abs(first.astype(int) - four[:2]).max() > 1


def test_progress_is_told_and_weights_can_be_chosen(trained_text2img, four):
    raw, told = Pipeline(trained_text2img, weights="raw"), []
    images = raw.generate([RED] * 6, sampling=FAST, progress=told.append)
    assert told == [4, 2]
    assert np.abs(images[0].astype(int) - four[0]).max() > 1
    assert raw.origin["step"] == 24


def test_what_is_the_same_for_all_batches_is_computed_once(pipeline, monkeypatch):
    calls = Counter()

    def count(owner, name):
        function = getattr(owner, name)

        def counted(*arguments, **more):
            calls[name] += 1
            return function(*arguments, **more)

        monkeypatch.setattr(owner, name, counted)

    for owner, names in (
        (defaults, ("resolve_sampling", "levels", "guidance_numbers")),
        (type(pipeline.tokenizer), ("encode",)),
        (pipeline.programs, ("draw",)),
    ):
        for name in names:
            count(owner, name)
    placed = len(pipeline.programs._placed)
    settings = {"prompt": [RED, BLUE], "num": 3, "steps": 3, "batch_size": 4, "guidance_scale": 2}
    request = cfg.Request.from_dict(settings, model=pipeline.choice)
    drawn = [*pipeline.run(resolve_request(pipeline, request).plan)]
    assert [len(batch.rows) for batch in drawn] == [4, 2] and calls["draw"] == 2
    assert (calls["resolve_sampling"], calls["levels"], calls["guidance_numbers"]) == (1, 1, 1)
    # The prompts together with what is led away from.
    assert calls["encode"] == 1
    assert len(pipeline.programs._placed) <= placed + 1


def test_conditions_that_the_model_does_not_know_are_refused(pipeline):
    for conditions, complaint in (
        (["a mauve three alone"], "mauve"),
        ([3], r"conditioned on captions \(--prompt\), not on classes \(--classes\): 3"),
    ):
        with pytest.raises(ValueError, match=complaint):
            pipeline.plan(conditions, pipeline.resolve_sampling(FAST))
    pipeline.plan([None, "", RED], pipeline.resolve_sampling(FAST))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"steps": 0}, "steps is 0; it must be .*of at least 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be .*of at least 1"),
        ({"eta": -0.5}, "eta is -0.5; it must be .*of at least 0"),
        ({"eta": float("inf")}, "eta is inf"),
        ({"seed": 2**32}, "seed is 4294967296; it must be .*at most 4294967295"),
        ({"sampler": "ddip"}, r"sampler is 'ddip'; it must be one of ddim, ddpm"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan; it must be .*a number"),
        ({"strength": 1.5}, "strength is 1.5; it must be .*at most 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, complaint):
    with pytest.raises(cfg.ConfigError, match=complaint):
        replace(FAST, **change)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sampler": "ddpm", "eta": 0.5}, "eta is 0.5, but sampler 'ddpm' has none"),
        ({"width": 17}, "width is 17; for this model it must be a multiple of 2"),
        ({"strength": 0.5}, "strength is 0.5, but there is no picture to start from"),
    ],
)
def test_settings_that_this_model_cannot_have_are_refused(draw, change, complaint):
    with pytest.raises(cfg.ConfigError, match=complaint):
        draw([RED], **change)


def test_a_picture_that_does_not_fit_is_refused(pipeline):
    image = np.zeros((16, 16, 3), np.uint8)
    for picture, complaint in (
        (Picture(image=image[:8]), "the image has 8x16 pixels, but 16x16 are drawn"),
        (Picture(mask=np.ones((16, 16), np.float32)), "a mask, but no picture"),
        (Picture(noise=np.zeros((1, 4, 4, 4), np.float32)), r"it must be \(1, 8, 8, 4\)"),
    ):
        with pytest.raises(cfg.ConfigError, match=complaint):
            pipeline.generate([RED], sampling=FAST, picture=picture)


@pytest.fixture(scope="module")
def image(four):
    """A picture that the model drew itself."""
    return four[1]


def far(a, b):
    return np.abs(a.astype(int) - b.astype(int)).mean()


def test_a_picture_is_kept_the_more_the_less_strength(pipeline, image):
    def drawn(strength):
        sampling = replace(FAST, steps=4, strength=strength)
        return pipeline.generate([RED], sampling=sampling, picture=Picture(image=image))[0]

    # Nothing is left of the way at 0: what the autoencoder makes of the picture.
    reconstruction = drawn(0.0)
    distances = [far(drawn(strength), reconstruction) for strength in (0.25, 0.5, 1.0)]
    assert 0 < distances[0] < distances[1] < distances[2]


def test_around_a_mask_the_picture_is_kept(pipeline, image):
    mask = np.zeros((16, 16), np.float32)
    mask[:, 8:] = 1
    reconstruction = pipeline.generate(
        [RED], sampling=replace(FAST, strength=0.0), picture=Picture(image=image)
    )[0]
    painted = pipeline.generate([BLUE], sampling=FAST, picture=Picture(image=image, mask=mask))[0]
    # The latents are kept exactly, but the decoder's norms see the whole picture.
    kept, new = (far(painted[:, part], reconstruction[:, part]) for part in (LEFT, RIGHT))
    assert kept < 0.7 * new


def test_starting_noise_can_be_given(pipeline, draw, four):
    noise = np.random.default_rng(0).standard_normal((2, 8, 8, 4)).astype(np.float32)
    given = pipeline.generate([RED, RED], sampling=FAST, picture=Picture(noise=noise))
    again = pipeline.generate(
        [RED], sampling=replace(FAST, seed=9), picture=Picture(noise=noise[1:])
    )
    # A deterministic solver has no other randomness.
    np.testing.assert_array_equal(again[0], given[1])
    assert far(given[0], given[1]) > 1 and far(given[0], four[0]) > 1


def test_pictures_of_other_sizes_and_in_tiles(draw):
    large = draw([RED], height=24, width=40)
    assert large.shape == (1, 24, 40, 3)
    np.testing.assert_allclose(draw([RED], height=24, width=40, tile=64)[0], large[0], atol=1)


def test_every_sampler_draws(draw, four):
    same = {"spacing": "trailing", "steps": 3}
    np.testing.assert_allclose(draw([RED], sampler="euler", **same)[0], four[0], atol=1)
    for sampler in ("ddpm", "plms", "euler_a", "heun", "dpmpp_2m"):
        assert far(draw([RED], sampler=sampler, **same)[0], four[0]) > 0.5, sampler


def test_values_that_are_not_finite_are_traced_to_their_network(trained_text2img):
    broken = Pipeline(trained_text2img)
    broken.params["unet"]["conv_in"]["bias"] = np.full(16, np.nan, np.float32)
    with pytest.raises(NonFiniteError, match="the U-Net gave values that are not finite"):
        broken.generate([RED], sampling=FAST)


def test_too_many_steps_are_refused(draw):
    with pytest.raises(ValueError, match="101"):
        draw([RED], steps=101)


def test_what_is_no_model_is_refused(trained_autoencoder, trained_text2img, tmp_path):
    with pytest.raises(cfg.ConfigError, match="holds a first stage alone, not a diffusion model"):
        Pipeline(trained_autoencoder)
    with pytest.raises(ValueError, match="is not a model: it has neither"):
        Pipeline(tmp_path)
    untrained = tmp_path / "untrained"
    ignore = shutil.ignore_patterns("checkpoints")
    shutil.copytree(trained_text2img, untrained, ignore=ignore)
    with pytest.raises(FileNotFoundError, match="has no checkpoint"):
        Pipeline(untrained)
    damaged = tmp_path / "damaged"
    shutil.copytree(trained_text2img, damaged)
    weights = damaged / "first_stage" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(
        ValueError, match=r"has changed since checkpoint 24 was saved: .*weights\.safetensors"
    ):
        Pipeline(damaged)


def test_latents_can_be_decoded_later(draw, pipeline, four):
    latents = pipeline.generate([RED, BLUE, RED, BLUE], sampling=FAST, decode=False)
    assert latents.shape == (4, 8, 8, 4)
    np.testing.assert_array_equal(pipeline.decode(latents), four)


def test_previews_lead_to_the_picture_and_do_not_change_it(pipeline, four):
    sampling = replace(FAST, steps=5)
    (plain,) = pipeline.draw([RED, BLUE], sampling=sampling)
    decoders = [key for key in pipeline.programs.compiled if key[0] == "decode"]
    (seen,) = pipeline.draw([RED, BLUE], sampling=sampling, previews=3)
    assert plain.previews is None and seen.previews.shape == (2, 3, 16, 16, 3)
    # Another program, and the same picture up to its rounding.
    np.testing.assert_allclose(seen.images.astype(int), plain.images.astype(int), atol=1)
    # DDIM's last step ends on its prediction.
    np.testing.assert_allclose(seen.previews[:, -1].astype(int), seen.images.astype(int), atol=1)
    assert far(seen.previews[:, 0], seen.images) > far(seen.previews[:, 1], seen.images) > 0.5
    assert decoders == [key for key in pipeline.programs.compiled if key[0] == "decode"]


def test_a_drawing_is_watched_step_by_step_and_stays_the_same(pipeline, four):
    conditions, sampling = [RED, BLUE, RED, BLUE, RED], replace(FAST, steps=5)
    whole = pipeline.generate(conditions, sampling=sampling)
    plan = pipeline.plan(conditions, pipeline.resolve_sampling(sampling))
    moments, images, previews = [], [], []
    for event in pipeline.watch(plan, seconds=0.0):
        if isinstance(event, Drawn):
            images.append(event.images)
            continue
        moments.append(event)
        if event.steps_done in (1, 4):
            previews.append(event.preview())
    np.testing.assert_array_equal(np.concatenate(images), whole)
    # Two batches, of four and of one, which say what they do before and after each step.
    assert [m.steps_done for m in moments] == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10]
    assert [m.pictures_done for m in moments] == [0] * 6 + [4] * 6
    assert [len(m.rows) for m in moments] == [4] * 6 + [1] * 6
    assert {(m.steps, m.pictures) for m in moments} == {(10, 5)}
    assert [m.stage for m in moments[-6:]] == ["drawing"] * 5 + ["decoding"]
    assert all(m.seconds_left > 0 for m in moments[-3:])
    early, late = previews
    assert early.shape == late.shape == (4, 16, 16, 3)
    assert far(early, whole[:4]) > far(late, whole[:4])


def test_who_watches_no_longer_stops_the_drawing(pipeline, monkeypatch):
    plan = pipeline.plan([RED] * 8, pipeline.resolve_sampling(replace(FAST, steps=5)))
    steps = []
    monkeypatch.setattr(
        SamplerRun, "advance", lambda run, count: steps.append(count) or advance(run, count)
    )
    events = pipeline.watch(plan, seconds=0.0)
    assert next(event for event in events if event.steps_done == 2).steps == 10
    events.close()
    assert steps == [1, 1]


def test_a_picture_is_drawn_again_from_its_noise(pipeline, image):
    sampling = replace(FAST, steps=50, guidance_scale=1.0)
    noise = pipeline.invert(np.stack([image] * 2), [RED, BLUE], sampling=sampling)
    assert noise.shape == (2, 8, 8, 4)
    again = pipeline.generate(
        [RED, BLUE], sampling=sampling, picture=Picture(noise=noise), decode=False
    )
    pixels = to_pixels(jnp.asarray(image[None]))
    mean = pipeline.model.encode(pipeline.frozen, pixels, jnp.zeros((1, 8, 8, 4)))
    # Of first order in 50 steps, relative to latents of about unit variance.
    np.testing.assert_allclose(again, np.repeat(mean, 2, axis=0), atol=0.1)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"guidance_scale": 2.0}, "leave out guidance of every kind"),
        ({"threshold": 0.9}, "leave out guidance of every kind"),
        ({"sampler": "euler_a"}, "sampler 'euler_a' with eta 1.0 .* adds random noise"),
        ({"strength": 0.5}, "there is no picture to start from"),
        ({"height": 8}, r"the images have shape \(1, 16, 16, 3\); .* must be \(1, 8, 16, 3\)"),
    ],
)
def test_what_cannot_be_inverted_is_refused(pipeline, image, change, complaint):
    sampling = replace(FAST, **({"guidance_scale": 1.0} | change))
    with pytest.raises(cfg.ConfigError, match=complaint):
        pipeline.invert(image[None], [RED], sampling=sampling)


def test_the_threshold_matters_and_another_value_compiles_nothing(pipeline, draw, four):
    # So strong that x0 leaves three standard deviations, below which nothing is cut.
    strong = partial(draw, [RED, BLUE], guidance_scale=100.0)
    low = strong(threshold=0.5)
    compiled = {key: program._cache_size() for key, program in pipeline.programs.compiled.items()}
    high = strong(threshold=0.995)
    np.testing.assert_array_equal(strong(threshold=0.5), low)
    assert compiled == {
        key: program._cache_size() for key, program in pipeline.programs.compiled.items()
    }
    assert far(low, high) > 0.5 and far(high, strong()) > 0.5


@pytest.mark.parametrize("sampler", ["heun", "dpm2", "dpmpp_2s_a", "dpmpp_sde", "plms"])
def test_resampling_needs_a_sampler_that_evaluates_once_a_step(pipeline, sampler):
    with pytest.raises(cfg.ConfigError, match="evaluates more than once a step"):
        pipeline.resolve_sampling(replace(FAST, sampler=sampler, resample=2))
    with pytest.raises(cfg.ConfigError, match="takes none; choose ddpm"):
        pipeline.resolve_sampling(
            replace(FAST, sampler=sampler, classifier_form="mean", classifier_scale=1.0)
        )


def test_noisy_samplers_of_one_evaluation_have_both(pipeline):
    for sampler in ("ddpm", "ddpm_beta", "euler_a", "dpmpp_2m_sde", "reverse_diffusion"):
        pipeline.resolve_sampling(
            replace(FAST, sampler=sampler, resample=2, classifier_form="mean", classifier_scale=1.0)
        )
    with pytest.raises(cfg.ConfigError, match="with corrector evaluates more than once"):
        pipeline.resolve_sampling(replace(FAST, sampler="ddpm", corrector="langevin", resample=2))


def test_missing_pictures_of_classes_are_drawn_once(pipeline, draw, tmp_path, monkeypatch):
    monkeypatch.setattr(class_images, "STEPS", FAST.steps)
    monkeypatch.setattr(class_images, "AT_ONCE", FAST.batch_size)
    source = cfg.DreamBooth(
        path="x", class_path=str(tmp_path), class_prompts=(RED, BLUE), class_images=3
    )
    own = tmp_path / f"4_{RED}"
    own.mkdir()
    save_png(own / "mine.png", np.zeros((16, 16, 3), np.uint8))
    told = []
    missing = {RED: (own, 2), BLUE: (tmp_path / f"1_{BLUE}", 3)}
    assert class_images.missing_class_images(source) == missing
    class_images.draw_class_images(pipeline, source, (16, 16), 0, told.append)
    assert told == [2, 3] and class_images.missing_class_images(source) == {}
    drawn = sorted((tmp_path / f"1_{BLUE}").iterdir())
    usual = replace(FAST, guidance_scale=None)
    expected = pipeline.generate([BLUE], sampling=usual, num=3)
    np.testing.assert_array_equal(np.stack([read_picture(path) for path in drawn]), expected)
    # Going on draws what is missing alone, as it would have been.
    drawn[2].unlink()
    class_images.draw_class_images(pipeline, source, (16, 16), 0, told.append)
    np.testing.assert_array_equal(read_picture(drawn[2]), expected[2])
