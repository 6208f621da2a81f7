"""The tensors that a file has of one module, as the change that they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ldm_jax.adapters.dora import DoRA
from ldm_jax.adapters.ia3 import IA3
from ldm_jax.adapters.kind import BiasKind, Kind, WeightKind
from ldm_jax.adapters.kinds import KINDS
from ldm_jax.convert.adapters.module_names import Place
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.state_dicts import READABLE, is_finite
from ldm_jax.core.reading import shown

_NEEDED = {
    "lora": ("down", "up"), "loha": ("w1_a", "w1_b", "w2_a", "w2_b"), "lokr": (),
    "ia3": ("weight", "on_input"), "full": ("diff",), "norm": (),
}  # fmt: skip
"""Kinds of change of a weight, and the arrays without which each is none."""
Alpha = Callable[[Place, int | None], np.ndarray | None]
"""Alpha of a module and its rank, from elsewhere than the tensors; None where it is not told."""


@dataclass
class Group:
    """Tensors of one module."""

    where: str
    """The file, for errors."""
    place: Place
    tensors: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    """By kind and array."""
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    """What the file calls them."""
    notes: list[str] = field(default_factory=list)

    def add(self, part: tuple[str, str], key: str, tensor: np.ndarray) -> None:
        """One more tensor. Raises ConvertError for one that is there already, or is no weight."""
        if part in self.tensors:
            raise self.error(key, f"is there twice, the first time as {shown(self.keys[part])}")
        number = part[1] in ("alpha", "on_input")
        # Programs write alpha as the whole number that they were given.
        if tensor.dtype not in READABLE and not (number and tensor.dtype.kind in "biu"):
            raise self.error(key, f"is of {tensor.dtype}, a type that weights do not have")
        if not number and (tensor.ndim == 0 or tensor.size == 0):
            raise self.error(key, f"has the shape {list(tensor.shape)}, which no part of a change "
                                  "has; the file is damaged")  # fmt: skip
        if not is_finite(tensor):
            raise self.error(key, "has values that are no finite numbers; the file is damaged")
        self.tensors[part], self.keys[part] = tensor, key

    def error(self, key: str, problem: str) -> ConvertError:
        """Names file and key."""
        return ConvertError(f"{self.where}: {shown(key)} {problem}")

    def kinds(self, alpha_of: Alpha) -> tuple[Kind, ...]:
        """What the tensors are.

        Raises:
            ConvertError: names a tensor that is missing, contradicts others, or does not fit.
        """
        names = [name for name in _NEEDED if any(kind == name for kind, _ in self.tensors)]
        first = next(iter(self.keys.values()))
        if len(names) > 1:
            both = " and ".join(names)
            raise self.error(first, f"is of a module with {both}; which is meant is not told")
        made: list[Kind] = []
        if names:
            made.append(self._weight(names[0], alpha_of))
        elif stray := [key for part, key in self.keys.items() if part[0] != "bias"]:
            raise self.error(stray[0], "stands alone; the change that it belongs to is missing")
        if ("bias", "diff") in self.tensors:
            made.append(KINDS["bias"](self.tensors["bias", "diff"]))
        for one in made:
            self._check(one)
        return tuple(made)

    def _weight(self, name: str, alpha_of: Alpha) -> Kind:
        own = {f: t for (kind, f), t in self.tensors.items() if kind == name}
        missing = [f for f in _NEEDED[name] if f not in own]
        key = next(key for (kind, _), key in self.keys.items() if kind == name)
        if missing:
            if name == "ia3":
                raise self.error(key, "is a weight without on_input: no adapter's, but a whole "
                                      "model's, which is named with --model")  # fmt: skip
            raise self.error(key, f"is there, but not its {' and '.join(missing)}; the file is "
                                  "incomplete, copy or download it again")  # fmt: skip
        if name == "ia3":
            return IA3(self._along(own["weight"], self._on_input(own["on_input"])))
        one = KINDS[name](**own)
        if name not in ("full", "norm"):
            one = self._with_alpha(one, own, alpha_of)
        elif ("", "alpha") in self.tensors:
            self.notes.append(f"{self.keys['', 'alpha']} has no meaning beside a whole difference")
        return self._decomposed(one, name)

    def _with_alpha(self, one: WeightKind, own: Mapping, alpha_of: Alpha) -> WeightKind:
        """With alpha as a number, which is the rank where nothing says it."""
        alpha = self.tensors.get(("", "alpha"))
        problem = one.misfit(self.place.shape) if type(one).__name__ == "LoKr" else None
        rank = None if problem else one.rank
        if alpha is not None:
            if alpha.size != 1 or float(alpha.reshape(())) == 0:
                raise self.error(self.keys["", "alpha"], "must be one number other than 0")
            alpha = alpha.reshape(())
            alpha = alpha if alpha.dtype in READABLE else alpha.astype(np.float32)
        else:
            alpha = alpha_of(self.place, rank)
        if alpha is None:
            alpha = np.asarray(1 if rank is None else rank, np.float32)
        return KINDS[one.name](**own, alpha=alpha)

    def _decomposed(self, one: WeightKind, name: str) -> WeightKind:
        magnitude, vector = (self.tensors.get(("dora", f)) for f in ("scale", "vector"))
        if magnitude is None and vector is None:
            return one
        key = self.keys["dora", "vector" if magnitude is None else "scale"]
        if name in ("full", "norm") or (magnitude is not None and vector is not None):
            raise self.error(key, "is a magnitude that fits nothing beside it")
        if magnitude is None:
            if vector.size != self.place.shape[0]:
                raise self.error(key, f"is {list(vector.shape)}, wanted one number for each of "
                                      f"{self.place.shape[0]} outputs")  # fmt: skip
            magnitude = vector.reshape(-1, *[1] * (len(self.place.shape) - 1))
        elif magnitude.ndim == 2 < len(self.place.shape):
            magnitude = magnitude.reshape(*magnitude.shape, 1, 1)
        elif magnitude.ndim == 4 > len(self.place.shape) and magnitude.shape[2:] == (1, 1):
            magnitude = magnitude.reshape(magnitude.shape[:2])
        return DoRA(magnitude, one)

    def _on_input(self, value: np.ndarray) -> bool:
        if value.size != 1 or float(value.reshape(())) not in (0, 1):
            raise self.error(self.keys["ia3", "on_input"], "must be 0 or 1")
        return bool(value.reshape(()))

    def _along(self, scale: np.ndarray, on_input: bool) -> np.ndarray:
        """(IA)³'s numbers along inputs or outputs of the weight."""
        count, ones = scale.size, [1] * (len(self.place.shape) - 2)
        return scale.reshape(1, count, *ones) if on_input else scale.reshape(count, 1, *ones)

    def _check(self, one: Kind) -> None:
        key = next(key for (kind, _), key in self.keys.items()
                   if kind == one.name or one.name == "dora" and kind != "")  # fmt: skip
        problem = None
        if isinstance(one, WeightKind):
            problem = self._weight_misfit(one)
        if problem is None and isinstance(one, BiasKind):
            no_bias = self.place.bias is None and one.bias_delta() is not None
            problem = (
                "is a change of a bias, which this module does not have" if no_bias
                else self.place.bias and one.bias_misfit(self.place.bias)
            )  # fmt: skip
        if problem:
            module = f"{self.place.component}/{self.place.path}"
            why = "it is made for another model, or damaged"
            raise self.error(key, f"does not fit {module}: {problem}; {why}")

    def _weight_misfit(self, one: WeightKind) -> str | None:
        shape, narrower = self.place.shape, self.place.narrower
        if len(shape) < 2 and one.name != "norm":
            return "it is the scale of a norm, which only w_norm and b_norm change"
        problem = one.misfit(shape)
        # Magnitudes and shares are of all inputs of the weight, so that these cannot be fewer.
        if problem and narrower and one.name not in ("dora", "ia3"):
            return one.misfit((shape[0], narrower, *shape[2:])) and problem
        return problem
