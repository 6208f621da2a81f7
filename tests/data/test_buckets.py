"""Aspect-ratio buckets."""

import collections
import dataclasses

import numpy as np
import pytest
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.data.buckets import BatchOrder, Bucket, check_buckets, in_buckets
from ldm_jax.data.loader import make_loader, validation_batches
from ldm_jax.data.sources import open_source

SMALL = cfg.Buckets(step=8, shortest=8, longest=32)


def test_the_sizes_are_those_that_others_train_in():
    sizes = cfg.Buckets().all_sizes((512, 512))
    # Widths from 256 to 1024 by 64, each with the greatest height within the area, and turned.
    assert len(sizes) == 17 and (512, 512) in sizes and (1024, 256) in sizes
    assert {(w, h) for h, w in sizes} == {*sizes}
    assert all(h * w <= 512 * 512 < (h + 64) * (w + 64) for h, w in sizes)
    assert SMALL.all_sizes((16, 16)) == ((24, 8), (32, 8), (16, 16), (8, 24), (8, 32))
    assert cfg.Buckets(sizes=((8, 24), (16, 8))).all_sizes((16, 16)) == ((16, 8), (8, 24))


def test_pictures_go_where_width_by_height_is_nearest():
    found = in_buckets(((32, 8), (16, 16), (8, 32)), [(10, 10), (10, 26), (10, 24), (40, 9)])
    assert [(one.sides, one.rows.tolist()) for one in found] == [
        ((32, 8), [3]), ((16, 16), [0, 2]), ((8, 32), [1])
    ]  # fmt: skip


@pytest.mark.parametrize("counts", [(10, 3, 1), (7,), (1, 1), (64, 5)])
def test_every_example_of_a_bucket_is_seen_as_often_and_buckets_in_proportion(counts):
    buckets = [Bucket((i + 1, 1), np.arange(count)) for i, count in enumerate(counts)]
    size, epochs = 4, 12
    order = BatchOrder(buckets, size, seed=3)
    places = [order.place(number) for number in range(sum(epochs * n // size for n in counts))]
    for bucket, count in enumerate(counts):
        firsts = [first for own, first in places if own == bucket]
        # One after the other without a gap, though epochs end within batches.
        assert sorted(firsts) == [size * i for i in range(epochs * count // size)]
    last = order[len(places) - 1]
    assert last.sides == buckets[places[-1][0]].sides and len(last.examples) == size


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures of three proportions, one of them stored on its side."""
    folder = tmp_path_factory.mktemp("proportions")
    for number, (height, width) in enumerate([(16, 60)] * 6 + [(40, 40)] * 8 + [(50, 20)] * 5):
        picture = Image.new("RGB", (width, height), (number, 0, 0))
        exif = Image.Exif()
        if number == 0:
            picture, exif = picture.transpose(Image.Transpose.ROTATE_90), exif
            exif[0x0112] = 6  # to be turned by 90 degrees clockwise
        picture.save(folder / f"{number:02}.png", exif=exif)
    source = cfg.ImageFolder(str(folder), validation_fraction=0.0, buckets=SMALL)
    return cfg.Data(source, image_size=16, batch_size=4)


def test_batches_are_of_one_size_and_can_be_taken_up_again(data):
    source = open_source(data, "train")
    assert "3 buckets (height x width: pictures): 24 x 8: 5, 16 x 16: 8, 8 x 32: 6" in source.found
    loader = make_loader(source, data, seed=1, train=True)
    batches = [next(loader) for _ in range(19)]  # four epochs
    shapes = collections.Counter(batch["image"].shape[1:3] for batch in batches)
    assert shapes == {(24, 8): 5, (16, 16): 8, (8, 32): 6}
    seen = collections.Counter(np.concatenate([b["image"][:, 0, 0, 0] for b in batches]).tolist())
    assert set(seen.values()) == {4} and len(seen) == 19
    assert np.concatenate([b["index"] for b in batches]).tolist() == list(range(76))
    state = make_loader(source, data, seed=1, train=True).get_state() | {"step": 7}
    later = make_loader(source, data, seed=1, train=True, rows=(1, 3))
    later.set_state(state)
    for batch in batches[7:9]:
        found = next(later)
        np.testing.assert_array_equal(found["image"], batch["image"][[1, 3]])
        np.testing.assert_array_equal(found["index"], batch["index"][[1, 3]])
    for one in (loader, later):
        one.close()


def test_validation_sees_all_sizes_always_in_the_same_way(data):
    source = open_source(data, "train")
    one, other = (validation_batches(source, data, 9) for _ in range(2))
    assert {batch["image"].shape[1:3] for batch in one} == {(24, 8), (16, 16), (8, 32)}
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])


def test_models_that_draw_one_size_are_refused():
    model = cfg.load("configs/digit_scenes_text2img.py").model(cfg.Autoencoder())
    with pytest.raises(cfg.ConfigError, match="drawn into a map of one size"):
        check_buckets([Bucket((16, 32), range(3))], model)
    plain = dataclasses.replace(
        model, conditioners=(), unet=dataclasses.replace(
            model.unet, context_dim=None, pooled_dim=None, concat_channels=0
        ),
    )  # fmt: skip
    with pytest.raises(cfg.ConfigError, match="buckets.*must be a multiple of .*buckets.step"):
        check_buckets([Bucket((16, 33), range(3))], plain)


def test_settings_that_cannot_be_are_refused(data):
    with pytest.raises(cfg.ConfigError, match="resize.*shorter_side with data.source.buckets"):
        dataclasses.replace(data.source, resize="none")
    with pytest.raises(cfg.ConfigError, match="buckets.step is 64; it must be at most 16"):
        cfg.Data(cfg.ImageFolder("x", buckets=cfg.Buckets()), image_size=16)
    with pytest.raises(cfg.ConfigError, match="diffusion models alone"):
        cfg.AutoencoderRun(data, cfg.Autoencoder())
