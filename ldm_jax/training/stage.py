"""What the one loop needs to know of what it trains."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from ldm_jax import config as cfg
from ldm_jax.convert.exporting import obstacles_told
from ldm_jax.core.output import say
from ldm_jax.data.loader import MakeInputs
from ldm_jax.data.sources import Source, check_alike, has_validation, open_source
from ldm_jax.training.gradients import Metrics
from ldm_jax.training.state import TrainState


@dataclass(frozen=True)
class Shown:
    """Examples that pictures are drawn of as training goes on, always the same ones."""

    name: str
    """What the pictures are called, such as `held_out`."""
    draw: Callable[[Any, Any, Any], Any]
    """`(params, frozen, batch) -> uint8 [k, n, h, w, 3]`, pure and not yet compiled: of each of the
    n examples k pictures, which are shown one below the other."""
    batch: Mapping[str, Any]
    """The examples, the same on every process."""
    labels: tuple[str, ...] | None = None
    """What is written under the pictures of each example."""


@dataclass(frozen=True)
class Stage:
    """What the loop trains; all functions are pure and not yet compiled."""

    init: Callable[[Any], TrainState]
    """`(initial) -> state` before the first step."""
    step: Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]
    scores: Callable[[Any, Any, Any], Metrics]
    """`(params, frozen, batch) -> {"loss": scalar, ...}`, at noise fixed by the batch's index."""
    shown: tuple[Shown, ...]
    """What is drawn now and then; empty where there is nothing to show."""
    frozen: Any
    train: Source
    validation: Source | None
    """None where the config keeps no images for it."""
    inputs: MakeInputs | None
    """Makes what an example is conditioned on; None in stage one."""
    draw: Callable[[Any, Any, Any], Any] | None = None
    """As `Shown.draw`, of any batch of `inputs` and `index`; None where nothing is drawn."""
    note: Callable[[], str] | None = None
    """Says at the beginning, in a line, what the user should know beside what the sources found."""
    initial: Any = None
    """Trained parameters to begin with, as `init` takes them; fresh ones for what it has not."""


def validation_source(data: cfg.Data, train: Source) -> Source | None:
    """The images kept for validation, or None where the config keeps none.

    Raises:
        DataError: they have other classes than `train`, or no captions where it has some.
    """
    if not has_validation(data.source):
        return None
    found = open_source(data, "validation")
    check_alike(train, found)
    return found


def tell_obstacles(config: cfg.Model | cfg.Autoencoder) -> None:
    """Says, where a new run begins, what will keep its model from being exported."""
    if (told := obstacles_told(config)) and jax.process_index() == 0:
        say(f"note: {told}")
