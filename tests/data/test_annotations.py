import json

import numpy as np
import pytest

from ldm_jax.core.reading import FileFormatError
from ldm_jax.data.annotations import read_boxes, read_coco
from ldm_jax.data.sources import DataError


def _lines(tmp_path, *rows):
    path = tmp_path / "metadata.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


CAT = {"class": "cat", "box": [0.1, 0.25, 0.6, 1]}


def test_boxes_in_a_metadata_file(tmp_path):
    dog = {"class": "dog", "box": [0, 0, 1, 1], "group": True, "inside": True}
    path = _lines(
        tmp_path,
        {"file_name": "a/one.jpg", "text": "a cat and dogs", "boxes": [dog, CAT]},
        {"file_name": "two.jpg", "boxes": []},
    )
    read = read_boxes(path)
    assert read.class_names == ("cat", "dog") and {*read.objects} == {"a/one.jpg", "two.jpg"}
    one = read.objects["a/one.jpg"]
    np.testing.assert_allclose(one.boxes, [[0, 0, 1, 1], [0.1, 0.25, 0.6, 1]])
    assert one.classes.tolist() == [1, 0] and one.flags.tolist() == [0b1001, 0]
    assert read.objects["two.jpg"].boxes.shape == (0, 4)
    assert read_boxes(path, ["dog", "bird", "cat"]).objects["a/one.jpg"].classes.tolist() == [0, 2]
    with pytest.raises(FileFormatError, match="'a/one.jpg' has a box of the class 'dog'"):
        read_boxes(path, ["cat"])


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"boxes": []}, 'line 2 has no "file_name"'),
        ({"file_name": "a.jpg", "boxes": []}, "line 2 names 'a.jpg' for the second time"),
        ({"file_name": "b.jpg"}, r'line 2 has no list of "boxes"; write \[\]'),
        ({"file_name": "b.jpg", "boxes": [CAT, {"box": [0, 0, 1, 1]}]}, 'box 2 needs a "class"'),
        ({"file_name": "b.jpg", "boxes": [CAT | {"box": [10, 20, 90, 80]}]}, "for pixels give"),
        ({"file_name": "b.jpg", "boxes": [CAT | {"box": [0.5, 0, 0.2, 1]}]}, "smaller ones first"),
        ({"file_name": "b.jpg", "boxes": [CAT | {"crowd": True}]}, "only group, occluded"),
    ],
)
def test_malformed_lines_are_refused(tmp_path, row, complaint):
    with pytest.raises(FileFormatError, match=complaint):
        read_boxes(_lines(tmp_path, {"file_name": "a.jpg", "boxes": []}, row))


def _coco(path, **changes):
    whole = {
        "info": {"year": 2017},
        "categories": [{"id": 2, "name": "cat"}, {"id": 10, "name": "dog"},
                       {"id": 1, "name": "cow"}],
        "images": [{"id": 7, "file_name": "a.jpg", "width": 200, "height": 100},
                   {"id": 8, "file_name": "b.jpg", "width": 10, "height": 10}],
        "annotations": [
            {"image_id": 7, "category_id": 10, "bbox": [20.0, 50, 40, 60], "iscrowd": 1,
             "segmentation": [[0, 1, 2, 3]]},
            {"image_id": 7, "category_id": 2, "bbox": [0, 0, 200, 100], "iscrowd": 0},
        ],
    }  # fmt: skip
    path.write_text(json.dumps(whole | changes))
    return path


def test_annotations_of_coco(tmp_path):
    things = _coco(tmp_path / "instances.json")
    read = read_coco(things)
    assert read.class_names == ("cow", "dog", "cat")  # "1", "10", "2"
    np.testing.assert_allclose(
        read.objects["a.jpg"].boxes, [[0.5, 0.1, 1, 0.3], [0, 0, 1, 1]], rtol=1e-6
    )
    assert read.objects["a.jpg"].classes.tolist() == [1, 2]
    assert read.objects["a.jpg"].flags.tolist() == [1, 0]
    assert not read.objects["b.jpg"].classes.size
    rows = [{"image_id": 8, "category_id": n, "bbox": [0, 0, 5, 5]} for n in (92, 183)]
    categories = [{"id": 92, "name": "banner"}, {"id": 183, "name": "other"}]
    stuff = _coco(tmp_path / "stuff.json", categories=categories, annotations=rows)
    both = read_coco(things, stuff)
    assert both.class_names == ("cow", "dog", "cat", "banner")
    assert both.objects["b.jpg"].classes.tolist() == [3]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"images": None}, 'no list "images"'),
        ({"categories": [{"id": 1}]}, "entry 0 of \"categories\" .from 0. lacks 'name'"),
        ({"images": []}, "is of image 7, which it does not list"),
        ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1]}]}, "category 3"),
        ({"annotations": [{"image_id": 7, "category_id": 2, "bbox": [0, 0, 1]}]}, "left, top, wid"),
    ],
)
def test_malformed_annotations_are_refused(tmp_path, changes, complaint):
    with pytest.raises(FileFormatError, match=complaint):
        read_coco(_coco(tmp_path / "instances.json", **changes))


def test_files_that_contradict_each_other_are_refused(tmp_path):
    other = _coco(tmp_path / "b.json", categories=[{"id": 2, "name": "bird"}], annotations=[])
    with pytest.raises(DataError, match="says of 2 bird, another file cat"):
        read_coco(_coco(tmp_path / "a.json"), other)
