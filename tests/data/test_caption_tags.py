import collections

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.data.caption_tags import changed_tags
from ldm_jax.data.random_stream import RandomStream

CAPTION = "a sks dog,  running ,, red, blue,green "


def changed(how, caption=CAPTION, count=300):
    return [changed_tags(caption, how, RandomStream(0, i, "tags")) for i in range(count)]


def test_nothing_is_changed_but_spaces_where_nothing_is_asked_for():
    how = cfg.CaptionTags(shuffle=False)
    assert set(changed(how)) == {"a sks dog, running, red, blue, green"}
    assert set(changed(cfg.CaptionTags(), " , ")) == {""}


def test_tags_are_shuffled_behind_those_that_are_kept():
    found = [one.split(", ") for one in changed(cfg.CaptionTags(keep_first=2))]
    assert all(one[:2] == ["a sks dog", "running"] for one in found)
    orders = collections.Counter(tuple(one[2:]) for one in found)
    assert len(orders) == 6 and all(set(order) == {"red", "blue", "green"} for order in orders)
    assert found == [one.split(", ") for one in changed(cfg.CaptionTags(keep_first=2))]


def test_tags_are_left_out_each_by_itself():
    found = changed(cfg.CaptionTags(shuffle=False, dropout=0.25, keep_first=1))
    for tag in ("running", "red", "blue", "green"):
        share = np.mean([tag in one for one in found])
        assert abs(share - 0.75) < 3 * (0.75 * 0.25 / 300) ** 0.5
    assert all(one.startswith("a sks dog") for one in found)
    assert set(changed(cfg.CaptionTags(dropout=1.0))) == {""}


def test_what_stands_before_a_mark_is_kept_in_its_place():
    how = cfg.CaptionTags(dropout=1.0, keep_first=1, keep_before="|||")
    assert set(changed(how, "sks dog, running ||| red, blue")) == {"sks dog, running"}
    assert set(changed(how)) == {"a sks dog"}, "no mark: the first ones"
