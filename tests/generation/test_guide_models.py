"""Guidance by other models, drawn through the pipeline: numbers compile nothing, misfits say so."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.convert.native import read_workdir, write_native
from ldm_jax.generation.conditions import Picture
from ldm_jax.generation.guide_models import read_weak
from ldm_jax.generation.pipeline import Pipeline

FAST = cfg.Sampling(steps=3, batch_size=2, guidance_scale=3.0, sampler="ddpm")
RED = "a red three alone"
CLASSIFIER = cfg.Classifier(
    block_out_channels=(8,), attention=(False,), num_heads=(2,), norm_num_groups=4
)


def classifier_run(pictures, **changes):
    run = tiny.diffusion_run(pictures)
    return cfg.ClassifierRun(
        run.data, replace(CLASSIFIER, **changes), run.diffusion,
        replace(run.optim, accumulation=2), replace(run.loop, steps=2, validate_every=2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def classifier(pictures, trained_text2img, tmp_path_factory):
    """The work directory of a classifier, trained for two steps."""
    workdir = tmp_path_factory.mktemp("classifier")
    tiny.fit(classifier_run(pictures), workdir, first_stage=trained_text2img)
    return workdir


@pytest.fixture(scope="module")
def weakly_guided(trained_text2img):
    """The model beside an earlier checkpoint of itself."""
    earlier = sorted((trained_text2img / "checkpoints").iterdir(), key=lambda p: int(p.name))[0]
    return Pipeline(trained_text2img, weak_model=earlier)


def far(a, b):
    return np.abs(a.astype(int) - b.astype(int)).mean()


def test_new_numbers_draw_other_pictures_with_the_same_program(weakly_guided):
    first = replace(
        FAST, guidance_rescale=0.5, guidance_interval=(0.1, 50.0), threshold=0.9,
        autoguidance_scale=1.5, guidance_schedule="cosine",
    )  # fmt: skip
    before = weakly_guided.generate([RED], sampling=first)[0]
    (program,) = (p for key, p in weakly_guided.programs.compiled.items() if key[0] == "draw")
    for change in (
        {"guidance_rescale": 0.9}, {"guidance_interval": (0.5, 1.5)},
        {"autoguidance_scale": 9.0},
    ):  # fmt: skip
        other = weakly_guided.generate([RED], sampling=replace(first, **change))[0]
        assert far(before, other) > 0, change
    assert program._cache_size() == 1
    # Its parameters are on the devices once, beside the model's.
    (placed,) = weakly_guided.programs._placed.values()
    assert placed[2].keys() == {"weak"}


def test_a_weaker_model_may_be_a_folder(weakly_guided, trained_text2img, tmp_path):
    """Whose tokenizer lies in a folder too."""
    earlier = sorted((trained_text2img / "checkpoints").iterdir(), key=lambda p: int(p.name))[0]
    write_native(read_workdir(trained_text2img, step=int(earlier.name)), tmp_path / "weak")
    weak = read_weak(tmp_path / "weak", weakly_guided.config, trained_text2img / "tokenizer.json")
    tiny.same_bits(weak.params, weakly_guided.guide_models.weak.params)


def test_guidance_is_off_by_itself_where_autoguidance_is_on(weakly_guided):
    sampling = replace(FAST, guidance_scale=None, autoguidance_scale=2.0)
    assert weakly_guided.resolve_sampling(sampling).sampling.guidance_scale == 1


def test_a_scale_needs_its_model_and_the_model_has_a_usual_scale(weakly_guided):
    assert weakly_guided.resolve_sampling(FAST).sampling.autoguidance_scale == 2
    with pytest.raises(cfg.ConfigError, match="there is a scale of 1.0, but no classifier"):
        weakly_guided.generate([RED], sampling=replace(FAST, classifier_scale=1.0))


def test_a_model_that_would_guide_itself_is_refused(trained_text2img):
    newest = trained_text2img / "checkpoints" / "24"
    for itself in (trained_text2img, newest):
        with pytest.raises(cfg.ConfigError, match="has the same parameters as the model"):
            Pipeline(trained_text2img, weak_model=itself)


def test_classes_guide_an_unconditional_model(trained_text2img, classifier, monkeypatch):
    pipeline = Pipeline(trained_text2img, classifier=classifier)
    # Captions are no classes; what the model itself is told is not under test.
    monkeypatch.setattr(
        type(pipeline.guide_models), "labels",
        lambda self, wishes, condition: (np.asarray(wishes, np.int32), [None] * len(wishes)),
    )  # fmt: skip
    images = {
        (label, form): pipeline.generate(
            [label], sampling=replace(FAST, classifier_scale=20.0, classifier_form=form)
        )[0]
        for label in (3, 7)
        for form in ("eps", "mean")
    }
    assert far(images[3, "eps"], images[7, "eps"]) > 0.5
    assert far(images[3, "mean"], images[7, "mean"]) > 0.5
    with pytest.raises(ValueError, match=r"classes 0 to 9 \(--classes\), not 12"):
        pipeline.generate([12], sampling=replace(FAST, classifier_scale=1.0))


def test_guide_models_of_another_kind_are_refused(
    trained_text2img, trained_autoencoder, classifier
):
    for name, path, complaint in (
        ("weak_model", trained_autoencoder, "holds no diffusion model"),
        ("classifier", trained_autoencoder, "holds a AutoencoderRun; name the work directory"),
    ):
        with pytest.raises(cfg.ConfigError, match=complaint):
            Pipeline(trained_text2img, **{name: path})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"guidance_interval": (2.0, 1.0)}, "guidance_interval is .*two numbers.*, low < high"),
        ({"guidance_rescale": 1.5}, "guidance_rescale is 1.5; it must be .*at most 1"),
        ({"threshold": -1.0}, "threshold is -1.0; it must be .*above 0 and at most 1"),
        ({"resample": 0}, "resample is 0; it must be .*of at least 1 and at most 1000"),
        ({"classifier_form": "mode"}, "classifier_form is 'mode'; it must be one of eps, mean"),
        ({"guidance_schedule": "up"}, "guidance_schedule is 'up'; it must be one of constant"),
        ({"autoguidance_scale": float("nan")}, "autoguidance_scale is nan"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, complaint):
    with pytest.raises(cfg.ConfigError, match=complaint):
        replace(FAST, **change)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sampler": "heun", "resample": 2}, "sampler 'heun' without corrector evaluates"),
        (
            {"sampler": "ddim", "classifier_form": "mean", "classifier_scale": 1.0},
            "sampler 'ddim' without corrector takes none",
        ),
        ({"resample": 2}, r"resample is 2, which needs a mask"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(weakly_guided, change, complaint):
    sampling = replace(FAST, autoguidance_scale=2.0, **change)
    with pytest.raises(cfg.ConfigError, match=complaint):
        weakly_guided.generate([RED], sampling=sampling)


def test_painting_again_and_again(weakly_guided):
    mask = np.zeros((16, 16), np.float32)
    mask[:, 8:] = 1
    picture = Picture(image=np.full((16, 16, 3), 90, np.uint8), mask=mask)
    once, often = (
        weakly_guided.generate(
            [RED], sampling=replace(FAST, autoguidance_scale=2.0, resample=n), picture=picture
        )
        for n in (1, 3)
    )
    assert far(once[:, :, 8:], often[:, :, 8:]) > 0.5


def test_validation_tells_the_accuracy_by_level(classifier):
    for level in (0.125, 0.875):
        assert 0 <= tiny.losses(classifier, f"validation_accuracy_at_{level}")[2] <= 1
