"""A model conditioned on all that a picture can be conditioned on: trained from a folder, drawn."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
from PIL import Image
from tiny_extractors import read_tiny

import ldm_jax
from ldm_jax import config as cfg
from ldm_jax.data import digit_scenes
from ldm_jax.evaluation.features import extractors

TOKENS = cfg.LayoutTokens(num_classes=10, max_objects=3, grid=8, vocab_size=80)
CONDITIONERS = (
    cfg.InpaintingConditioner(masks=cfg.Masks(all_masked=0.5)),
    cfg.LowResConditioner(cfg.BSRGAN(light=True), cfg.NoiseAugmentation()),
    cfg.ClassMapConditioner(cfg.ClassMaps(num_classes=11, ignore=None)),
    cfg.LayoutConditioner(TOKENS, digit_scenes.DIGITS, 8, 1, 2, 4, box_map_channels=2),
    cfg.EditConditioner(),
    cfg.DepthConditioner(),
)


@pytest.fixture(scope="module")
def trained(pictures, annotations, trained_autoencoder, tmp_path_factory):
    base = tiny.diffusion_run(pictures)
    # Held-out pictures would compile the sampler once more.
    data = tiny.annotated(tiny.data(pictures, validation=0.0), annotations)
    run = replace(
        base, data=replace(data, source=replace(data.source, flip=True), batch_size=8),
        conditioners=CONDITIONERS, objective=replace(base.objective, map_weight=0.0),
        unet=replace(
            base.unet, context_dim=None, pooled_dim=None, class_count=None, concat_channels=0
        ),
        loop=replace(base.loop, steps=1, sample_every=1, checkpoint_every=1),
        evaluation=cfg.DrawnScores(every=1, evaluator="adm", scores=("fid",), num=3),
    )  # fmt: skip
    workdir = tmp_path_factory.mktemp("all") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractors, "read_extractor", read_tiny)
        tiny.fit(run, workdir, first_stage=trained_autoencoder)
    return workdir


def test_what_is_conditioned_on_pictures_is_scored(trained):
    assert tiny.losses(trained, "adm/fid")[1] > 0


def test_training_shows_conditions_drawing_and_truth(trained):
    """Mask, small picture, class map, boxes, picture to edit and depth above what is drawn, the
    true picture below."""
    (path,) = (trained / "samples").glob("*_training.png")
    shown = np.asarray(Image.open(path))
    assert tiny.losses(trained)[1] > 0
    assert shown.shape[0] > 8 * 16 * (shown.shape[1] // (16 * 16)), "eight pictures of each"


def test_it_is_drawn_with_files(trained, pictures, annotations, tmp_path):
    model = ldm_jax.open(trained)
    name, other = (path.relative_to(pictures) for path in sorted(pictures.glob("*/*.png"))[:2])
    boxes = {"size": [16, 16], "boxes": [{"class": "three", "box": [4, 4, 12, 12]}]}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    Image.open(pictures / name).resize((8, 8)).save(tmp_path / "small.png")
    Image.new("L", (16, 16), 255).save(tmp_path / "mask.png")
    files = {
        "init_image": pictures / name, "mask": tmp_path / "mask.png", "mask_blur": 0.0,
        "low_res": tmp_path / "small.png", "class_map": annotations / "maps" / name,
        "boxes": tmp_path / "boxes.json", "edit_image": annotations / "edits" / name,
        "depth": annotations / "maps" / name,
    }  # fmt: skip
    how = {"steps": 2, "num": 2}
    first, second = model.draw(**files, **how)
    assert first.array.shape == (16, 16, 3) and (first.array != second.array).any()
    (again,) = model.draw(**files, **how | {"num": 1}, first_image=1)
    np.testing.assert_array_equal(again.array, second.array)
    for setting, value in (
        ("class_map", annotations / "maps" / other), ("noise_level", 300),
        ("edit_image", annotations / "edits" / other), ("depth", annotations / "maps" / other),
        ("image_guidance_scale", 3.0),
    ):  # fmt: skip
        (changed, *_) = model.draw(**files | {setting: value}, **how)
        assert (changed.array != first.array).any(), setting

    half = np.zeros((16, 16), np.uint8)
    half[:, 8:] = 255
    Image.fromarray(half).save(tmp_path / "half.png")
    (kept,) = model.draw(**files | {"mask": tmp_path / "half.png"}, **how | {"num": 1})
    original = np.asarray(Image.open(pictures / name))
    np.testing.assert_array_equal(kept.array[:, :8], original[:, :8])
    assert (kept.array[:, 8:] != original[:, 8:]).any()

    for setting in ("low_res", "class_map", "boxes", "edit_image", "depth"):
        rest = {k: v for k, v in files.items() if k != setting}
        with pytest.raises(ValueError, match=f"{setting} is missing: a file"):
            model.draw(**rest, **how)
    with pytest.raises(ValueError, match="only_masked paints a part of the picture, but low_res"):
        model.draw(**files, only_masked=0, **how)
    with pytest.raises(ValueError, match="noise_level is 350; this model was trained on levels 0"):
        model.draw(**files, noise_level=350, **how)
    with pytest.raises(ValueError, match="height is 32, but the file that .* makes it 16"):
        model.draw(**files, height=32, **how)
    with pytest.raises(ValueError, match="different sizes: low_res 32x32 and class_map 16x16"):
        model.draw(**files | {"low_res": pictures / name}, **how)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            {"boxes": [{"class": "cat", "box": [0, 0, 1, 1]}]},
            "box 1 has the class 'cat'; this model",
        ),
        ({"boxes": [{"class": "one", "box": [0, 0, 2, 1]}]}, "for pixels give"),
        ({"boxes": [{"class": "one", "box": [0, 0, 1, 1]}] * 4}, "places for 3"),
        ({}, 'no list of "boxes"'),
    ],
)
def test_bad_boxes_are_refused_in_a_line(content, complaint, tmp_path):
    from ldm_jax.generation.condition_files import read_boxes

    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=complaint):
        read_boxes(tmp_path / "boxes.json", cfg.find(CONDITIONERS, cfg.LayoutConditioner))
