"""What PEFT's configs say of adapters beside their tensors: alpha, above all."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ldm_jax.convert.adapters.module_names import Place
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core.reading import shown

MOST_REPEATS = 4
_REPEATS, _NESTED = re.compile(r"[*+{]"), re.compile(r"\)[*+{]")
"""In patterns of names; a group that is repeated may be compared in ways without number."""
TYPES = {"LORA": "lora", "LOHA": "loha", "LOKR": "lokr"}
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "eva", "lora_ga")
"""Ways to begin that may leave other base weights behind than the model's."""
_UNREAD = {
    "fan_in_fan_out": (False, None), "lora_bias": (False, None), "layer_replication": (None,),
    "trainable_token_indices": (None,), "modules_to_save": (None, []), "bias": ("none", None),
    "alora_invocation_tokens": (None,), "use_qalora": (False, None),
    "target_parameters": (None, []), "use_effective_conv2d": (False, True, None),
}  # fmt: skip
"""Settings, each with the values with which tensors alone say everything."""


@dataclass(frozen=True)
class PeftSettings:
    """Of one component."""

    where: str
    kind: str = "lora"
    rank: int | None = None
    alpha: float | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)
    """By the end of a module's name, or a pattern of it."""
    alphas: Mapping[str, float] = field(default_factory=dict)
    square_root: bool = False
    """Whether changes are scaled by α/√r."""

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str) -> "PeftSettings":
        """Those in a config, which `where` names.

        Raises:
            ConvertError: names a setting that makes the adapter one that is not read.
        """
        peft_type = values.get("peft_type", "LORA")
        if not isinstance(peft_type, str) or peft_type not in TYPES:
            raise ConvertError(f"{where}: peft_type is {peft_type!r}; {', '.join(TYPES)} are read")
        for name, allowed in _UNREAD.items():
            if values.get(name) not in allowed:
                raise ConvertError(
                    f"{where}: {name} is {str(values[name])[:80]!r}, with which adapters are not "
                    "read; merge it into its model with PEFT, and read that"
                )
        start = str(values.get("init_lora_weights", ""))
        if start.lower().startswith(_CHANGES_BASE):
            raise ConvertError(
                f"{where}: init_lora_weights is {start!r}, which changes the model that the "
                "adapter is added to; convert it with PEFT (path_initial_model_for_weight_"
                "conversion) to an ordinary one"
            )
        for name in ("r", "lora_alpha", "alpha"):
            value = values.get(name)
            if value is not None and not (_is_number(value) and value > 0):
                raise ConvertError(f"{where}: {name} is {str(value)[:40]}, wanted a number above 0")
        if not isinstance(values.get("r", 1), int):
            raise ConvertError(f"{where}: r is {values['r']}, wanted a whole number")
        for name in ("rank_pattern", "alpha_pattern"):
            patterns = values.get(name) or {}
            if not isinstance(patterns, dict) or not all(
                _is_number(value) and value > 0 for value in patterns.values()
            ):
                raise ConvertError(f"{where}: {name} is no map of names to numbers above 0")
            for pattern in patterns:
                if len(_REPEATS.findall(pattern)) > MOST_REPEATS or _NESTED.search(pattern):
                    raise ConvertError(
                        f"{where}: {name} has {shown(pattern)}, which may be compared for ever; "
                        "name modules, or the ends of their names"
                    )
        alpha = values.get("lora_alpha", values.get("alpha"))
        ranks, alphas = (values.get(f"{name}_pattern") or {} for name in ("rank", "alpha"))
        return cls(
            where, TYPES[peft_type], values.get("r"), None if alpha is None else float(alpha),
            {name: int(rank) for name, rank in ranks.items()},
            {name: float(alpha) for name, alpha in alphas.items()},
            bool(values.get("use_rslora")),
        )  # fmt: skip

    def alpha_of(self, place: Place, rank: int | None) -> np.ndarray | None:
        """α, so that α/r is what changes of the module are scaled by.

        Raises:
            ConvertError: the rank is another than the settings say.
        """
        said = self.rank_of(place)
        if rank is None:
            rank = said
        elif said is not None and said != rank and self.kind == "lora":
            raise ConvertError(
                f"{self.where} says the rank of {place.dotted} is {said}, but its tensors have "
                f"{rank}; one of them is of another adapter"
            )
        alpha = self._of(self.alphas, place, self.alpha)
        if alpha is None or rank is None:
            return None
        return np.asarray(alpha * math.sqrt(rank) if self.square_root else alpha, np.float32)

    def rank_of(self, place: Place) -> int | None:
        """The rank that the settings say."""
        return self._of(self.ranks, place, self.rank)

    def _of(self, patterns: Mapping[str, Any], place: Place, otherwise: Any) -> Any:
        for pattern, value in patterns.items():
            try:
                found = re.fullmatch(rf"(.*\.)?({pattern})", place.dotted)
            except re.error as error:
                raise ConvertError(f"{self.where}: {pattern!r} is no pattern: {error}") from error
            if found:
                return value
        return otherwise


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
