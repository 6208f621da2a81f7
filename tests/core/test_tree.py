"""Names, covering masks and strict merging of trees."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldm_jax.core import tree

PARAMS = {"unet": {"conv": {"kernel": jnp.zeros((3, 3, 4, 8)), "bias": jnp.zeros(8)}}}


def test_flatten_joins_levels_of_every_kind_and_unflatten_undoes_it():
    assert set(tree.flatten(PARAMS)) == {"unet/conv/kernel", "unet/conv/bias"}
    assert tree.unflatten(tree.flatten(PARAMS)) == PARAMS
    moments = tree.flatten(optax.adam(1e-3).init(PARAMS))
    assert {"0/count", "0/mu/unet/conv/kernel", "0/nu/unet/conv/bias"} <= set(moments)


def test_paths_that_collide_are_refused():
    with pytest.raises(tree.TreeError, match="a/b"):
        tree.flatten({"a": {"b": 1}, "a/b": 2})
    for order in (["a", "a/b"], ["a/b", "a"]):
        with pytest.raises(tree.TreeError, match="a"):
            tree.unflatten(dict.fromkeys(order, 1))


def test_mask_takes_the_first_rule_that_matches_the_whole_path():
    decays = tree.mask(PARAMS, [(r".*/kernel", True), (r"unet/.*", False)])
    assert tree.flatten(decays) == {"unet/conv/kernel": True, "unet/conv/bias": False}


def test_mask_names_at_most_ten_leaves_that_no_rule_covers():
    many = {f"layer{i:02}": {"kernel": 0, "alpha": 0} for i in range(12)}
    with pytest.raises(tree.TreeError, match=r"layer00/alpha, .*layer09/alpha and 2 more"):
        tree.mask(many, [(r".*/kernel", True)])


def test_merge_puts_the_leaves_into_the_structure_of_the_template():
    optimizer = optax.adam(1e-3)
    template = optimizer.init(PARAMS)
    loaded = {path: np.full(leaf.shape, 3, leaf.dtype)
              for path, leaf in tree.flatten(template).items()}  # fmt: skip
    merged = tree.merge(template, tree.unflatten(loaded))
    assert type(merged[0]) is type(template[0])
    assert merged[0].mu["unet"]["conv"]["bias"].tolist() == [3.0] * 8


def test_merge_names_what_does_not_fit():
    loaded = {"unet": {"conv": {"kernel": np.zeros((3, 3, 8, 4), np.float32)}, "extra": np.ones(1)}}
    with pytest.raises(tree.TreeError) as error:
        tree.merge(PARAMS, loaded)
    assert "1 missing: unet/conv/bias" in str(error.value)
    assert "1 unexpected: unet/extra" in str(error.value)
    wanted = "unet/conv/kernel (is float32[3,3,8,4], wanted float32[3,3,4,8])"
    assert wanted in str(error.value)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    with pytest.raises(tree.TreeError, match=r"bias \(is bfloat16\[8\], wanted float32\[8\]\)"):
        tree.merge(PARAMS, half)


def test_count():
    assert tree.count(PARAMS) == 3 * 3 * 4 * 8 + 8
