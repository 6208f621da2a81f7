"""Every form of attention against one written with NumPy's shapes in mind, gradients too."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from benchmarks.topologies import attention_of
from ldm_jax import config as cfg
from ldm_jax.core.sharding import batch_sharding, make_mesh
from ldm_jax.models import attention as module
from ldm_jax.models.attention import attention


def _inputs(length, keys, heads=2, dim=8, dtype=jnp.float32, batch=2):
    random = jax.random.split(jax.random.key(length + keys), 3)
    shapes = [(batch, n, heads, dim) for n in (length, keys, keys)]
    return [jax.random.normal(key, s, dtype) for key, s in zip(random, shapes, strict=True)]


def _reference(q, k, v, *, causal=False):
    out = []
    for head in range(q.shape[2]):
        scores = q[:, :, head] @ k[:, :, head].swapaxes(1, 2) / np.sqrt(q.shape[-1])
        if causal:
            hidden = np.triu(np.ones(scores.shape[1:], bool), 1)
            scores = jnp.where(hidden[None], -1e30, scores)
        out.append(jax.nn.softmax(scores, axis=-1) @ v[:, :, head])
    return jnp.stack(out, axis=2)


def _value_and_gradients(f, inputs):
    def scalar(*inputs):
        out = f(*inputs)
        return jnp.sum(jnp.cos(3 * out)), out

    return jax.jit(jax.value_and_grad(scalar, (0, 1, 2), has_aux=True))(*inputs)


def _assert_agree(f, inputs, causal=False):
    got = _value_and_gradients(functools.partial(f, causal=causal), inputs)
    want = _value_and_gradients(functools.partial(_reference, causal=causal), inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=2e-4), got, want)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length", "keys"), [(16, 16), (600, 600), (1100, 1000)])
def test_attention_and_its_gradients(length, keys, causal):
    # 1100 x 1000 scores go through the blocked form, with a last block that is not full.
    _assert_agree(attention, _inputs(length, keys), causal)


@pytest.mark.parametrize("causal", [False, True])
def test_blocked_form_with_several_blocks(causal, monkeypatch):
    monkeypatch.setattr(module, "CPU_BLOCK", 16)
    monkeypatch.setattr(module, "CUDA_BLOCK", 16)
    _assert_agree(module.block_by_block, _inputs(40, 24), causal)
    _assert_agree(module.queries_by_blocks, _inputs(40, 24), causal)


@pytest.mark.parametrize("length", [24, 1100])
def test_bfloat16_softmax_is_float32(length):
    q, k, v = _inputs(length, length, dtype=jnp.bfloat16)
    out = attention(q, k, v)
    assert out.dtype == jnp.bfloat16
    want = _reference(*(x.astype(jnp.float32) for x in (q, k, v)))
    np.testing.assert_allclose(out.astype(jnp.float32), want, atol=0.02)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_one_program_exports_for_every_platform(dtype):
    inputs = _inputs(64, 32, dtype=dtype)
    loss = jax.jit(jax.grad(lambda *a: jnp.sum(attention(*a).astype(jnp.float32))))
    exported = export.export(loss, platforms=["cpu", "tpu", "cuda"])(*inputs)
    np.testing.assert_allclose(
        exported.call(*inputs).astype(jnp.float32), loss(*inputs).astype(jnp.float32), atol=0.02
    )


@pytest.mark.parametrize("dim", [40, 160])
def test_long_sequences_take_each_platforms_own_form(dim):
    inputs = [jax.ShapeDtypeStruct((2, 1024, 2, dim), jnp.float32)] * 3
    loss = jax.jit(jax.grad(lambda *a: jnp.sum(attention(*a)), (0, 1, 2)))
    text = {
        platform: export.export(loss, platforms=[platform])(*inputs).mlir_module()
        for platform in ("cpu", "tpu", "cuda")
    }
    assert "tpu_custom_call" in text["tpu"]
    assert "tpu_custom_call" not in text["cpu"] + text["cuda"]
    assert "stablehlo.while" in text["cpu"] and "stablehlo.while" not in text["cuda"]


def test_flash_kernel_is_divided_over_the_mesh():
    devices = np.array(jax.devices()[:8]).reshape(2, 2, 2)
    axes = (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.sharding.Mesh(devices, ("data", "fsdp", "tensor"), axis_types=axes)
    spec = jax.sharding.PartitionSpec(("data", "fsdp"), None, "tensor")
    sharding = jax.sharding.NamedSharding(mesh, spec)
    x = jax.ShapeDtypeStruct((8, 1024, 4, 40), jnp.bfloat16, sharding=sharding)
    with jax.set_mesh(mesh):
        traced = jax.jit(attention).trace(x, x, x)
        text = traced.lower(lowering_platforms=("tpu",)).as_text()
    kernels = [line for line in text.splitlines() if "tpu_custom_call" in line]
    # Eight of batch over four parts, four heads over two.
    assert kernels and all("tensor<2x2x1024x40xbf16>" in line for line in kernels)


@pytest.fixture
def traces_cudnn(monkeypatch):
    """Lets a machine trace cuDNN's attention that has neither it nor JAX's plugin for CUDA."""
    from jax._src.cudnn import fused_attention_stablehlo as kernels

    if kernels.cuda_versions is None:
        installed = SimpleNamespace(cudnn_get_version=lambda: 91000)
        monkeypatch.setattr(kernels, "cuda_versions", installed)
    module.widest_cudnn_head.cache_clear()
    yield
    module.widest_cudnn_head.cache_clear()


def _for_cuda(length, keys, dim, dtype, causal=False, **options):
    """The program for CUDA of the gradient, as text."""
    q, k = (
        jax.ShapeDtypeStruct((8, n, 4, dim), jnp.dtype(dtype), **options) for n in (length, keys)
    )

    def loss(*inputs):
        return jnp.sum(attention(*inputs, causal=causal).astype(jnp.float32))

    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(q, k, k)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("length", "keys", "causal"),
    [(64, 64, False), (77, 77, True), (64, 77, False), (77, 77, False), (1, 65, False)],
)
def test_cudnn_differentiates_every_length(length, keys, causal, dtype, traces_cudnn):
    text = _for_cuda(length, keys, 40, dtype, causal)
    assert "__cudnn$fmhaSoftmax(" in text and "__cudnn$fmhaSoftmaxBackward(" in text


@pytest.mark.parametrize(
    ("dim", "dtype"), [(160, "bfloat16"), (36, "bfloat16"), (40, "float32")], ids=str
)
def test_what_not_every_gpu_takes_is_plain_on_cuda(dim, dtype, traces_cudnn):
    assert "cudnn" not in _for_cuda(64, 77, dim, dtype)


def test_hopper_takes_wide_heads(traces_cudnn):
    """Such as those of 160 channels that Stable Diffusion has."""
    with attention_of("h100"):
        assert "__cudnn$fmhaSoftmaxBackward(" in _for_cuda(64, 77, 160, "bfloat16")
    with attention_of("a100"):
        assert "cudnn" not in _for_cuda(64, 77, 160, "bfloat16")


def test_gpus_before_ampere_have_plain_attention(traces_cudnn, monkeypatch):
    client = SimpleNamespace(platform_version="PJRT C API\ncuda 13000")
    gpus = [SimpleNamespace(client=client, compute_capability=name) for name in ("8.0", "7.5")]
    monkeypatch.setattr(jax, "local_devices", lambda: gpus)
    assert "cudnn" not in _for_cuda(64, 64, 40, "float16")


@pytest.mark.parametrize(
    ("length", "keys", "causal"),
    [
        (16, 16, True),
        (16, 15, False),
        (15, 15, True),
        (15, 16, True),
        (17, 15, True),
        (1, 9, False),
    ],
)
def test_rows_that_make_lengths_even_change_nothing(length, keys, causal, monkeypatch):
    plain = jax.nn.dot_product_attention

    def without_cudnn(*inputs, implementation, **options):
        assert all(x.shape[1] % 2 == 0 for x in inputs) and implementation == "cudnn"
        return plain(*inputs, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", without_cudnn)
    _assert_agree(module.cudnn, _inputs(length, keys), causal)


def test_cudnn_is_divided_over_the_mesh(traces_cudnn):
    mesh = make_mesh(cfg.Mesh(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        text = _for_cuda(77, 77, 40, "bfloat16", causal=True, sharding=batch_sharding(mesh))
    kernels = [line for line in text.splitlines() if "__cudnn$fmha" in line]
    # Eight of batch over four parts, four heads over two.
    assert kernels and all("tensor<2x78x2x40xbf16>" in line for line in kernels)


def test_flash_kernel_computes_attention():
    from jax.experimental.pallas import tpu as pltpu

    inputs = _inputs(1024, 1024, heads=1, dim=16, batch=1)
    with pltpu.force_tpu_interpret_mode():
        got = module.flash(*inputs, causal=False)
    np.testing.assert_allclose(got, _reference(*inputs), atol=2e-4)
