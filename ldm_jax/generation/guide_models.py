"""Models that guide another model's drawing: a weaker one of its kind, and a classifier."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ldm_jax import config as cfg
from ldm_jax import convert
from ldm_jax import latent_diffusion as ldm
from ldm_jax.convert.imported_model import normalized
from ldm_jax.core.stores import as_path
from ldm_jax.core.typing import Denoise, Level, Process
from ldm_jax.models.build import build_classifier
from ldm_jax.models.classifier import Classifier
from ldm_jax.models.conditioners import Condition, Inputs
from ldm_jax.models.process import build_process
from ldm_jax.sampling.guidance import Guidance, LogProb
from ldm_jax.workdir.checkpoints import Checkpoints
from ldm_jax.workdir.frozen import load_first_stage
from ldm_jax.workdir.run_config import read_config


@dataclass(frozen=True)
class WeakModel:
    """A model that was trained less, or is smaller, on the same task."""

    model: ldm.LatentDiffusion
    params: Any

    def denoiser(self, params: Any, condition: Condition) -> Denoise:
        """Its denoiser under `condition`, for autoguidance."""
        network = partial(self.model.network, params, condition=condition)
        return self.model.denoiser(network)


@dataclass(frozen=True)
class NoisyClassifier:
    """A trained classifier of noisy latents."""

    module: Classifier
    params: Any
    process: Process

    def log_prob(self, params: Any, labels: Array) -> LogProb:
        """log p(label | x) of each noisy example."""

        def log_prob(x: Array, level: Level) -> Array:
            t = jnp.broadcast_to(self.process.network_time(level.timestep), x.shape[:1])
            logits = jax.nn.log_softmax(self.module.apply({"params": params}, x, t))
            return jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]

        return log_prob


@dataclass(frozen=True)
class GuideModels:
    """What guides a model beside itself; None is absent."""

    weak: WeakModel | None = None
    classifier: NoisyClassifier | None = None

    @classmethod
    def read(
        cls,
        config: cfg.Model,
        tokenizer: Path | None,
        dtype: str,
        weak_model: str | Path | None,
        classifier: str | Path | None,
    ) -> "GuideModels":
        """Those in `weak_model` and `classifier`; raises as `read_weak` and `read_classifier`."""
        return cls(
            None if weak_model is None else read_weak(weak_model, config, tokenizer, dtype),
            None if classifier is None else read_classifier(classifier, config, dtype),
        )

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of those that are there."""
        there = {"weak": self.weak, "classifier": self.classifier}
        return {name: model.params for name, model in there.items() if model is not None}

    def with_params(self, change: Callable[[Any], Any]) -> "GuideModels":
        """With changed parameters, such as copies on devices."""
        weak, classifier = (
            None if model is None else replace(model, params=change(model.params))
            for model in (self.weak, self.classifier)
        )
        return GuideModels(weak, classifier)

    def default_scales(self, sampling: cfg.Sampling) -> cfg.Sampling:
        """`sampling` with the usual scales of those that are there."""
        usual = {"autoguidance_scale": (self.weak, 2.0), "classifier_scale": (self.classifier, 1.0)}
        missing = {
            name: scale for name, (model, scale) in usual.items()
            if model is not None and getattr(sampling, name) is None
        }  # fmt: skip
        return replace(sampling, **missing)

    def check(self, sampling: cfg.Sampling, conditions: Sequence[Any]) -> None:
        """Raises ConfigError, ValueError unless resolved scales, guide models and conditions belong
        together."""
        for name, model, scale in (
            ("weak_model", self.weak, sampling.autoguidance_scale),
            ("classifier", self.classifier, sampling.classifier_scale),
        ):
            if model is None and scale is not None:
                raise cfg.ConfigError(f"there is a scale of {scale}, but no {name}; name it too")
        if self.classifier is not None:
            check_labels(self.classifier, conditions)

    def labels(
        self, conditions: Sequence[Any], model: cfg.Model
    ) -> tuple[np.ndarray | None, Sequence[Any]]:
        """What the classifier is shown, and what the model itself is conditioned on."""
        if self.classifier is None:
            return None, conditions
        labels = np.asarray(conditions, np.int32)
        alone = not model.conditioners
        return labels, [None] * len(conditions) if alone else conditions

    def guidance(
        self,
        params: dict[str, Any],
        inputs: Inputs,
        labels: Array | None,
        numbers: dict[str, Any],
        schedule: str,
        form: str | None,
    ) -> Guidance:
        """All guidance with these `numbers`, in a program: by models with `params`, under the
        condition of named `inputs` and towards `labels`."""
        models: dict[str, Any] = {}
        if self.weak is not None:
            # Models that are shown a picture have no autoguidance, so no first stage is needed.
            condition = self.weak.model.condition(params["weak"], {}, inputs)
            models["weak_denoise"] = self.weak.denoiser(params["weak"], condition)
        if self.classifier is not None:
            models["log_prob"] = self.classifier.log_prob(params["classifier"], labels)
        return Guidance(schedule=schedule, classifier_form=form or "eps", **numbers, **models)


def read_weak(
    path: str | Path, config: cfg.Model, tokenizer: Path | None, dtype: str = "float32"
) -> WeakModel:
    """The weaker model in `path`: whatever `convert.load` reads.

    Raises:
        cfg.ConfigError: it does not do what the model of `config` does: it has another first
            stage, condition or process.
        FileNotFoundError, ValueError: nothing that can be read.
    """
    bundle = convert.load(path)
    if not isinstance(bundle.config, cfg.Model):
        raise cfg.ConfigError(f"--weak_model={path} holds no diffusion model")
    model = ldm.build(bundle.config, dtype)
    same_words = _tokenizer_files(bundle.tokenizer) == _tokenizer_files(tokenizer)
    same = {
        "first stage": bundle.config.autoencoder == config.autoencoder,
        "condition": bundle.config.conditioners == config.conditioners and same_words,
        "process": same_process(bundle.config.diffusion, config.diffusion),
    }
    _require_same(same, f"--weak_model={path}")
    if config.sees_pictures:
        raise cfg.ConfigError(
            "--weak_model: models conditioned on pictures have no autoguidance; leave it out"
        )
    return WeakModel(model, bundle.params)


def _tokenizer_files(path: Path | None) -> list[bytes]:
    """What the files of a tokenizer hold, which is one file or a folder of some."""
    if path is None:
        return []
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file.read_bytes() for file in files]


def check_weaker(weak: WeakModel, params: Any) -> None:
    """Raises ConfigError where the weaker model is the very model with `params` that it is to
    guide, away from which leads nothing."""
    one, other = (jax.tree.flatten(tree) for tree in (weak.params, params))
    if one[1] == other[1] and all(
        a.shape == b.shape and np.array_equal(np.asarray(a).astype(b.dtype), np.asarray(b))
        for a, b in zip(one[0], other[0], strict=True)
    ):
        raise cfg.ConfigError(
            "the weak model has the same parameters as the model, so guidance has no effect; "
            "name an earlier checkpoint or a smaller model"
        )


def open_classifier(path: Path) -> tuple[cfg.ClassifierRun, Any]:
    """The run that trained a classifier in `path`, and the classifier's parameters.

    Raises:
        cfg.ConfigError: it holds something else.
        FileNotFoundError, ValueError: nothing that can be read.
    """
    run = read_config(path)
    if not isinstance(run, cfg.ClassifierRun):
        raise cfg.ConfigError(
            f"--classifier={path} holds a {type(run).__name__}; name the work directory of a run "
            "that trained a classifier"
        )
    return run, Checkpoints.load_params(path, "ema" if run.optim.ema_decay else "raw")[1]


def read_classifier(path: str | Path, config: cfg.Model, dtype: str = "float32") -> NoisyClassifier:
    """The classifier that `train.py` trained in `path`.

    Raises:
        cfg.ConfigError: it holds something else, or a classifier of other latents, or of another
            process, than those of the model of `config`.
        FileNotFoundError, ValueError: nothing that can be read.
    """
    path = as_path(path)
    run, params = open_classifier(path)
    autoencoder, frozen = load_first_stage(run, path)
    same = {
        "first stage": normalized(autoencoder, frozen) == config.autoencoder,
        "image size": run.data.image_size == config.image_size,
        "process": same_process(run.diffusion, config.diffusion),
    }
    _require_same(same, f"--classifier={path}")
    process = build_process(run.diffusion.process)
    return NoisyClassifier(build_classifier(run.classifier, dtype), params, process)


def check_labels(classifier: NoisyClassifier, conditions: Sequence[Any]) -> None:
    """Raises ValueError unless each of `conditions` is a class that `classifier` knows."""
    count = classifier.module.config.num_classes
    for condition in conditions:
        if not isinstance(condition, int) or not 0 <= condition < count:
            raise ValueError(
                f"a classifier guides towards classes 0 to {count - 1} (--classes), not "
                f"{condition!r}"
            )


def same_process(a: cfg.Diffusion, b: cfg.Diffusion) -> bool:
    """Whether two configs add the same noise at the same times, whatever their networks predict."""
    one, other = build_process(a.process), build_process(b.process)
    if (one.t_min, one.t_max) != (other.t_min, other.t_max):
        return False
    times = np.linspace(one.t_min, one.t_max, 101)
    return all(
        np.allclose(getattr(one, name)(times), getattr(other, name)(times), rtol=1e-6)
        for name in ("alpha_at", "sigma_at", "network_time")
    )


def _require_same(same: dict[str, bool], where: str) -> None:
    for name, ok in same.items():
        if not ok:
            raise cfg.ConfigError(
                f"{where} has another {name} than the model; both must be trained on the same (a "
                "classifier with --first_stage naming that model)"
            )
