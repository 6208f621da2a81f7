"""Adapters applied from outside: networks compute as they are, and what adapters add is added to
the output of each module.

Every layer is linear in its parameters, so a layer with its changes for parameters gives what the
changed layer's output has more. What was merged cannot be trained apart; this can, for the
adapters' arrays stand beside the network's own parameters, under `ADAPTERS`:

    unet/adapters/0/strength                                      a number
    unet/adapters/0/modules/mid_block/…/to_q/lora/down            arrays of the kinds
    unet/adapters/keys                                            in training, of each example
    unet/adapters/hypernetworks/0/strength                        a number
    unet/adapters/hypernetworks/0/nets/320/k/0/weight             as in their files
    conditioners/text_encoder/adapters/embeddings/NAME            [n d], rows behind the table of
                                                                  tokens, in the names' order
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Key, Shaped

from ldm_jax import config as cfg
from ldm_jax.adapters import kinds as all_kinds
from ldm_jax.adapters.adapter import UNET, Adapter, AdapterUse, Modules
from ldm_jax.adapters.hypernetwork import BEFORE, Nets, apply_net
from ldm_jax.adapters.kind import Kind
from ldm_jax.adapters.lora import LoRA
from ldm_jax.adapters.merging import MergeError, deltas
from ldm_jax.adapters.weights import flat, float32, kernel_of, placed, scaled
from ldm_jax.core import rngs, tree
from ldm_jax.latent_diffusion import LatentDiffusion
from ldm_jax.models.conditioners import TextEncoder
from ldm_jax.models.convolution import double
from ldm_jax.models.layers import Conv

ADAPTERS = "adapters"
"""No network has parameters of this name."""
TEXT, TOKENS = "text_encoder", ("token_embedding", "embed_tokens")
"""What embeddings are for, and what its table of tokens is called: CLIP's, and BERT's."""


KEYS, HYPERNETWORKS, EMBEDDINGS = "keys", "hypernetworks", "embeddings"


@dataclass(frozen=True)
class Dropouts:
    """What is left out of adapters in training: of one module, by the key of each example."""

    config: cfg.ModuleAdapter
    keys: Key[Array, "b"]

    def inputs(self, x: Float[Array, "b *d"]) -> Float[Array, "b *d"]:
        """Single inputs are left out, the others made larger by as much."""
        return self._scaled("inputs", x, x.shape[1:], self.config.dropout)

    def ranks(self, between: Float[Array, "b *d r"]) -> Float[Array, "b *d r"]:
        """As `inputs`, of an example's ranks, at all places alike."""
        shape = (*[1] * (between.ndim - 2), between.shape[-1])
        return self._scaled("ranks", between, shape, getattr(self.config.kind, "rank_dropout", 0.0))

    def change(self, added: Float[Array, "b *d"]) -> Float[Array, "b *d"]:
        """All of an example's, or nothing."""
        share = self.config.module_dropout
        return jnp.where(self._kept("module", [1] * (added.ndim - 1), share), added, 0)

    def _scaled(self, name: str, x: Array, shape: Sequence[int], share: float) -> Array:
        return jnp.where(self._kept(name, shape, share), x / jnp.asarray(1 - share, x.dtype), 0)

    def _kept(self, name: str, shape: Sequence[int], share: float) -> Any:
        return rngs.uniform(rngs.named(self.keys, name), (*shape,)) >= share if share else True


@dataclass(frozen=True)
class Adapted:
    """A network that finds adapters beside its parameters, if there are any."""

    network: Any
    """A Flax module, or what is applied like one."""
    training: cfg.Adapter | None = None
    """What says which parts of adapters training leaves out."""
    hypernetworks: tuple[cfg.Hypernetwork, ...] = ()
    """The forms of those beside the parameters, in order."""

    def init(self, *arguments: Any) -> Any:
        """As the network's, without adapters."""
        return self.network.init(*arguments)

    def apply(self, variables: Any, *arguments: Any, **how: Any) -> Any:
        """As the network's."""
        params = dict(variables["params"])
        found = dict(params.pop(ADAPTERS, {}))
        keys = found.pop(KEYS, None)
        chain = [(form, found[HYPERNETWORKS][str(i)]) for i, form in enumerate(self.hypernetworks)]
        found.pop(HYPERNETWORKS, None)
        rows = found.pop(EMBEDDINGS, {})
        variables = {**variables, "params": params}
        uses = [(one["strength"], _modules(one["modules"])) for one in found.values()]

        def dropouts(path: str) -> Dropouts | None:
            return None if keys is None else Dropouts(self.training, rngs.named(keys, path))

        with contextlib.ExitStack() as interceptors:
            if uses:
                interceptors.enter_context(
                    nn.intercept_methods(partial(_intercept, uses, dropouts))
                )
            if rows:
                table = jnp.concatenate([rows[name] for name in sorted(rows)])
                interceptors.enter_context(nn.intercept_methods(partial(_embed, table)))
            if chain:  # the last one comes first
                interceptors.enter_context(nn.intercept_methods(partial(_before, chain, keys)))
            return self.network.apply(variables, *arguments, **how)


def adapt(
    model: LatentDiffusion,
    training: cfg.Adapter | None = None,
    hypernetworks: Sequence[cfg.Hypernetwork] = (),
) -> LatentDiffusion:
    """`model` with networks that find adapters beside their parameters, `hypernetworks` of these
    forms among them; `training` says which parts are left out where there are keys for it
    (`with_keys`)."""
    conditioners = tuple(
        replace(one, module=Adapted(one.module, training)) if isinstance(one, TextEncoder) else one
        for one in model.conditioners
    )
    unet = Adapted(model.unet, training, (*hypernetworks,))
    return replace(model, unet=unet, conditioners=conditioners)


def with_keys(params: Mapping[str, Any], keys: Key[Array, "b"]) -> dict[str, Any]:
    """The parameters of a model with adapters beside them, which leave out what training leaves
    out; the `keys` are those of the examples."""

    def keyed(own: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**own, ADAPTERS: {**own[ADAPTERS], KEYS: keys}} if ADAPTERS in own else own

    conditioners = {name: keyed(own) for name, own in params.get("conditioners", {}).items()}
    return {**params, UNET: keyed(params[UNET]), "conditioners": conditioners}


def put_beside(params: Mapping[str, Any], uses: Sequence[AdapterUse]) -> dict[str, Any]:
    """The parameters `{"unet", "conditioners"}` of a model with adapters beside them.

    Raises:
        MergeError: an adapter changes a component that the model does not have.
    """
    components = {UNET: params.get(UNET, {}), **params.get("conditioners", {})}
    for number, use in enumerate(uses):
        for name, modules in use.adapter.components.items():
            if name not in components:
                raise MergeError(f"the model has no {name}, which the adapter changes")
            one = {"strength": np.float32(use.strength(name)), "modules": to_tree(modules)}
            others = components[name].get(ADAPTERS, {})
            components[name] = {**components[name], ADAPTERS: {**others, str(number): one}}
    conditioners = {name: components[name] for name in params.get("conditioners", {})}
    return {**params, UNET: components[UNET], "conditioners": conditioners}


def take_apart(params: Mapping[str, Any]) -> tuple[dict[str, Any], list[AdapterUse]]:
    """Undoes `put_beside`: the parameters of a model, and the adapters beside them but for
    hypernetworks and embeddings, which cannot be merged."""
    bare = {**params, UNET: _without(params[UNET])}
    components = {UNET: params[UNET], **params.get("conditioners", {})}
    if "conditioners" in params:
        bare["conditioners"] = {name: _without(own) for name, own in params["conditioners"].items()}
    numbered: dict[str, dict[str, tuple[float, Modules]]] = {}
    for name, own in components.items():
        for number, one in own.get(ADAPTERS, {}).items():
            if number in (HYPERNETWORKS, EMBEDDINGS):
                continue
            strength = float(one["strength"])
            numbered.setdefault(number, {})[name] = strength, _modules(one["modules"])
    uses = []
    for _, found in sorted(numbered.items(), key=lambda item: int(item[0])):
        text = next((s for name, (s, _) in found.items() if name != UNET), 1.0)
        adapter = Adapter({name: modules for name, (_, modules) in found.items()})
        uses.append(AdapterUse(adapter, found.get(UNET, (1.0,))[0], text))
    return bare, uses


def _without(own: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in own.items() if name != ADAPTERS}


def put_hypernetworks_beside(
    params: Mapping[str, Any], nets: Sequence[tuple[float, Nets]]
) -> dict[str, Any]:
    """The parameters of a model with hypernetworks, each with its strength, beside its U-Net's; as
    they are where there are none."""
    if not nets:
        return {**params}
    chain = {
        str(i): {"strength": np.float32(strength), "nets": arrays}
        for i, (strength, arrays) in enumerate(nets)
    }
    others = params[UNET].get(ADAPTERS, {})
    return {**params, UNET: {**params[UNET], ADAPTERS: {**others, HYPERNETWORKS: chain}}}


def without_hypernetworks(params: Mapping[str, Any]) -> dict[str, Any]:
    """Undoes `put_hypernetworks_beside`."""
    others = {n: one for n, one in params[UNET].get(ADAPTERS, {}).items() if n != HYPERNETWORKS}
    bare = _without(params[UNET])
    return {**params, UNET: {**bare, ADAPTERS: others} if others else bare}


def put_embeddings_beside(
    params: Mapping[str, Any], embeddings: Mapping[str, Shaped[Array | np.ndarray, "n d"]]
) -> dict[str, Any]:
    """The parameters of a model with these vectors beside those of its text encoder: token numbers
    from its `vocab_size` on are their rows, in the order of the names.

    Raises:
        MergeError: the model has no text encoder.
    """
    conditioners = params.get("conditioners", {})
    if TEXT not in conditioners:
        raise MergeError("the model has no text encoder, which embeddings are for")
    own = conditioners[TEXT]
    beside = {**own.get(ADAPTERS, {}), EMBEDDINGS: {**embeddings}}
    return {**params, "conditioners": {**conditioners, TEXT: {**own, ADAPTERS: beside}}}


def to_tree(modules: Modules) -> dict[str, Any]:
    """Nested dicts of arrays: the levels of each module's path, its kinds, their arrays."""
    return tree.unflatten({
        f"{path}/{name}": array
        for path, kinds in modules.items()
        for name, array in tree.flatten(all_kinds.to_tree(kinds)).items()
    })  # fmt: skip


def _modules(nested: Mapping[str, Any]) -> dict[str, tuple[Kind, ...]]:
    """Undoes `to_tree`."""
    return {path: all_kinds.from_tree(kinds) for path, kinds in _walk(nested, ())}


def _walk(node: Any, above: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if all_kinds.is_tree(node):
        yield "/".join(above), node
        return
    for name, below in node.items():
        yield from _walk(below, (*above, name))


def _intercept(
    uses: Sequence[tuple[Any, Modules]],
    dropouts: Callable[[str], Dropouts | None],
    call: Callable[..., Any],
    arguments: tuple,
    how: dict,
    context: Any,
) -> Any:
    module = context.module
    result = call(*arguments, **how)
    if context.method_name != "__call__":
        return result
    path = "/".join(module.path)
    for strength, modules in uses:
        if path in modules:
            more = _added(module, modules[path], arguments[0], dropouts(path))
            result = result + (more * jnp.asarray(strength, more.dtype)).astype(result.dtype)
    return result


def _embed(
    rows: Shaped[Array, "n d"],
    call: Callable[..., Any],
    arguments: tuple,
    how: dict,
    context: Any,
) -> Any:
    """The call of a module; of the table of tokens, with `rows` behind its own."""
    path = context.module.path
    if not path or path[-1] not in TOKENS or context.method_name != "__call__":
        return call(*arguments, **how)
    (tokens,) = arguments
    first = context.module.num_embeddings
    own = call(jnp.minimum(tokens, first - 1), **how)
    more = rows[jnp.maximum(tokens - first, 0)].astype(own.dtype)
    return jnp.where((tokens >= first)[..., None], more, own)


def _before(
    chain: Sequence[tuple[cfg.Hypernetwork, Mapping[str, Any]]],
    keys: Key[Array, "b"] | None,
    call: Callable[..., Any],
    arguments: tuple,
    how: dict,
    context: Any,
) -> Any:
    """The call of a module, of keys and of values with what hypernetworks make of its input."""
    path = context.module.path
    side = next((s for s, name in BEFORE.items() if path and path[-1] == name), None)
    if side is None or context.method_name != "__call__" or not path[-2].startswith("attn"):
        return call(*arguments, **how)
    x, *others = arguments
    for number, (form, one) in enumerate(chain):
        net = one["nets"].get(str(x.shape[-1]))
        if net is not None:
            place = "/".join((*path, HYPERNETWORKS, str(number)))
            own = None if keys is None else rngs.named(keys, place)
            x = apply_net(form, net[side], x, one["strength"], own)
    return call(x, *others, **how)


def _added(
    module: nn.Module, kinds: tuple[Kind, ...], x: Array, dropouts: Dropouts | None
) -> Array:
    """What the module's output has more with `kinds` in it."""
    layer, form = isinstance(module, nn.Dense | Conv), {}
    if dropouts is not None and layer:
        if isinstance(module, Conv) and module.doubled and dropouts.config.dropout:
            # Of the pixels that the kernel sees each is left out by itself.
            x, form = double(x), {"doubled": False}
        x = dropouts.inputs(x)
    if layer and _is_plain(kinds):
        added = _through_rank(_apart(module, **form), kinds[0], x, dropouts)
    else:
        own = module.variables["params"]
        changes = deltas(kinds, own)
        changes = {n: changes.get(n, jnp.zeros(leaf.shape, jnp.float32)) for n, leaf in own.items()}
        added = _apart(module, **form).apply({"params": changes}, x)
    return added if dropouts is None else dropouts.change(added)


def _is_plain(kinds: tuple[Kind, ...]) -> bool:
    return len(kinds) == 1 and isinstance(kinds[0], LoRA) and kinds[0].mid is None


def _through_rank(
    module: nn.Dense | Conv, lora: LoRA, x: Array, dropouts: Dropouts | None
) -> Array:
    """By way of the few values between `down` and `up`, so that no change of a whole weight is
    made, nor its gradient."""
    sides = (module.kernel_size,) * 2 if isinstance(module, Conv) else ()
    down = placed(float32(lora.down), (lora.rank, x.shape[-1], *sides))
    narrow = _apart(module, features=lora.rank, use_bias=False)
    between = narrow.apply({"params": {"kernel": kernel_of(down)}}, x)
    if dropouts is not None:
        between = dropouts.ranks(between)
    up = scaled(lora.alpha, lora.rank, float32(flat(lora.up)))
    return between @ up.T.astype(between.dtype)


def _apart(module: nn.Module, **changes: Any) -> Any:
    """The module on its own. Other interceptors, such as those of tileable textures, take it for
    the one in the network."""
    return module.clone(parent=None, name=None, **changes)
