"""Where arrays live: the device mesh, one rule table for all parameters, host data → global arrays.

The mesh has three axes. `data` and `fsdp` split the batch; `fsdp` also splits parameters,
optimiser moments and averages, which are gathered when a layer needs them; `tensor` splits the
work inside attention, feed-forward and residual blocks. Parameters that are not trained lie as
those that are.
"""

import collections
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.experimental.layout import Format, Layout
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from ldm_jax import config as cfg
from ldm_jax.core import tree

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

MIN_SHARDED_SIZE = 4096
"""Arrays of fewer values are kept whole: gathering them costs more than they occupy."""

FREE_LAYOUTS = {"gpu"}
"""Platforms whose compiler chooses how the state of training lies in memory."""


@dataclass(frozen=True)
class Rule:
    """Which dimension of a parameter goes to which mesh axis, counted from the end."""

    fsdp: int | None
    tensor: int | None


INTO = Rule(fsdp=-2, tensor=-1)
"""The first of a pair of layers: each `tensor` device computes its share of the outputs."""
OUT_OF = Rule(fsdp=-1, tensor=-2)
"""The second of the pair: each `tensor` device adds up its share of the inputs."""
ALONE = Rule(fsdp=-1, tensor=None)
WHOLE = Rule(fsdp=None, tensor=None)

PARAMETER_RULES: tuple[tuple[str, Rule], ...] = (
    (r"(.*/)?adapters/(\d+|hypernetworks|embeddings)/.*", WHOLE),
    (r"(.*/)?(to_q|to_k|to_v|q_proj|k_proj|v_proj)/kernel", INTO),
    (r"(.*/)?(to_out/0|out_proj)/kernel", OUT_OF),
    (r"(.*/)?attn/(query|key|value)/kernel", INTO),
    (r"(.*/)?attn/proj/kernel", OUT_OF),
    (r"(.*/)?mlp/0/kernel", INTO),
    (r"(.*/)?mlp/2/kernel", OUT_OF),
    (r"(.*/)?head/kernel", INTO),
    (r"(.*/)?(net/0/proj|fc1)/kernel", INTO),
    (r"(.*/)?(net/2|fc2)/kernel", OUT_OF),
    (r"(.*/)?(resnets|downsamplers|upsamplers)/\d+/(conv1|time_emb_proj)/kernel", INTO),
    (r"(.*/)?(resnets|downsamplers|upsamplers)/\d+/conv2/kernel", OUT_OF),
    (r"(.*/)?(conv_in|conv_out|conv|conv_shortcut|quant_conv|post_quant_conv)/kernel", ALONE),
    (r"(.*/)?(proj_in|proj_out|pooled_proj|channel_mapper)/kernel", ALONE),
    (r"(.*/)?(patch_embedding|patch_embeddings/projection)/kernel", ALONE),
    (r"(.*/)?(text|visual)_projection/kernel", ALONE),
    (r"(.*/)?caption_map/(hidden|out)/kernel", ALONE),
    (r"(.*/)?controlnet_(cond_embedding/blocks/\d+|down_blocks/\d+|mid_block)/kernel", ALONE),
    (r"(.*/)?quantize/(project_in|project_out|proj)/kernel", ALONE),
    (r"(.*/)?(time_embedding/linear_[12]|add_embedding)/kernel", ALONE),
    (r"(.*/)?(main/\d+|features/\d+|lin\d)/kernel", ALONE),
    (r"(.*/)?(\w*embedding(/embedding)?|position_embeddings)", ALONE),
    (r"(.*/)?(scale|bias|cls_token|lambda1)", WHOLE),
    (r"(.*/)?batch_stats/.*/(mean|var)", WHOLE),
    (r"own/codebook/(counts|sums|idle)", WHOLE),
    (r"latent_(mean|std)", WHOLE),
    (r"own/(history|count)", WHOLE),
)
"""(pattern of the whole path, rule): kernels are HWIO or IO. Patterns look at the end of a path,
so that moments and averages of a parameter follow its rule. The first match decides."""


def make_mesh(config: cfg.Mesh, devices: Sequence[Any] | None = None) -> Mesh:
    """Mesh (data, fsdp, tensor) with Auto axes over `devices`, by default all of this run.

    Neighbours on the `tensor` axis are neighbours in the network where the platform says how. Where
    the devices are of several slices of TPUs, or of several machines with GPUs, `data` reaches over
    them, so that what is exchanged in each layer stays within one; `fsdp` does, too, over machines
    with GPUs that `data` is too small for. `devices` may be those of a topology description, for
    compiling without the hardware.

    Raises:
        cfg.ConfigError: the sizes do not multiply to the number of devices, or do not fit the
            slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [config.data, config.fsdp, config.tensor]
    known = math.prod(n for n in sizes if n != -1)
    shown = ", ".join(f"mesh.{name}={n}" for name, n in zip(AXES, sizes, strict=True))
    if len(devices) % known or (-1 not in sizes and known != len(devices)):
        raise cfg.ConfigError(
            f"{shown} needs {'a multiple of ' if -1 in sizes else ''}{known} devices, but there "
            f"are {len(devices)}; the three sizes must multiply to it (-1 takes what is left)"
        )
    shape = tuple(len(devices) // known if n == -1 else n for n in sizes)
    auto = (AxisType.Auto,) * 3
    slices = collections.Counter(getattr(device, "slice_index", 0) for device in devices)
    if len(slices) == 1:
        return jax.make_mesh(shape, AXES, axis_types=auto, devices=devices)
    return Mesh(_of_slices(shape, slices, devices), AXES, axis_types=auto)


def _of_slices(
    shape: tuple[int, ...], slices: Mapping[int, int], devices: Sequence[Any]
) -> np.ndarray:
    """Devices of several slices, of which each has so many, as an array of this shape; raises
    ConfigError where it does not fit them."""
    if len(set(slices.values())) > 1:
        raise cfg.ConfigError(
            f"the devices are {len(slices)} slices of {', '.join(map(str, slices.values()))} "
            "devices; they must be equally large"
        )
    of_tpus = devices[0].platform == "tpu"
    outer, rest = [1, 1, 1], len(slices)
    for place in range(1 if of_tpus else 2):
        outer[place] = math.gcd(rest, shape[place])
        rest //= outer[place]
    if rest > 1:
        raise cfg.ConfigError(
            f"the {len(devices)} devices are {len(slices)} "
            + ("slices, over which mesh.data reaches alone" if of_tpus else
               "machines, over which mesh.data and mesh.fsdp reach")
            + f": mesh.data={shape[0]}{'' if of_tpus else f' times mesh.fsdp={shape[1]}'} must be "
            f"a multiple of {len(slices)}"
        )  # fmt: skip
    inner = [size // parts for size, parts in zip(shape, outer, strict=True)]
    return mesh_utils.create_hybrid_device_mesh(
        inner, outer, devices, allow_split_physical_axes=True
    )


def check_batch(mesh: Mesh, batch_size: int, accumulation: int = 1) -> None:
    """Raises cfg.ConfigError unless each device gets equally many rows of each micro-batch."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (shards * accumulation):
        raise cfg.ConfigError(
            f"data.batch_size is {batch_size}; it must be a multiple of {shards * accumulation}: "
            f"{shards} devices share a batch (mesh.data {mesh.shape['data']} times mesh.fsdp "
            f"{mesh.shape['fsdp']}), in optim.accumulation {accumulation} micro-batches"
        )


def free_layouts(shardings: Any, mesh: Mesh) -> Any:
    """The same places for arrays whose order in memory the compiler of a program may choose, on
    platforms where that pays.

    On GPUs kernels of convolutions would else be transposed in each step, 9 GB in one of Stable
    Diffusion's.
    """
    if mesh.devices.flat[0].platform not in FREE_LAYOUTS:
        return shardings
    return jax.tree.map(lambda sharding: Format(Layout.AUTO, sharding), shardings)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading dimension over all devices that share a batch, in the order of the mesh."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def split_batch(x: Array) -> Array:
    """The same activations, kept split along the batch over the mesh in context, if there is one.

    Left alone, XLA may prefer to split channels as the parameters are split, and then exchanges
    activations between all devices at every layer instead of gathering the smaller parameters.
    """
    axes = dividing(jax.sharding.get_abstract_mesh(), BATCH_AXES, x.shape[0])
    if not axes:
        return x
    free = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, *free))


def dividing(mesh: AbstractMesh, axes: tuple[str, ...], size: int) -> tuple[str, ...]:
    """Those of `axes` that are in the mesh and together divide `size`."""
    taken: tuple[str, ...] = ()
    for axis in axes:
        parts = mesh.shape.get(axis, 1)
        if parts > 1 and size % parts == 0:
            taken, size = (*taken, axis), size // parts
    return taken


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(mesh: Mesh, shapes: Any, min_size: int = MIN_SHARDED_SIZE) -> Any:
    """Shardings for a tree of parameters, trained or frozen, or for a whole training state.

    Args:
        mesh: as made by `make_mesh`.
        shapes: tree of arrays or `jax.ShapeDtypeStruct`; scalars are replicated.
        min_size: arrays of fewer values are replicated.

    A dimension that its axis does not divide stays whole.

    Raises:
        tree.TreeError: names the leaves that `PARAMETER_RULES` does not cover.
    """
    flat = tree.flatten(shapes)
    rules = tree.mask({path: leaf for path, leaf in flat.items() if leaf.ndim}, PARAMETER_RULES)
    shardings = [
        NamedSharding(mesh, _spec(mesh, leaf.shape, rules.get(path, WHOLE), min_size))
        for path, leaf in flat.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes), shardings)


def _spec(mesh: Mesh, shape: tuple[int, ...], rule: Rule, min_size: int) -> PartitionSpec:
    """The rule on an array of this shape, without what cannot or need not be split."""
    if math.prod(shape) < min_size:
        return PartitionSpec()
    axes: list[str | None] = [None] * len(shape)
    for axis, dimension in (("fsdp", rule.fsdp), ("tensor", rule.tensor)):
        size = mesh.shape[axis]
        if dimension is not None and size > 1 and shape[dimension] % size == 0:
            axes[dimension] = axis
    return PartitionSpec(*axes) if any(axes) else PartitionSpec()


def local_rows(mesh: Mesh, batch_size: int) -> tuple[int, ...]:
    """The rows of a global batch that devices of this process hold, in order.

    Rows belong to the shards of a batch, not to processes: where `tensor` reaches over several
    hosts, all of these hold, and must load, the same rows.
    """
    return rows_of(mesh, batch_size, mesh.local_devices)


def rows_of(mesh: Mesh, batch_size: int, devices: Sequence[Any]) -> tuple[int, ...]:
    """The rows of a global batch that `devices` hold, in order, each once."""
    places = batch_sharding(mesh).devices_indices_map((batch_size,))
    held = {places[device][0].indices(batch_size) for device in devices}
    return tuple(row for part in sorted(held) for row in range(*part))


def to_global(mesh: Mesh, host_batch: Any) -> Any:
    """This process's rows of a batch (numpy), `local_rows`, → global arrays over the batch devices.

    Processes whose devices hold the same rows must give the same values.

    Raises:
        ValueError: so many rows are no equal shares for the parts that this process holds.
    """
    sharding = batch_sharding(mesh)
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    held = rows_of(mesh, parts, mesh.local_devices)

    def place(rows: Any) -> Array:
        rows = np.asarray(rows)
        share, rest = divmod(len(rows), len(held))
        if rest:
            raise ValueError(
                f"{len(rows)} rows cannot be shared equally by the {len(held)} parts of a batch "
                "that the devices of this process hold"
            )

        def part(index: tuple[slice, ...]) -> np.ndarray:
            first = share * held.index((index[0].start or 0) // share)
            return rows[first : first + share]

        return jax.make_array_from_callback((parts * share, *rows.shape[1:]), sharding, part)

    return jax.tree.map(place, host_batch)
