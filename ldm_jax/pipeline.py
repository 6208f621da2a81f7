"""A trained model, loaded from its work directory and ready to draw pictures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, UInt8, UInt32

import ldm_jax
from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.data.tokenizer import load_tokenizer
from ldm_jax.sampling.loop import levels
from ldm_jax.sampling.solvers import DEFAULT_ETA, DEFAULT_SPACING, SamplerName, make_solver
from ldm_jax.sharding import make_mesh, replicated, to_global
from ldm_jax.training.checkpoint import Checkpoints, read_config
from ldm_jax.training.stages import FIRST_STAGE, TOKENIZER, load_first_stage
from ldm_jax.typing import Solver

IMAGES_PER_PROMPT = 1 << 16
"""Image j of prompt p has index `p * IMAGES_PER_PROMPT + j`, whatever else is drawn."""


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn."""

    sampler: str = "ddim"
    steps: int = 50
    guidance_scale: float = 3.0
    eta: float | None = None
    """Share of fresh noise: 0 is deterministic, 1 has DDPM's variance; None is the usual one."""
    spacing: str | None = None
    """Which noise levels are visited; None is the usual ones."""
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        checks = {
            "sampler": (self.sampler in get_args(SamplerName), f"one of {get_args(SamplerName)}"),
            "steps": (self.steps >= 1, "1 or more"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "seed": (0 <= self.seed < 2**32, "between 0 and 4294967295"),
            "eta": (self.eta is None or 0 <= self.eta < math.inf, "0 or more, and finite"),
            "guidance_scale": (math.isfinite(self.guidance_scale), "finite; 1 is no guidance"),
        }
        for name, (ok, allowed) in checks.items():
            if not ok:
                raise cfg.ConfigError(f"{name} is {getattr(self, name)}; it must be {allowed}")
        try:
            make_solver(self.sampler, self.eta)
        except ValueError as error:
            raise cfg.ConfigError(str(error)) from error

    @property
    def solver(self) -> Solver:
        """The solver that `sampler` names."""
        return make_solver(self.sampler, self.eta)

    def settled(self) -> "Sampling":
        """With the sampler's usual eta and spacing where none was given."""
        eta = DEFAULT_ETA.get(self.sampler) if self.eta is None else self.eta
        return replace(self, eta=eta, spacing=self.spacing or DEFAULT_SPACING[self.sampler])


def versions() -> dict[str, str]:
    """Versions of what decides a picture's bits, and the devices it is drawn on."""
    devices = jax.devices()
    return (
        {"ldm_jax": ldm_jax.__version__}
        | {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
        | {"devices": f"{len(devices)} x {devices[0].device_kind}"}
    )


class Pipeline:
    """Model, parameters and tokenizer of one work directory of stage two."""

    def __init__(self, workdir: str | Path, *, weights: str = "ema") -> None:
        """Loads `workdir`.

        Args:
            workdir: what `train.py` wrote for a `DiffusionRun`.
            weights: `ema`, the parameter average, or `raw`.

        Raises:
            FileNotFoundError, ValueError: no checkpoint, or a damaged one; the text says which.
        """
        workdir = Path(workdir)
        run = read_config(workdir)
        if not isinstance(run, cfg.DiffusionRun):
            raise cfg.ConfigError(
                f"{workdir} holds a {type(run).__name__}, not a diffusion model; name the work "
                "directory of stage two"
            )
        self.run = run
        self.autoencoder_config, self.frozen = load_first_stage(workdir / FIRST_STAGE)
        self.model = ldm.build(run.model(self.autoencoder_config), run.loop.dtype)
        self.shape = self.model.latent_shape
        self.step, self.params = Checkpoints.load_params(workdir, weights)
        self.tokenizer = None
        if isinstance(run.condition, cfg.TextCondition):
            self.tokenizer = load_tokenizer(workdir / TOKENIZER)
        self._programs: dict[Any, Callable[..., Any]] = {}
        self._placed: dict[Mesh, Any] = {}

    def encode_conditions(self, conditions: Sequence[str | int | None]) -> Int[np.ndarray, "b ..."]:
        """Captions, class numbers or Nones → what the model's conditioner takes.

        Raises:
            ValueError: a word the tokenizer does not know, or a class that does not exist.
        """
        condition = self.run.condition
        if isinstance(condition, cfg.TextCondition):
            captions = ["" if c is None else str(c) for c in conditions]
            return self.tokenizer.encode(captions, condition.encoder.max_length, strict=True)
        if isinstance(condition, cfg.ClassCondition):
            empty = condition.num_classes
            labels = [empty if c is None else int(c) for c in conditions]
            for label in (int(c) for c in conditions if c is not None):
                if not 0 <= label < empty:
                    raise ValueError(
                        f"class {label} does not exist; this model has 0 to {empty - 1}"
                    )
            return np.asarray(labels, np.int32)
        return np.zeros(len(conditions), np.int32)

    def check_conditions(self, conditions: Sequence[str | int | None]) -> None:
        """Raises ValueError when this kind of model is not conditioned on such values."""
        kind = type(self.run.condition)
        wanted = {cfg.TextCondition: str, cfg.ClassCondition: int}.get(kind, type(None))
        words = {str: "captions (--prompt)", int: "classes (--classes)", type(None): "nothing"}
        for condition in conditions:
            if condition is not None and not isinstance(condition, wanted):
                raise ValueError(
                    f"this model is conditioned on {words[wanted]}, not on "
                    f"{words[type(condition)]}: {condition!r}"
                )
        self.encode_conditions(conditions)

    def generate(
        self,
        conditions: Sequence[str | int | None],
        index: UInt32[np.ndarray, "b"] | None = None,
        *,
        sampling: Sampling,
        negative: str | int | None = None,
        progress: Callable[[int], None] = lambda images: None,
    ) -> UInt8[np.ndarray, "b h w c"]:
        """One image for each condition; image i depends on its condition, seed and `index[i]`.

        Every batch is filled up to `sampling.batch_size`, so that one program draws all, on as
        many of this process's devices as can share a batch equally. `progress` is told after each
        batch how many images it brought.
        """
        if index is None:
            index = np.arange(len(conditions), dtype=np.uint32)
        inputs = self.encode_conditions(conditions)
        empty = self.encode_conditions([negative])
        guided = sampling.guidance_scale != 1 and not isinstance(
            self.run.condition, cfg.Unconditional
        )
        program = self._program(sampling, guided)
        size, images = sampling.batch_size, []
        mesh = make_mesh(
            cfg.Mesh(), jax.local_devices()[: math.gcd(size, jax.local_device_count())]
        )
        params, frozen = self._place(mesh)
        negatives = np.repeat(empty, size, axis=0) if guided else None
        with jax.set_mesh(mesh):
            for start in range(0, len(inputs), size):
                rows = np.resize(np.arange(start, min(start + size, len(inputs))), size)
                batch = to_global(mesh, (inputs[rows], negatives, index[rows]))
                scalars = np.uint32(sampling.seed), np.float32(sampling.guidance_scale)
                count = min(size, len(inputs) - start)
                images.append(np.asarray(program(params, frozen, *batch, *scalars))[:count])
                progress(count)
        return np.concatenate(images)

    def _place(self, mesh: Mesh) -> tuple[Any, Any]:
        """Parameters and first stage, whole on each device of `mesh`; brought there once."""
        if mesh not in self._placed:
            self._placed[mesh] = jax.device_put((self.params, self.frozen), replicated(mesh))
        return self._placed[mesh]

    def _program(self, sampling: Sampling, guided: bool) -> Callable[..., Any]:
        """The compiled sampler; a new one only for another solver, list of levels or size."""
        sampling = sampling.settled()
        key = (sampling.solver, sampling.steps, sampling.spacing, guided)
        if key not in self._programs:
            solver = sampling.solver
            path = levels(self.model.schedule, sampling.steps, sampling.spacing, "one")

            @jax.jit
            def program(params, frozen, inputs, empty, index, seed, guidance_scale):
                return ldm.generate(
                    self.model, params, frozen, inputs, empty,
                    solver=solver, levels=path, seed=seed, index=index,
                    guidance_scale=guidance_scale, shape=self.shape,
                )  # fmt: skip

            self._programs[key] = program
        return self._programs[key]
