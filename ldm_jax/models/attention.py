"""Attention: one function that chooses its form by platform, dtype, head size and lengths.

The choice of platform happens at lowering, so that one traced program exports for all of them.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import flash_attention as pallas
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from ldm_jax.core.sharding import BATCH_AXES, dividing
from ldm_jax.models.bilinear import bilinear

# CPU: from this many scores of one head on, heads and blocks of queries go one by one.
MAPPED_SCORES = 2**20
CPU_BLOCK = 512
# TPU: from this length on, of queries and of keys, the flash kernel.
FLASH_LENGTH = 1024
FLASH_BLOCKS = (512, 256, 128)
TPU_LANES = 128
# CUDA: the widest head that cuDNN takes by the GPU's compute capability, from Ampere on; the GPUs
# before it have plain attention.
CUDNN_WIDTHS = {8: 128, 9: 256}
CUDNN_MULTIPLE = 8
# CUDA: from this many scores of one head on, plain attention goes by blocks of so many queries.
BLOCKED_SCORES = 2**22
CUDA_BLOCK = 512
# The score of a key that is not seen: of a caption of padding alone, softmax still is a number.
_UNSEEN = -1e30
# The mesh axis over which the kernels divide their heads.
HEAD_AXIS = "tensor"


def attention(
    q: Float[Array, "b l n d"],
    k: Float[Array, "b m n d"],
    v: Float[Array, "b m n d"],
    *,
    causal: bool = False,
    seen: Bool[Array, "b m"] | None = None,
) -> Float[Array, "b l n d"]:
    """softmax(q kᵀ / √d) v for each of n heads (Vaswani 2017, eq. 1), softmax in float32.

    With `causal`, query i sees keys 0 to i; with `seen` none sees the others, and all scores are
    there at once, which the lengths of captions allow. Heads and batch go through separately; on a
    mesh of more than one TPU or GPU the caller traces under `jax.set_mesh`, because XLA cannot
    divide the flash kernels by itself.
    """
    if seen is not None:
        return direct(q, k, v, causal, seen)
    branches = {}
    if q.shape[1] * k.shape[1] >= MAPPED_SCORES:
        branches["cpu"] = functools.partial(block_by_block, causal=causal)
    if _flash_block(q.shape[1], k.shape[1]) is not None:
        branches["tpu"] = functools.partial(flash, causal=causal)
    if _cudnn_takes(q, k, v):
        branches["cuda"] = functools.partial(cudnn, causal=causal)
    elif q.shape[1] * k.shape[1] >= BLOCKED_SCORES:
        branches["cuda"] = functools.partial(queries_by_blocks, causal=causal)
    default = functools.partial(direct, causal=causal)
    if not branches:
        return default(q, k, v)
    return jax.lax.platform_dependent(q, k, v, default=default, **branches)


def direct(
    q: Float[Array, "b l n d"],
    k: Float[Array, "b m n d"],
    v: Float[Array, "b m n d"],
    causal: bool,
    seen: Bool[Array, "b m"] | None = None,
) -> Float[Array, "b l n d"]:
    """All scores at once, as two batched matmuls."""
    # Heads first: on CPU this is up to twice as fast as contracting in place.
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    rows = jnp.arange(q.shape[2]) if causal else None
    seen = None if seen is None else seen[:, None, None]
    return _softmax_matmul(q, k, v, rows, seen).swapaxes(1, 2)


def block_by_block(
    q: Float[Array, "b l n d"], k: Float[Array, "b m n d"], v: Float[Array, "b m n d"], causal: bool
) -> Float[Array, "b l n d"]:
    """Plain matmuls, one head and block of queries after the other.

    The backward pass computes each block's scores again, so that memory stays linear.
    """
    b, length, n, d = q.shape
    rows = -(-length // CPU_BLOCK) * CPU_BLOCK
    q = jnp.pad(q, ((0, 0), (0, rows - length), (0, 0), (0, 0)))
    q, k, v = (x.swapaxes(1, 2).reshape(b * n, -1, d) for x in (q, k, v))
    starts = jnp.arange(0, rows, CPU_BLOCK)

    def head(args: tuple[Array, Array, Array]) -> Array:
        queries, keys, values = args

        @jax.checkpoint
        def block(args: tuple[Array, Array]) -> Array:
            queries, start = args
            rows = start + jnp.arange(CPU_BLOCK) if causal else None
            return _softmax_matmul(queries, keys, values, rows)

        return jax.lax.map(block, (queries.reshape(-1, CPU_BLOCK, d), starts)).reshape(rows, d)

    out = jax.lax.map(head, (q, k, v)).reshape(b, n, rows, d)
    return out.swapaxes(1, 2)[:, :length]


def queries_by_blocks(
    q: Float[Array, "b l n d"], k: Float[Array, "b m n d"], v: Float[Array, "b m n d"], causal: bool
) -> Float[Array, "b l n d"]:
    """One block of queries of all examples and heads after the other, so that memory stays linear
    in the length: for a head that is too wide for the kernels, such as that of first stages."""
    length = q.shape[1]
    rows = -(-length // CUDA_BLOCK) * CUDA_BLOCK
    q = jnp.pad(q, ((0, 0), (0, rows - length), (0, 0), (0, 0)))
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    starts = jnp.arange(0, rows, CUDA_BLOCK)

    @jax.checkpoint
    def block(start: Array) -> Array:
        queries = jax.lax.dynamic_slice_in_dim(q, start, CUDA_BLOCK, axis=2)
        return _softmax_matmul(queries, k, v, start + jnp.arange(CUDA_BLOCK) if causal else None)

    out = jax.lax.map(block, starts)
    return jnp.moveaxis(out, 0, 2).reshape(q.shape).swapaxes(1, 2)[:, :length]


def flash(
    q: Float[Array, "b l n d"], k: Float[Array, "b m n d"], v: Float[Array, "b m n d"], causal: bool
) -> Float[Array, "b l n d"]:
    """The Pallas TPU kernel (Dao 2022), divided over the mesh in context if there is one."""
    b, length, n, d = q.shape
    block = _flash_block(length, k.shape[1])
    # Below one row of lanes the kernel takes any head; above, only whole rows.
    pad = -d % TPU_LANES if d > TPU_LANES else 0
    kernel = functools.partial(
        pallas.flash_attention, causal=causal, sm_scale=d**-0.5, block_sizes=_block_sizes(block)
    )
    q, k, v = (jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, 0), (0, pad))) for x in (q, k, v))
    return _divided(kernel, b, n, heads_first=True)(q, k, v).swapaxes(1, 2)[..., :d]


def cudnn(
    q: Float[Array, "b l n d"], k: Float[Array, "b m n d"], v: Float[Array, "b m n d"], causal: bool
) -> Float[Array, "b l n d"]:
    """cuDNN's flash attention, divided over the mesh in context if there is one.

    JAX differentiates it at even lengths alone. So an odd one, such as CLIP's 77 tokens, gets a row
    of zeros at its end, which changes nothing: the query's result is cut off, and the key is hidden
    from the others.
    """
    b, length, n, _ = q.shape
    keys = k.shape[1]
    # A causal query does not see so far, unless there are more queries than keys.
    hide = keys % 2 == 1 and not (causal and length <= keys)

    def kernel(q: Array, k: Array, v: Array) -> Array:
        seen = jnp.full(q.shape[0], keys, jnp.int32) if hide else None
        return jax.nn.dot_product_attention(
            q, k, v, is_causal=causal, key_value_seq_lengths=seen, implementation="cudnn"
        )

    q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    return _divided(kernel, b, n, heads_first=False)(q, k, v)[:, :length]


def _divided(
    kernel: Callable[..., Array], batch: int, heads: int, *, heads_first: bool
) -> Callable[..., Array]:
    """`kernel(q, k, v)` of 4 axes each, on the share of each device of the mesh in context."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1:
        return kernel
    spec = [dividing(mesh, BATCH_AXES, batch), None, None]
    spec[1 if heads_first else 2] = dividing(mesh, (HEAD_AXIS,), heads)
    spec = PartitionSpec(*spec)
    return jax.shard_map(kernel, mesh=mesh, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)


def _softmax_matmul(
    q: Array, k: Array, v: Array, rows: Array | None, seen: Array | None = None
) -> Array:
    """Attention over the last two axes, [... l d]; `rows` are the queries' places if causal, and
    `seen`, in the axes of the scores, is False for keys that are not.

    What is divided by the sum of the exponentials is not the weights but their outputs, which are
    fewer (Dao 2022, eq. 1-3 of one block): on CPU half the time. For the same reason queries are
    scaled, not scores; but scores of half precision, as the originals do it, which are float32.
    """
    scale, exact = q.shape[-1] ** -0.5, q.dtype.itemsize >= 4
    scores = _scores(q * scale, k) if exact else _scores(q, k) * scale
    if rows is not None:
        before = jnp.arange(k.shape[-2])[None] <= rows[:, None]
        scores = jnp.where(jnp.broadcast_to(before, scores.shape), scores, -jnp.inf)
    if seen is not None:
        scores = jnp.where(jnp.broadcast_to(seen, scores.shape), scores, _UNSEEN)
    highest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - highest)
    out = _weighted(weights.astype(v.dtype), v) / weights.sum(axis=-1, keepdims=True)
    return out.astype(v.dtype)


def _scores_product(q: Array, k: Array) -> Array:
    return jnp.einsum("...ld,...md->...lm", q, k, preferred_element_type=jnp.float32)


def _weighted_product(weights: Array, v: Array) -> Array:
    return jnp.einsum("...lm,...md->...ld", weights, v, preferred_element_type=jnp.float32)


def _for_keys(queries: Array, weights: Array) -> Array:
    """weightsᵀ queries, [... m d]; XLA's own form takes three times as long on a CPU."""
    return jnp.einsum("...ld,...lm->...dm", queries, weights).swapaxes(-1, -2)


_scores = bilinear(
    _scores_product,
    lambda bar, q, k: jnp.einsum("...lm,...md->...ld", bar.astype(q.dtype), k),
    lambda bar, q, k: _for_keys(q, bar.astype(k.dtype)),
)
_weighted = bilinear(
    _weighted_product,
    lambda bar, weights, v: jnp.einsum("...ld,...md->...lm", bar.astype(v.dtype), v),
    lambda bar, weights, v: _for_keys(bar.astype(v.dtype), weights),
)


def _cudnn_takes(*inputs: Array) -> bool:
    half = {x.dtype for x in inputs} in ({jnp.dtype("float16")}, {jnp.dtype("bfloat16")})
    width = inputs[0].shape[-1]
    return half and width % CUDNN_MULTIPLE == 0 and width <= widest_cudnn_head()


@functools.cache
def widest_cudnn_head() -> int:
    """Channels of a head that cuDNN's attention takes on all GPUs of this machine; where there are
    none, those that it takes on any GPU; 0 where it cannot be traced.

    JAX's CUDA plugin brings it. Without it a program for CUDA is lowered with plain attention.
    """
    x = jax.ShapeDtypeStruct((1, 8, 1, 8), jnp.bfloat16)
    kernel = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
    try:
        jax.eval_shape(kernel, x, x, x)
    except RuntimeError:
        return 0
    gpus = [gpu for gpu in jax.local_devices() if "cuda" in gpu.client.platform_version]
    least = min((int(gpu.compute_capability.split(".")[0]) for gpu in gpus), default=8)
    return max((width for start, width in CUDNN_WIDTHS.items() if least >= start), default=0)


def _flash_block(queries: int, keys: int) -> int | None:
    """The largest block that divides both lengths; None where the kernel is not used."""
    if min(queries, keys) < FLASH_LENGTH:
        return None
    return next((n for n in FLASH_BLOCKS if queries % n == keys % n == 0), None)


def _block_sizes(block: int) -> pallas.BlockSizes:
    return pallas.BlockSizes(
        block_q=block, block_k_major=block, block_k=block, block_b=1,
        block_q_major_dkv=block, block_k_major_dkv=block, block_k_dkv=block, block_q_dkv=block,
        block_k_major_dq=block, block_k_dq=block, block_q_dq=block,
    )  # fmt: skip
