"""Parameters of PyTorch modules as trees of ours, by rule: a dot is a level."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import torch

from ldm_jax.core import tree


def randomize(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """`module` for inference, with weights of usual size of which none is zero or one."""
    random = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        values = torch.randn(parameter.shape, generator=random)
        if parameter.ndim > 1:
            parameter.data = values * parameter[0].numel() ** -0.5
        else:
            parameter.data += 0.1 * values
    for part in module.modules():
        if isinstance(part, torch.nn.Embedding):
            part.weight.data *= part.weight.shape[1] ** 0.5
    return module.eval().requires_grad_(False)


def to_tree(
    module: torch.nn.Module, prefix: str = "", skip: tuple[str, ...] = (), release: bool = False
) -> Any:
    """The state dict as our parameters: OIHW → HWIO, [out, in] → [in, out].

    `prefix` is a level around all; those that begin with one of `skip` are left out. With
    `release` the module loses each as it is taken, and is of no use afterwards.
    """
    kinds = {name: type(part) for name, part in module.named_modules()}
    flat = {}
    for name, parameter in module.named_parameters():
        if name.startswith(skip):
            continue
        *levels, last = name.split(".")
        value = parameter.numpy()
        if last == "weight":
            kind = kinds[".".join(levels)]
            if issubclass(kind, torch.nn.Embedding):
                last = "embedding"
            elif value.ndim == 1:
                last = "scale"
            else:
                last, value = "kernel", value.transpose((2, 3, 1, 0) if value.ndim == 4 else (1, 0))
        outer = [prefix] if prefix else []
        flat["/".join([*outer, *levels, last])] = jnp.array(value)
        if release:
            parameter.data = torch.empty(0)
    return {"params": tree.unflatten(flat)}


def relative_error(ours: Any, theirs: torch.Tensor) -> float:
    """‖ours − theirs‖ / ‖theirs‖; theirs is NCHW if it has four axes."""
    theirs = theirs.permute(0, 2, 3, 1) if theirs.ndim == 4 else theirs
    theirs = theirs.numpy()
    assert ours.shape == theirs.shape
    return float(np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs))
