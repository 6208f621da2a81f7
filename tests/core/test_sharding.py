"""Mesh, parameter rules, and where batches and training states go, on eight devices."""

import dataclasses
import socket

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType, PartitionSpec

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.core import sharding, tree
from ldm_jax.models.build import build_autoencoder
from ldm_jax.training.optim import make_optimizer
from ldm_jax.training.state import create_state

AUTOENCODER = cfg.Autoencoder(block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8)
SMALL = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8,
         "attention": (True, True), "num_heads": (2, 4)}  # fmt: skip
TEXT = cfg.TextTransformer(vocab_size=64, max_length=8, width=32, layers=1, pooled_dim=48)
SENTENCE = cfg.SentenceBERT(
    vocab_size=64, positions=16, max_length=8, width=32, layers=1, num_heads=4, intermediate=64
)
BERT = cfg.BERTText(vocab_size=64, max_length=8, width=32, layers=1, num_heads=4, head_dim=16)
CLIP = cfg.CLIPText(vocab_size=64, max_length=8, width=32, layers=1, num_heads=4, intermediate=64)
DATA = cfg.Data(image_size=32, batch_size=16)
RUNS = {
    "text": cfg.DiffusionRun(
        DATA,
        cfg.UNet(**SMALL, context_dim=32, pooled_dim=48, concat_channels=4),
        (cfg.TextConditioner(TEXT), cfg.CaptionMapConditioner(16, 4)),
    ),
    "clip, linear projections": cfg.DiffusionRun(
        DATA,
        cfg.UNet(**SMALL, context_dim=32, use_linear_projection=True),
        (cfg.TextConditioner(CLIP),),
    ),
    "BERT, resampling residual blocks": cfg.DiffusionRun(
        DATA, cfg.UNet(**SMALL, context_dim=32, resblock_updown=True), (cfg.TextConditioner(BERT),)
    ),
    "sentence encoder": cfg.DiffusionRun(
        DATA, cfg.UNet(**SMALL, context_dim=32, pooled_dim=32), (cfg.TextConditioner(SENTENCE),)
    ),
    "class": cfg.DiffusionRun(
        DATA, cfg.UNet(**SMALL, class_count=11, context_dim=None), (cfg.ClassConditioner(10),)
    ),
    "class token": cfg.DiffusionRun(
        DATA, cfg.UNet(**SMALL, context_dim=32), (cfg.ClassConditioner(10, context_dim=32),)
    ),
    "unconditional, plain": cfg.DiffusionRun(
        DATA,
        cfg.UNet(**SMALL, attention_kind="plain", context_dim=None, time_scale_shift=True),
    ),
}


def abstract_state(run):
    model = ldm.build(run.model(AUTOENCODER), run.loop.dtype, run.loop.remat)
    optimizer = make_optimizer(run.optim, run.loop.steps)
    return jax.eval_shape(
        lambda: create_state(ldm.init_params(model, 0), optimizer, run.optim.ema_decay)
    )


@pytest.mark.parametrize("name", RUNS)
def test_the_rules_cover_every_diffusion_model_and_fit_its_shapes(name):
    state = abstract_state(RUNS[name])
    mesh = sharding.make_mesh(cfg.Mesh(data=2, fsdp=2, tensor=2))
    placed = sharding.state_sharding(mesh, state, min_size=1)
    for where, leaf in zip(jax.tree.leaves(placed), jax.tree.leaves(state), strict=True):
        where.shard_shape(leaf.shape)
    flat = tree.flatten(state.params)
    whole = sum(flat[path].size for path, s in tree.flatten(placed.params).items()
                if s.is_fully_replicated)  # fmt: skip
    assert whole < 0.1 * tree.count(state.params)


def test_the_rules_cover_the_autoencoder():
    module = build_autoencoder(AUTOENCODER)
    images, noise = jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 16, 16, 4))
    params = jax.eval_shape(module.init, jax.random.key(0), images, noise)["params"]
    mesh = sharding.make_mesh(cfg.Mesh(fsdp=4))
    placed = tree.flatten(sharding.state_sharding(mesh, params))
    assert placed["encoder/conv_in/kernel"].is_fully_replicated  # too small
    conv2 = "decoder/up_blocks/0/resnets/0/conv2/kernel"
    assert placed[conv2].spec == PartitionSpec(None, None, None, "fsdp")
    own = {"latent_scale": np.float32(1), "latent_mean": np.ones(4), "latent_std": np.ones(4)}
    frozen = sharding.state_sharding(mesh, {"autoencoder": params, **own})
    assert tree.flatten(frozen["autoencoder"]) == placed
    assert frozen["latent_std"].is_fully_replicated


def test_moments_and_average_lie_where_their_parameter_lies():
    state = abstract_state(RUNS["text"])
    mesh = sharding.make_mesh(cfg.Mesh(data=2, fsdp=2, tensor=2))
    placed = sharding.state_sharding(mesh, state)
    flat = tree.flatten(placed)
    for path, where in tree.flatten(placed.params).items():
        followers = [p for p in flat if p.endswith(f"/{path}")]
        assert len(followers) == 4  # parameter, average, two moments
        assert {flat[p].spec for p in followers} == {where.spec}
    assert placed.step.is_fully_replicated
    pair = "params/unet/mid_block/attentions/0/transformer_blocks/0/attn1"
    assert flat[f"{pair}/to_q/kernel"].spec == PartitionSpec("fsdp", "tensor")
    assert flat[f"{pair}/to_out/0/kernel"].spec == PartitionSpec("tensor", "fsdp")


def test_a_dimension_that_the_axis_does_not_divide_stays_whole():
    mesh = sharding.make_mesh(cfg.Mesh(data=1, fsdp=4, tensor=2))
    shapes = {"to_q": {"kernel": jax.ShapeDtypeStruct((66, 128), jnp.float32)}}
    assert sharding.state_sharding(mesh, shapes)["to_q"]["kernel"].spec == PartitionSpec(
        None, "tensor"
    )


def test_a_parameter_without_a_rule_is_named():
    shapes = {"unet": {"novelty": {"gamma": jax.ShapeDtypeStruct((8,), jnp.float32)}}}
    with pytest.raises(tree.TreeError, match="unet/novelty/gamma"):
        sharding.state_sharding(sharding.make_mesh(cfg.Mesh()), shapes)


def test_make_mesh_fills_in_what_is_left_and_names_the_counts():
    mesh = sharding.make_mesh(cfg.Mesh(data=-1, fsdp=2, tensor=2))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert sharding.make_mesh(cfg.Mesh(), jax.devices()[:3]).size == 3
    with pytest.raises(cfg.ConfigError, match=r"mesh.fsdp=3.* multiple of 3 devices.* are 8"):
        sharding.make_mesh(cfg.Mesh(fsdp=3))
    with pytest.raises(cfg.ConfigError, match=r"needs 4 devices.* are 8"):
        sharding.make_mesh(cfg.Mesh(data=4))


@dataclasses.dataclass(frozen=True)
class OfSlice:
    """A device of one of several slices, or of several machines."""

    id: int
    slice_index: int
    platform: str
    process_index: int = 0
    device_kind: str = "none"


def test_slices_are_apart_on_the_data_axis():
    def slices(platform, count=2, each=4):
        # As JAX may list them: not one after the other.
        return [OfSlice(n, n % count, platform) for n in range(count * each)]

    def apart(mesh, devices):
        return np.vectorize(lambda device: device.slice_index)(mesh_of(mesh, devices))

    def mesh_of(mesh, devices):
        return sharding.make_mesh(mesh, devices).devices

    found = apart(cfg.Mesh(data=-1, fsdp=2), slices("gpu"))
    assert found.shape == (4, 2, 1) and found[:, 0, 0].tolist() == [0, 0, 1, 1]
    assert (found == found[:, :1]).all()
    found = apart(cfg.Mesh(data=1, fsdp=4, tensor=2), slices("gpu"))
    assert found[0, :, 0].tolist() == [0, 0, 1, 1] and (found == found[..., :1]).all()
    with pytest.raises(cfg.ConfigError, match=r"2 machines.*data=1 times mesh.fsdp=1 must be a"):
        mesh_of(cfg.Mesh(data=1, tensor=8), slices("gpu"))
    with pytest.raises(cfg.ConfigError, match=r"8 devices are 2 slices.*data=1 must be .* of 2"):
        mesh_of(cfg.Mesh(data=1, fsdp=8), slices("tpu"))
    with pytest.raises(cfg.ConfigError, match="2 slices of 4, 3 devices; .* equally large"):
        mesh_of(cfg.Mesh(), slices("tpu")[:7])


def test_check_batch_names_batch_devices_and_accumulation():
    mesh = sharding.make_mesh(cfg.Mesh(data=2, fsdp=2, tensor=2))
    sharding.check_batch(mesh, 8, 2)
    with pytest.raises(cfg.ConfigError, match=r"batch_size is 12.*multiple of 8.*accumulation 2"):
        sharding.check_batch(mesh, 12, 2)


def test_to_global_spreads_rows_over_data_and_fsdp():
    mesh = sharding.make_mesh(cfg.Mesh(data=2, fsdp=2, tensor=2))
    host = {"image": np.arange(8 * 4, dtype=np.uint8).reshape(8, 2, 2), "index": np.arange(8)}
    batch = sharding.to_global(mesh, host)
    assert batch["image"].sharding.shard_shape((8, 2, 2)) == (2, 2, 2)
    np.testing.assert_array_equal(batch["image"], host["image"])
    assert sharding.replicated(mesh).is_fully_replicated


def test_rows_belong_to_shards_of_the_batch():
    devices = jax.devices()

    def rows(mesh, *numbers):
        mesh = sharding.make_mesh(mesh)
        return sharding.rows_of(mesh, 16, [devices[n] for n in numbers])

    tensor = cfg.Mesh(data=2, tensor=4)
    assert rows(tensor, 0, 1) == rows(tensor, 2) == tuple(range(8))
    assert rows(tensor, 4, 5) == tuple(range(8, 16))
    apart = cfg.Mesh(data=2, fsdp=2, tensor=2)
    assert rows(apart, 5, 0) == (0, 1, 2, 3, 8, 9, 10, 11)
    assert rows(cfg.Mesh(data=1, tensor=8), 3) == tuple(range(16))
    mesh = sharding.make_mesh(apart)
    assert sharding.local_rows(mesh, 8) == tuple(range(8))
    with pytest.raises(ValueError, match="6 rows cannot be shared equally by the 4 parts"):
        sharding.to_global(mesh, np.zeros(6))


WORKER = """
import sys, jax, numpy as np
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from ldm_jax import config as cfg
from ldm_jax.core import sharding

devices = jax.devices()
for order in ((0, 1, 2, 3), (0, 2, 1, 3), (3, 0, 2, 1)):
    for mesh in (cfg.Mesh(data=4), cfg.Mesh(data=2, tensor=2), cfg.Mesh(data=1, tensor=4),
                 cfg.Mesh(data=2, fsdp=2)):
        mesh = sharding.make_mesh(mesh, [devices[n] for n in order])
        rows = np.array(sharding.local_rows(mesh, 8))
        batch = sharding.to_global(mesh, {"a": 10 * rows, "b": np.ones((len(rows), 3))})
        assert batch["a"].shape == (8,) and batch["b"].shape == (8, 3)
        whole = jax.jit(lambda x: x, out_shardings=sharding.replicated(mesh))(batch["a"])
        assert np.asarray(whole).tolist() == list(range(0, 80, 10)), (order, mesh, whole)
        print(len(rows), rows.tolist())
"""


def test_two_processes_hold_one_batch_in_every_order_of_devices():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    processes = [tiny.start("-c", WORKER, coordinator, str(i), devices=2) for i in range(2)]
    first, second = (tiny.check(process) for process in processes)
    assert "4 [0, 1, 4, 5]" in first and "4 [2, 3, 6, 7]" in second  # apart
    assert "8 [0, 1, 2, 3, 4, 5, 6, 7]" in first and "8 [0, 1, 2, 3, 4, 5, 6, 7]" in second


def test_a_residual_pair_computes_the_same_split_and_whole():
    mesh = sharding.make_mesh(cfg.Mesh(data=2, fsdp=2, tensor=2))
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"resnets": {"0": {
        "conv1": {"kernel": jax.random.normal(keys[0], (3, 3, 16, 32)) / 12},
        "conv2": {"kernel": jax.random.normal(keys[1], (3, 3, 32, 16)) / 17},
    }}}  # fmt: skip
    x = jax.random.normal(keys[2], (8, 8, 8, 16))

    def loss(params, x):
        for name in ("conv1", "conv2"):
            kernel = params["resnets"]["0"][name]["kernel"]
            x = jax.nn.silu(jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            ))  # fmt: skip
        return jnp.mean(x**2)

    whole = jax.jit(jax.value_and_grad(loss))(params, x)
    split = jax.device_put(params, sharding.state_sharding(mesh, params))
    assert not split["resnets"]["0"]["conv1"]["kernel"].sharding.is_fully_replicated
    parted = jax.jit(jax.value_and_grad(loss))(split, sharding.to_global(mesh, x))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_activations_stay_split_along_the_batch():
    x = jnp.ones((8, 2, 3))
    assert sharding.split_batch(x) is x  # no mesh, nothing to say
    mesh = sharding.make_mesh(cfg.Mesh(data=2, fsdp=4))
    with jax.set_mesh(mesh):
        # Its operand's rows lie whole on every device.
        y = jax.jit(sharding.split_batch)(jax.device_put(x, sharding.replicated(mesh)))
        assert {shard.data.shape for shard in y.addressable_shards} == {(1, 2, 3)}
        # Three rows cannot be split by four, or by two.
        odd = jax.jit(sharding.split_batch)(x[:3])
    np.testing.assert_array_equal(y, x)
    assert odd.shape == (3, 2, 3)
