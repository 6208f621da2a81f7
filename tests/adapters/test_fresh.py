"""Adapters before their first step, and what training leaves out of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ldm_jax import config as cfg
from ldm_jax.adapters.adapted import Adapted, put_beside, take_apart, with_keys
from ldm_jax.adapters.adapter import AdapterUse
from ldm_jax.adapters.dora import DoRA
from ldm_jax.adapters.fresh import divisors, fresh
from ldm_jax.adapters.kind import mapped
from ldm_jax.adapters.merging import merge
from ldm_jax.adapters.weights import weight_of
from ldm_jax.core import rngs, tree
from ldm_jax.models.convolution import double
from ldm_jax.models.layers import Conv, GroupNorm


class Small(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = GroupNorm(2, 1e-5, name="norm")(Conv(8, 3, name="conv")(x))
        return nn.Dense(6, name="dense")(x).mean((1, 2))


NETWORK = Small()
X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4, 6)), jnp.float32)
PARAMS = {"unet": NETWORK.init(jax.random.key(0), X)["params"]}
KINDS = {
    "lora": cfg.LoRA(rank=2), "tucker": cfg.LoRA(rank=2, tucker=True),
    "stable": cfg.LoRA(rank=4, alpha=2.0, rank_stabilized=True),
    "loha": cfg.LoHa(rank=2), "loha_tucker": cfg.LoHa(rank=2, alpha=1.0, tucker=True),
    "lokr": cfg.LoKr(rank=1), "lokr_whole": cfg.LoKr(rank=8, factor=2),
    "lokr_tucker": cfg.LoKr(rank=1, factor=1, decompose_both=True, tucker=True),
    "ia3": cfg.IA3(on_input="unet/dense"), "full": cfg.FullDifference(),
}  # fmt: skip


def output(params, training=None):
    return Adapted(NETWORK, training).apply(
        {"params": jax.tree.map(jnp.asarray, params["unet"])}, X
    )


@pytest.mark.parametrize(
    ("kind", "magnitude"),
    [(kind, False) for kind in KINDS]
    + [(kind, True) for kind in KINDS if kind not in ("ia3", "full")],
)
def test_it_begins_as_nothing_and_learns(kind, magnitude):
    config = cfg.ModuleAdapter(KINDS[kind], modules=("all",), magnitude=magnitude)
    adapter = fresh(config, PARAMS, None, seed=1)
    for path, kinds in adapter.components["unet"].items():
        for one in kinds:
            if "kernel" in PARAMS["unet"][path]:
                shape = weight_of(PARAMS["unet"][path]["kernel"]).shape
                assert not hasattr(one, "misfit") or one.misfit(shape) is None, one
    beside = put_beside(PARAMS, [AdapterUse(adapter)])
    tiny_error = 1e-6 if magnitude else 0  # a norm is taken twice
    np.testing.assert_allclose(output(beside), output(PARAMS), atol=tiny_error)

    chosen = [(cfg.TRAINED["adapter"], True), (r".*", False)]
    trained, rest = tree.split(beside, chosen)
    assert not any(path.endswith(("alpha", "strength")) for path in tree.flatten(trained))
    gradients = jax.grad(lambda own: jnp.sum(output(tree.join(own, rest)) ** 3))(trained)
    for path in adapter.components["unet"]:
        own = tree.flatten(gradients["unet"]["adapters"]["0"]["modules"][path])
        assert any(np.abs(gradient).max() > 1e-5 for gradient in own.values()), path

    # Away from the beginning the network with it and the merged network are the same.
    moved = tree.join(jax.tree.map(lambda a: a + 0.1, trained), rest)
    base, (use,) = take_apart(moved)
    assert base["unet"].keys() == PARAMS["unet"].keys()
    merged = merge(base, [AdapterUse(_plain(use.adapter))])
    np.testing.assert_allclose(output(moved), output(merged), rtol=2e-5, atol=2e-5)


def _plain(adapter):
    modules = {path: tuple(mapped(one, np.asarray) for one in kinds)
               for path, kinds in adapter.components["unet"].items()}  # fmt: skip
    return type(adapter)({"unet": modules})


def test_modules_and_ranks_are_chosen_by_their_names():
    config = cfg.ModuleAdapter(
        cfg.LoRA(rank=4), modules=("unet/.*",), ranks=("unet/conv=2:3", "unet/dense=0")
    )
    (path,) = fresh(config, PARAMS, None, seed=0).components["unet"]
    (one,) = fresh(config, PARAMS, None, seed=0).components["unet"][path]
    assert (path, one.rank, float(one.alpha)) == ("conv", 2, 3.0)
    stable = fresh(cfg.ModuleAdapter(KINDS["stable"], modules=("all",)), PARAMS, None, seed=0)
    assert float(stable.components["unet"]["dense"][0].alpha) == 4.0  # alpha / sqrt(rank) = 1
    with pytest.raises(cfg.ConfigError, match="adapter.modules is 'attention'"):
        fresh(cfg.ModuleAdapter(), PARAMS, None, seed=0)
    for wrong in ("x", "unet/.*=", "unet/.*=-1", "unet/.*=2:0", "(=2", "=3"):
        with pytest.raises(cfg.ConfigError, match="ranks has"):
            cfg.ModuleAdapter(ranks=(wrong,))
    for idle in ("unet/absent=8", "unet/conv=8"):
        config = cfg.ModuleAdapter(modules=("unet/dense",), ranks=(idle,))
        with pytest.raises(cfg.ConfigError, match="fits none of the modules of adapter.modules"):
            fresh(config, PARAMS, None, seed=0)
    with pytest.raises(cfg.ConfigError, match="modules is"):
        cfg.ModuleAdapter(modules=("attentoin",))


def test_magnitudes_begin_as_norms_of_outputs():
    config = cfg.ModuleAdapter(KINDS["lora"], modules=("unet/dense",), magnitude=True)
    (dora,) = fresh(config, PARAMS, None, seed=0).components["unet"]["dense"]
    assert isinstance(dora, DoRA)
    norms = np.linalg.norm(PARAMS["unet"]["dense"]["kernel"], axis=0)
    np.testing.assert_allclose(dora.magnitude[:, 0], norms, rtol=1e-6)


@pytest.mark.parametrize(("n", "largest", "expected"),
                         [(320, -1, (16, 20)), (1280, -1, (32, 40)), (7, -1, (1, 7)),
                          (320, 8, (8, 40)), (12, 5, (3, 4))])  # fmt: skip
def test_divisors(n, largest, expected):
    assert divisors(n, largest) == expected


class _Upsampled(nn.Module):
    """A convolution of doubled pixels, in one step or in two."""

    at_once: bool

    @nn.compact
    def __call__(self, x):
        return Conv(2, doubled=self.at_once, name="conv")(x if self.at_once else double(x))


@pytest.mark.parametrize("kind", [cfg.LoRA(rank=2), cfg.LoHa(rank=2)], ids=["LoRA", "LoHa"])
def test_single_pixels_of_an_upsampled_picture_are_left_out(kind):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 5, 3)), jnp.float32)
    params = {"unet": _Upsampled(True).init(jax.random.key(0), x)["params"]}
    config = cfg.ModuleAdapter(kind, modules=("all",), dropout=0.4)
    beside = put_beside(params, [AdapterUse(fresh(config, params, None, seed=1))])
    beside = jax.tree.map(lambda a: a + 0.1 if a.ndim > 1 else a, beside)
    keys = rngs.example_keys(rngs.stream(0, "dropout"), np.arange(2, dtype=np.uint32))
    at_once, by_steps = (
        Adapted(_Upsampled(at_once), config).apply({"params": with_keys(beside, keys)["unet"]}, x)
        for at_once in (True, False)
    )
    np.testing.assert_allclose(at_once, by_steps, rtol=1e-5, atol=1e-5)


def test_what_is_left_out_belongs_to_the_example():
    shares = {"dropout": 0.4, "module_dropout": 0.3}
    config = cfg.ModuleAdapter(cfg.LoRA(rank=2, rank_dropout=0.5), modules=("all",), **shares)
    beside = put_beside(PARAMS, [AdapterUse(fresh(config, PARAMS, None, seed=1))])
    beside = jax.tree.map(lambda a: a + 0.1 if a.ndim > 1 else a, beside)
    keys = rngs.example_keys(rngs.stream(0, "dropout"), np.arange(3, dtype=np.uint32))
    dropped = output(with_keys(beside, keys), config)
    assert not np.allclose(dropped, output(beside))
    other = Adapted(NETWORK, config).apply(
        {"params": with_keys(beside, keys[1:])["unet"]}, X[1:]
    )  # fmt: skip
    np.testing.assert_allclose(other, dropped[1:], rtol=1e-5, atol=1e-6)
    nothing = cfg.ModuleAdapter(cfg.LoRA(rank=2), modules=("all",))
    np.testing.assert_array_equal(output(with_keys(beside, keys), nothing), output(beside))
