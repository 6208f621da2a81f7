"""The patch discriminator: sizes, statistics of training and use, names."""

import jax
import numpy as np
import pytest

from ldm_jax.core import tree
from ldm_jax.models.discriminator import BatchNorm, PatchGAN

IMAGES = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
MODEL = PatchGAN(width=16, layers=2)
USE = jax.jit(MODEL.apply)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(jax.random.key(1), IMAGES)


def test_one_logit_for_each_patch(variables):
    found = jax.eval_shape(MODEL.apply, variables, IMAGES)
    assert found.shape == (4, MODEL.patches(16), MODEL.patches(16), 1) == (4, 2, 2, 1)


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="8x16 pixels.*12 at least"):
        jax.eval_shape(MODEL.init, jax.random.key(0), IMAGES[:, :8])


def test_names_are_those_of_a_torch_sequential(variables):
    flat = tree.flatten(variables["params"])
    kernels = [path for path in flat if path.endswith("kernel")]
    assert kernels == [f"main/{i}/kernel" for i in (0, 2, 5, 8)]
    biases = {path for path in flat if path.endswith("bias")}
    assert biases == {f"main/{i}/bias" for i in (0, 3, 6, 8)}
    bare = jax.eval_shape(PatchGAN(4, 2, "none").init, jax.random.key(1), IMAGES)
    assert "batch_stats" not in bare
    assert {f"main/{i}/bias" for i in (0, 2, 5, 8)} <= tree.flatten(bare["params"]).keys()


def test_initial_weights(variables):
    main = variables["params"]["main"]
    assert np.std(main["2"]["kernel"]) == pytest.approx(0.02, rel=0.1)
    assert np.mean(main["6"]["scale"]) == pytest.approx(1, abs=0.02)
    assert 0.01 < np.std(main["6"]["scale"]) < 0.03


def test_batch_norm_keeps_unbiased_statistics():
    x = 3 + 2 * jax.random.normal(jax.random.key(2), (2, 3, 1, 5))
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), x, False)
    np.testing.assert_array_equal(variables["batch_stats"]["var"], 1)
    y, new = norm.apply(variables, x, True, mutable=["batch_stats"])
    rows = np.asarray(x, np.float64).reshape(-1, 5)
    np.testing.assert_allclose(new["batch_stats"]["mean"], 0.1 * rows.mean(0), rtol=1e-5)
    want = 0.9 + 0.1 * rows.var(0, ddof=1)
    np.testing.assert_allclose(new["batch_stats"]["var"], want, rtol=1e-5)
    normal = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    scale = np.asarray(variables["params"]["scale"])
    np.testing.assert_allclose(np.reshape(y, (-1, 5)), normal * scale, atol=1e-4)
    used = norm.apply(variables, x, False)  # running statistics at rest
    np.testing.assert_allclose(used, np.asarray(x) * scale / np.sqrt(1 + 1e-5), rtol=1e-5)


def test_use_judges_each_image_by_itself(variables):
    others = IMAGES.at[1:].multiply(3)
    np.testing.assert_array_equal(USE(variables, others)[0], USE(variables, IMAGES)[0])


def test_statistics_are_of_the_global_batch(variables):
    """On eight devices as on one."""
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])
    spread = jax.NamedSharding(mesh, jax.P("data"))
    judge = jax.jit(lambda v, x: MODEL.apply(v, x, train=True, mutable=["batch_stats"]))
    split = judge(variables, jax.device_put(IMAGES, spread))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), split, judge(variables, IMAGES)
    )
