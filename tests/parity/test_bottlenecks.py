"""Codes, losses and gradients of the bottlenecks against numbers of the original code."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.models.bottlenecks import (
    Codebook,
    CodebookState,
    FiniteScalar,
    GumbelCodebook,
    perplexity,
    update_codebook,
    uses,
)

# Single precision, in another order of sums.
CLOSE = {"rtol": 2e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden" / "bottlenecks.npz") as numbers:
        return {name: jnp.asarray(numbers[name]) for name in numbers.files}


def _codebook(vectors):
    return {"params": {"embedding": {"embedding": vectors}}}


@pytest.mark.parametrize("weighting", ["paper", "legacy"])
def test_vectors_with_both_weightings(golden, weighting):
    module = Codebook(cfg.VQ(7, weighting=weighting), 4)

    def loss(z, vectors):
        found = module.apply(_codebook(vectors), z)
        return found.loss, found

    gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (value, found), (to_z, to_vectors) = gradients(golden["z"], golden["vectors"])
    np.testing.assert_array_equal(found.indices, golden["indices"])
    np.testing.assert_allclose(found.latents, golden["codes"], **CLOSE)
    np.testing.assert_allclose(value, golden[f"{weighting}_loss"], **CLOSE)
    np.testing.assert_allclose(to_z, golden[f"{weighting}_to_z"], **CLOSE)
    np.testing.assert_allclose(to_vectors, golden[f"{weighting}_to_vectors"], **CLOSE)
    through = jax.grad(lambda z: jnp.sum(loss(z, golden["vectors"])[1].latents * golden["back"]))
    np.testing.assert_allclose(through(golden["z"]), golden[f"{weighting}_through"], **CLOSE)


def test_averaged_vectors(golden):
    module = Codebook(cfg.VQ(7, ema_decay=0.9), 4)

    def loss(z):
        found = module.apply(_codebook(golden["vectors"]), z)
        return found.loss, found

    (value, found), to_z = jax.value_and_grad(loss, has_aux=True)(golden["z"])
    np.testing.assert_allclose(value, golden["ema_loss"], **CLOSE)
    np.testing.assert_allclose(to_z, golden["ema_to_z"], **CLOSE)
    np.testing.assert_allclose(
        perplexity(uses(found.indices, 7)), golden["ema_perplexity"], rtol=1e-5
    )
    state = CodebookState(golden["ema_counts"], golden["ema_sums"], jnp.zeros(7, jnp.int32))
    state, vectors = update_codebook(state, golden["vectors"], found.compared, found.indices, 0.9)
    np.testing.assert_allclose(state.counts, golden["ema_new_counts"], **CLOSE)
    np.testing.assert_allclose(state.sums, golden["ema_new_sums"], **CLOSE)
    np.testing.assert_allclose(vectors, golden["ema_new_vectors"], **CLOSE)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_gumbel(golden, kind):
    module = GumbelCodebook(cfg.Gumbel(7, temperature=0.7, straight_through=kind == "hard"), 4)

    def total(z, vectors, kernel):
        proj = {"kernel": kernel, "bias": golden["gumbel_bias"]}
        variables = {"params": {"proj": proj, "embed": {"embedding": vectors}}}
        found = module.apply(variables, z, golden["gumbel_noise"])
        return found.loss + jnp.sum(found.latents * golden["back"]), found

    gradients = jax.grad(total, argnums=(0, 1, 2), has_aux=True)
    inputs = golden["z"], golden["vectors"], golden["gumbel_kernel"]
    (to_z, to_vectors, to_kernel), found = gradients(*inputs)
    np.testing.assert_array_equal(found.indices, golden["gumbel_indices"])
    np.testing.assert_allclose(found.loss, golden["gumbel_loss"], **CLOSE)
    for ours, name in (
        (found.latents, "codes"), (to_z, "to_z"), (to_vectors, "to_vectors"),
        (to_kernel, "to_kernel"),
    ):  # fmt: skip
        np.testing.assert_allclose(ours, golden[f"gumbel_{kind}_{name}"], rtol=1e-4, atol=1e-5)


def test_finite_scalars(golden):
    levels = tuple(int(level) for level in golden["fsq_levels"])
    module = FiniteScalar(cfg.FSQ(levels))
    found = module.apply({}, golden["fsq_z"])
    np.testing.assert_array_equal(found.indices, golden["fsq_indices"])
    np.testing.assert_allclose(found.latents, golden["fsq_codes"], **CLOSE)
    to_z = jax.grad(lambda z: jnp.sum(module.apply({}, z).latents * golden["fsq_back"]))
    # tanh' is a difference of nearly equal numbers at its ends.
    np.testing.assert_allclose(to_z(golden["fsq_z"]), golden["fsq_to_z"], rtol=1e-3, atol=1e-6)
