import json

import jax
import numpy as np
import pytest
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.data import sources
from ldm_jax.data.loader import make_loader, validation_batches


class Numbered:
    """Examples whose first pixel is their number."""

    class_names, has_captions, fingerprint = (), True, "numbers"
    has_images, box_classes, map_classes, beside = True, None, None, frozenset()

    def __init__(self, n):
        self.n, self.broken, self.found = n, {}, ""

    def __len__(self):
        return self.n

    def captions(self):
        return (str(index) for index in range(self.n))

    def labels(self):
        return iter(())

    def names(self):
        return iter(())

    def __getitem__(self, index):
        return {
            "image": np.full((16, 16, 3), index, np.uint8),
            "caption": str(index),
            "label": index,
        }


def _inputs(example, position, seed):
    return {"label": np.array([example["label"], 1], np.int32), "weight": np.float32(0.5)}


def _data(batch_size, **settings):
    return cfg.Data(image_size=16, batch_size=batch_size, **settings)


def _take(loader, n):
    batches = [next(loader) for _ in range(n)]
    loader.close()
    return batches


def _numbers(batches):
    return [b["image"][:, 0, 0, 0].tolist() for b in batches]


def _loader(n=10, batch_size=4, seed=0, train=True, **settings):
    return make_loader(Numbered(n), _data(batch_size), seed=seed, train=train, **settings)


def test_batches_hold_images_positions_and_inputs():
    first, second = _take(_loader(inputs=_inputs), 2)
    assert first.keys() == {"image", "index", "inputs"}
    assert first["image"].shape == (4, 16, 16, 3) and first["image"].dtype == np.uint8
    assert first["index"].dtype == np.uint32 and second["index"].tolist() == [4, 5, 6, 7]
    assert first["inputs"]["label"].dtype == np.int32
    np.testing.assert_array_equal(first["inputs"]["label"][:, 0], first["image"][:, 0, 0, 0])
    np.testing.assert_array_equal(first["inputs"]["weight"], np.full(4, 0.5, np.float32))
    assert "inputs" not in next(_loader())


def test_every_epoch_shows_every_example_once_in_a_new_order():
    shown = np.ravel(_numbers(_take(_loader(n=10, batch_size=4), 10))).reshape(4, 10)
    for epoch in shown:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in shown}) == 4
    other = np.ravel(_numbers(_take(_loader(seed=1), 5))).reshape(2, 10)
    assert not {tuple(e) for e in other} & {tuple(e) for e in shown}


@pytest.mark.parametrize("rows", [range(8), range(2, 4), (0, 1, 4, 5), (7,)], ids=str)
def test_wanted_rows_are_those_of_the_global_batch(rows):
    whole = _take(_loader(batch_size=8, inputs=_inputs), 4)
    some = _take(_loader(batch_size=8, inputs=_inputs, rows=rows), 4)
    for batch, part in zip(whole, some, strict=True):
        jax.tree.map(
            lambda one, all_: np.testing.assert_array_equal(one, all_[list(rows)]), part, batch
        )


@pytest.mark.parametrize("step", [0, 1, 2, 7])  # an epoch is two and a half steps
def test_resume_is_exact(step):
    whole = _take(_loader(), 10)
    loader = _loader()
    _take(loader, step)
    state = json.loads(json.dumps(loader.get_state()))
    resumed = _loader()
    next(resumed)  # an iterator that has begun elsewhere
    resumed.set_state(state)
    assert resumed.get_state() == state
    for batch, expected in zip(_take(resumed, 10 - step), whole[step:], strict=True):
        for key in expected:
            np.testing.assert_array_equal(batch[key], expected[key])


def test_a_position_serves_other_rows():
    loader = _loader()
    _take(loader, 3)
    half = _loader(rows=(2, 3))
    half.set_state(loader.get_state())
    assert _numbers([next(half)])[0] == _numbers([next(loader)])[0][2:]


def test_a_position_in_other_data_is_refused():
    state = _loader().get_state()
    with pytest.raises(sources.DataError, match="examples = 10, this run 11"):
        _loader(n=11).set_state(state)
    with pytest.raises(sources.DataError, match="seed = 0, this run 3"):
        _loader(seed=3).set_state(state)
    with pytest.raises(sources.DataError, match=r"has the keys \['step'\]"):
        _loader().set_state({"step": 1})


def test_rows_that_a_batch_has_not_are_errors():
    for rows in ((3, 4), (-1,), ()):
        with pytest.raises(sources.DataError, match=r"batch of 4; it has the rows 0 to 3"):
            _loader(rows=rows)
    with pytest.raises(sources.DataError, match="no examples"):
        _loader(n=0)


def test_without_training_the_order_is_the_sources():
    assert _numbers(_take(_loader(n=5, train=False), 2)) == [[0, 1, 2, 3], [4, 0, 1, 2]]


def test_validation_is_finite_and_shared():
    data = _data(4)
    batches = validation_batches(Numbered(11), data, 5, _inputs)
    assert _numbers(batches) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert batches[1]["index"].tolist() == [4, 5, 6, 7]
    assert len(validation_batches(Numbered(11), data, 1)) == 1
    half = validation_batches(Numbered(11), data, 2, rows=(0, 3))
    assert _numbers(half) == [[0, 3], [4, 7]]
    assert _numbers(validation_batches(Numbered(3), data, 2)) == [[0, 1, 2, 0]]


@pytest.fixture
def folder(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (6, 20, 24, 3), dtype=np.uint8)
    for i, image in enumerate(noise):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    return cfg.ImageFolder(path=str(tmp_path), crop="random", flip=True, validation_fraction=0.0)


def test_augmentation_is_random_but_a_function_of_the_position(folder):
    source, data = sources.open_source(cfg.Data(folder, 16), "train"), _data(6, source=folder)
    whole = _take(make_loader(source, data, seed=0, train=True), 3)
    assert whole[0]["image"].shape == (6, 16, 16, 3)
    resumed = make_loader(source, data, seed=0, train=True, rows=range(3, 6))
    resumed.set_state(resumed.get_state() | {"step": 2})
    np.testing.assert_array_equal(next(resumed)["image"], whole[2]["image"][3:])
    resumed.close()
    pictures = {image.tobytes() for batch in whole for image in batch["image"]}
    assert len(pictures) > 12  # of 18, from six files


def test_loader_processes_give_the_same_batches(folder):
    source = sources.open_source(cfg.Data(folder, 16), "train")
    threads = make_loader(source, _data(4, source=folder), seed=0, train=True)
    processes = make_loader(source, _data(4, source=folder, workers=1), seed=0, train=True)
    state = processes.get_state() | {"step": 5}
    processes.set_state(state)
    for expected, batch in zip(_take(threads, 8)[5:], _take(processes, 3), strict=True):
        np.testing.assert_array_equal(batch["image"], expected["image"])


def test_a_broken_image_reaches_the_user(folder, tmp_path):
    (tmp_path / "3.png").write_text("broken")
    source = sources.open_source(cfg.Data(folder, 16), "train")
    loader = make_loader(source, _data(6, source=folder), seed=0, train=True)
    with pytest.raises(sources.DataError, match=r"3\.png"):
        next(loader)
    loader.close()


def test_an_image_of_another_size_is_refused():
    loader = make_loader(Numbered(4), cfg.Data(image_size=32, batch_size=4), seed=0, train=True)
    with pytest.raises(sources.DataError, match=r"data.image_size is 32"):
        next(loader)
    loader.close()
