"""Examples as the named inputs that a model's conditioners take, and what is unconditional."""

from collections.abc import Mapping, Sequence

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.data.sources import Example, Source
from ldm_jax.data.tokenizer import Tokenizer

Inputs = Mapping[str, np.ndarray]
"""Arrays by the input's name: `caption` int32 [l], `label` int32 []."""


class InputMaker:
    """Makes the inputs of one example at a time; calling it is a pure function."""

    def __init__(
        self, conditioners: Sequence[cfg.Conditioner], tokenizer: Tokenizer | None
    ) -> None:
        self._conditioners, self._tokenizer = tuple(conditioners), tokenizer

    def __call__(self, example: Example) -> Inputs:
        """The inputs of all conditioners."""
        made: dict[str, np.ndarray] = {}
        for conditioner in self._conditioners:
            match conditioner:
                case cfg.TextConditioner(encoder=encoder):
                    made["caption"] = self._tokenizer.encode(
                        [example["caption"]], encoder.max_length
                    )[0]
                case cfg.ClassConditioner():
                    made["label"] = np.asarray(example["label"], np.int32)
        return made

    def uncond(self) -> Inputs:
        """The inputs that stand for no condition, of those that have such."""
        made: dict[str, np.ndarray] = {}
        for conditioner in self._conditioners:
            match conditioner:
                case cfg.TextConditioner(encoder=encoder):
                    made["caption"] = self._tokenizer.empty(encoder.max_length)
                case cfg.ClassConditioner(num_classes=count):
                    made["label"] = np.asarray(count, np.int32)
        return made


def check_source(conditioners: Sequence[cfg.Conditioner], source: Source, where: str) -> None:
    """Raises ConfigError unless the examples of `source`, which `where` names, have the classes or
    captions that `conditioners` read."""
    for conditioner in conditioners:
        match conditioner:
            case cfg.ClassConditioner(num_classes=wanted):
                count = len(source.class_names)
                if wanted != count:
                    raise cfg.ConfigError(
                        f"num_classes is {wanted}, but {where} has {count} classes, which are a "
                        "folder's subfolders; set num_classes of the class conditioner "
                        "(--conditioners.0.num_classes), or of the classifier, to what there are"
                    )
            case cfg.TextConditioner():
                if not source.has_captions:
                    raise cfg.ConfigError(
                        f"{where} has no captions; put them into metadata.jsonl or "
                        "metadata.csv, or a .txt "
                        "beside each image"
                    )
