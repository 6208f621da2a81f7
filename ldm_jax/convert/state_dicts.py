"""Between the parameters of this project and state dicts of diffusers and transformers.

One rule serves all networks: a level here is a dot there. A `kernel` is a `weight` with its axes
turned, of a convolution from OIHW to HWIO, of a dense layer from [out, in] to [in, out]; `scale`
and `embedding` are a `weight` as it is, and what is called otherwise keeps its name. The modules of
this project decide which of these a name is; nothing is guessed from a file.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ldm_jax.adapters.weights import KERNEL_AXES
from ldm_jax.convert.imported_model import DTYPES, ConvertError
from ldm_jax.core import tree
from ldm_jax.core.reading import shown

Rules = Iterable[tuple[str, str]]
"""(regular expression for a whole name, why such a tensor is not used)."""

_WEIGHTS = {"kernel", "scale", "embedding"}
READABLE = {*DTYPES.values(), np.dtype(np.float64)}
"""Number types of weights."""


@dataclass(frozen=True)
class Leaf:
    """One parameter: where it is here, what it is called there, and how its axes are turned."""

    path: str
    name: str
    torch_shape: tuple[int, ...]
    axes: tuple[int, ...]
    """Axis i of the array here is axis `axes[i]` there."""

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        return array.transpose(self.axes)

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        return array.transpose(np.argsort(self.axes))


def leaves(shapes: Any) -> list[Leaf]:
    """The parameters of a tree of shapes under their diffusers names."""
    return [_leaf(path, tuple(leaf.shape)) for path, leaf in tree.flatten(shapes).items()]


def _leaf(path: str, shape: tuple[int, ...]) -> Leaf:
    *levels, last = path.split("/")
    axes = KERNEL_AXES[len(shape)] if last == "kernel" else tuple(range(len(shape)))
    name = ".".join([*levels, "weight" if last in _WEIGHTS else last])
    return Leaf(path, name, tuple(shape[axis] for axis in np.argsort(axes)), axes)


def to_torch(params: Any) -> dict[str, np.ndarray]:
    """A component's parameters as views in torch's layout, by diffusers name."""
    flat = tree.flatten(params)
    return {leaf.name: leaf.to_torch(np.asarray(flat[leaf.path])) for leaf in leaves(params)}


def from_torch(
    tensors: Mapping[str, np.ndarray],
    shapes: Any,
    where: str,
    ignore: Rules = (),
    spelled: Callable[[str], str] = lambda name: name,
    beside: Iterable[str] = (),
) -> tuple[dict[str, Any], dict[str, str]]:
    """The tree that `shapes` describes, as views of `tensors`, and what was ignored and why.

    `spelled` turns the spelling of an older file into today's; `beside` names what else the
    file has, which must be ignored for a reason. Dense layers may be stored as
    convolutions over one pixel, and the reverse: the shapes prove what they are.

    Raises:
        ConvertError: names what is missing, unexpected, misshapen or no weight, and `where`.
    """
    found, problems = {}, []
    known = {leaf.name: leaf for leaf in leaves(shapes)}
    others = [*beside]
    for old, tensor in tensors.items():
        name = spelled(old)
        if name not in known:
            others.append(old)
        elif name in found:
            raise ConvertError(f"{where} holds {shown(name)} twice, in an old and a new spelling")
        else:
            found[name] = tensor
    reasons = {name: why_ignored(name, ignore) for name in others}
    ignored = {name: why for name, why in reasons.items() if why is not None}
    unexpected = [shown(name) for name, why in reasons.items() if why is None]
    missing = [name for name in known if name not in found]
    flat, misshapen, foreign = {}, [], []
    for name, tensor in found.items():
        leaf = known[name]
        fitted = fit(tensor, leaf.torch_shape)
        if tensor.dtype not in READABLE:
            foreign.append(f"{name} ({tensor.dtype})")
        elif fitted is None:
            wanted = list(leaf.torch_shape)
            misshapen.append(f"{shown(name)} (is {list(tensor.shape)}, wanted {wanted})")
        else:
            flat[leaf.path] = leaf.to_ours(fitted)
    for what, listed in (
        ("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen),
        ("of a dtype that weights do not have", foreign),
    ):  # fmt: skip
        if listed:
            problems.append(f"{len(listed)} {what}: {enumerated(listed)}")
    if problems:
        raise ConvertError(f"{where} does not fit its architecture: {'; '.join(problems)}")
    return tree.unflatten({leaf.path: flat[leaf.path] for leaf in known.values()}), ignored


def why_ignored(name: str, rules: Rules) -> str | None:
    """The reason of the first rule that matches `name`; None where none does."""
    return next((why for pattern, why in rules if re.fullmatch(pattern, name)), None)


def fit(tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """`tensor` in `shape`, where they differ in trailing axes of one element only, or None."""

    def squeezed(sizes: tuple[int, ...]) -> tuple[int, ...]:
        while len(sizes) > 2 and sizes[-1] == 1:
            sizes = sizes[:-1]
        return sizes

    if tensor.shape == shape:
        return tensor
    pointwise = min(len(shape), tensor.ndim) == 2 and squeezed(tensor.shape) == squeezed(shape)
    return tensor.reshape(shape) if pointwise else None


def is_finite(tensor: np.ndarray) -> bool:
    """Whether all numbers of a tensor are finite in float32, which is what is computed in."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.asarray(tensor, np.float32)).all())


def enumerated(listed: Iterable[str]) -> str:
    """The first few of `listed`, and how many more there are."""
    names = list(listed)
    more = f" and {len(names) - tree.LISTED} more" if len(names) > tree.LISTED else ""
    return ", ".join(names[: tree.LISTED]) + more
