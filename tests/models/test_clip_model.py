"""CLIP reads each text at its end and each picture in patches, in vectors of length 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.models.clip_model import CLIP, end_places, normalised_pixels

CONFIG = cfg.CLIP(
    cfg.CLIPText(vocab_size=20, max_length=6, width=16, layers=1, num_heads=2, intermediate=16),
    cfg.CLIPVision(image_size=8, patch_size=4, width=16, layers=1, num_heads=2, intermediate=16),
    embedding=12, end_token=0,
)  # fmt: skip
TOKENS = jnp.array([[3, 4, 0, 0, 0, 0], [5, 6, 7, 8, 9, 10]])


@pytest.fixture(scope="module")
def params():
    init = CLIP(CONFIG).init
    return jax.jit(init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), TOKENS)["params"]


def texts(params, tokens):
    return CLIP(CONFIG).apply({"params": params}, tokens, method="texts")


def test_ends():
    assert end_places(TOKENS, 0).tolist() == [2, 5]
    assert end_places(TOKENS, 4).tolist() == [1, 5]
    assert end_places(jnp.array([[2, 9, 3, 9], [8, 1, 1, 1]]), None).tolist() == [1, 0]


def test_what_stands_behind_the_end_does_not_matter(params):
    found = texts(params, TOKENS)
    np.testing.assert_allclose(jnp.linalg.norm(found, axis=1), 1, rtol=1e-6)
    changed = texts(params, TOKENS.at[0, 3:].set(7))
    np.testing.assert_allclose(changed, found, atol=1e-6)
    assert float(abs(texts(params, TOKENS.at[0, 1].set(7)) - found)[0].max()) > 1e-3


def test_scale_and_bias_begin_as_published(params):
    np.testing.assert_allclose(jnp.exp(params["logit_scale"]), 1 / 0.07, rtol=1e-6)
    assert "logit_bias" not in params
    biased = CLIP(cfg.CLIP(CONFIG.text, CONFIG.vision, 12, logit_bias=True))
    pixels = jnp.zeros((1, 8, 8, 3))
    own = biased.init(jax.random.key(0), pixels, TOKENS)["params"]
    compared = biased.apply({"params": own}, pixels, TOKENS)
    np.testing.assert_allclose([compared.scale, compared.bias], [10, -10], rtol=1e-6)


def test_other_sizes_are_refused(params):
    with pytest.raises(ValueError, match=r"8 x 12 pixels; this image encoder takes 8 x 8"):
        CLIP(CONFIG).apply({"params": params}, jnp.zeros((1, 8, 12, 3)), method="images")


def test_recomputing_changes_nothing(params):
    pixels = normalised_pixels(jnp.arange(2 * 8 * 8 * 3, dtype=jnp.float32).reshape(2, 8, 8, 3))

    def loss(params, remat):
        compared = CLIP(CONFIG, remat=remat).apply({"params": params}, pixels, TOKENS)
        return (compared.images @ compared.texts.T)[0, 1]

    kept, again = (jax.grad(loss)(params, remat) for remat in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), kept, again)
