"""Each kind's ΔW against its closed form, in float64 by NumPy's loops over the pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_adapters import CONVOLVED, DENSE, Maker

from ldm_jax.adapters import kinds
from ldm_jax.adapters.dora import DoRA
from ldm_jax.adapters.kind import mapped
from ldm_jax.adapters.lora import LoRA
from ldm_jax.adapters.whole_differences import NormDifference

SHAPES = {"dense": (16, 12), "1x1": (16, 12, 1, 1), "3x3": (16, 12, 3, 3)}


def closed_form(one, weight):
    """What the kind adds to a weight [out, in, pixels], written out."""
    out, width, pixels = weight.shape
    scale = 1.0
    rank = getattr(one, "rank", None)
    if rank is not None and one.alpha is not None:
        scale = float(one.alpha) / rank

    def tucker(t, a, b):
        return np.stack([a.T @ t.reshape(*t.shape[:2], -1)[..., p] @ b for p in range(pixels)], -1)

    match one.name:
        case "lora" if one.mid is None:
            up, down = one.up.reshape(out, rank), one.down.reshape(rank, width, pixels)
            return scale * np.stack([up @ down[..., p] for p in range(pixels)], -1)
        case "lora":
            up, down = one.up.reshape(out, rank), one.down.reshape(rank, width)
            return scale * tucker(one.mid, up.T, down)
        case "loha" if one.t1 is None:
            change = (one.w1_a @ one.w1_b) * (one.w2_a @ one.w2_b)
            return scale * change.reshape(weight.shape)
        case "loha":
            first = tucker(one.t1, one.w1_a, one.w1_b)
            return scale * first * tucker(one.t2, one.w2_a, one.w2_b)
        case "lokr":
            first = one.w1 if one.w1 is not None else one.w1_a @ one.w1_b
            a, b = first.shape
            if one.w2 is not None:
                second = one.w2.reshape(out // a, width // b, pixels)
            elif one.t2 is None:
                second = (one.w2_a @ one.w2_b).reshape(out // a, width // b, pixels)
            else:
                second = tucker(one.t2, one.w2_a, one.w2_b)
            return scale * np.stack([np.kron(first, second[..., p]) for p in range(pixels)], -1)
        case "ia3":
            return weight * one.scale.reshape(*one.scale.shape[:2], 1)
        case "full":
            return one.diff.reshape(weight.shape)
        case "dora":
            changed = weight + closed_form(one.change, weight)
            axes = (1, 2) if one.magnitude.shape[0] == out else (0, 2)
            norm = np.sqrt((changed**2).sum(axes, keepdims=True))
            return changed * one.magnitude.reshape(*one.magnitude.shape[:2], 1) / norm - weight


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(k, s) for s in ("dense", "1x1") for k in DENSE] + [(k, "3x3") for k in CONVOLVED],
)
def test_closed_forms(kind, shape):
    shape = SHAPES[shape]
    make = Maker()
    one, weight = make.make(kind, shape), make.array(*shape)
    assert one.misfit(shape) is None
    found = np.asarray(one.delta(weight))
    assert found.shape == shape
    exact = mapped(one, lambda a: np.asarray(a, np.float64))
    expected = closed_form(exact, np.asarray(weight.reshape(*shape[:2], -1), np.float64))
    # Sums of at most a hundred float32 products.
    np.testing.assert_allclose(found, expected.reshape(shape), atol=1e-5)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("kind", CONVOLVED)
def test_a_change_of_another_shape_is_named(kind):
    one = Maker().make(kind, SHAPES["3x3"])
    wrong = {(32, 12, 3, 3)} if kind != "ia3 in" else {(16, 24, 3, 3)}
    wrong |= {(16, 24, 3, 3)} if kind not in ("ia3 out",) else set()
    if not kind.startswith("ia3"):
        wrong |= {(16, 12, 5, 5)}
    for shape in wrong:
        assert "wanted" in one.misfit(shape) or "number of pixels" in one.misfit(shape)


def test_alpha_is_the_rank_where_it_is_not_told():
    one = Maker().make("lora", (16, 12))
    whole = LoRA(one.down, one.up).delta(np.zeros((16, 12), np.float32))
    half = LoRA(one.down, one.up, alpha=np.float16(1.5)).delta(np.zeros((16, 12), np.float32))
    np.testing.assert_allclose(np.asarray(whole), 2 * np.asarray(half), rtol=1e-6)


def test_fewer_inputs_leave_the_others_alone():
    one = Maker().make("lora", (16, 4, 3, 3))
    found = np.asarray(one.delta(np.zeros((16, 9, 3, 3), np.float32)))
    assert not found[:, 4:].any()
    alone = one.delta(np.zeros((16, 4, 3, 3), np.float32))
    np.testing.assert_array_equal(found[:, :4], np.asarray(alone))


def test_half_precision_is_computed_in_float32():
    one = Maker(dtype=np.float16).make("loha", (16, 12))
    found = one.delta(np.zeros((16, 12), np.float16))
    assert found.dtype == jnp.float32
    same = mapped(one, lambda array: np.asarray(array, np.float32))
    np.testing.assert_array_equal(
        np.asarray(found), np.asarray(same.delta(np.zeros((16, 12), np.float32)))
    )


def test_rows_of_zeros_have_a_direction():
    lora = LoRA(np.zeros((3, 12), np.float32), np.zeros((16, 3), np.float32))
    found = DoRA(np.ones((16, 1), np.float32), lora).delta(np.zeros((16, 12), np.float32))
    assert not np.asarray(found).any()


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr both", "dora out lora", "ia3 in", "full"])
def test_gradients_through_jit(kind):
    make = Maker()
    one, weight = make.make(kind, (16, 12)), make.array(16, 12)

    @jax.jit
    def loss(one):
        return jnp.sum(jnp.square(one.delta(weight)))

    gradient, step = jax.grad(loss)(one), 1e-2
    direction = jax.tree.map(lambda g: g / np.sqrt(max(float((g**2).sum()), 1e-12)), gradient)
    ahead, behind = (
        loss(jax.tree.map(lambda a, d, sign=sign: a + sign * step * d, one, direction))
        for sign in (1, -1)
    )
    slope = sum(
        float((g * d).sum())
        for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    )
    assert float(ahead - behind) / (2 * step) == pytest.approx(slope, rel=2e-2)


def test_trees_of_arrays_and_back():
    make = Maker()
    for kind in CONVOLVED:
        one = make.make(kind, SHAPES["3x3"])
        (back,) = kinds.from_tree(kinds.to_tree((one,)))
        assert type(back) is type(one)
        same = jax.tree.map(np.array_equal, back, one)
        assert jax.tree.all(same)
    assert kinds.is_tree(kinds.to_tree((NormDifference(np.ones(3)),)))
    assert not kinds.is_tree({"to_q": {"lora": {}}})
