"""All that one training run needs."""

import re
from dataclasses import field
from typing import Literal

from ldm_jax.config.adapters import Adapter, TextualInversion
from ldm_jax.config.autoregressive import (
    ClassMapPrefix,
    ClassPrefix,
    CodeModel,
    CodeSampling,
    CodeTransformer,
    CoordinatePrefix,
    DepthPrefix,
    Prefix,
    Reader,
    code_model,
)
from ldm_jax.config.checks import (
    ConfigError,
    LearningRate,
    Share,
    require,
    require_divisible,
    settings,
)
from ldm_jax.config.clip_networks import CLIP
from ldm_jax.config.conditioning import (
    CaptionMapConditioner,
    ClassConditioner,
    ClassMapConditioner,
    Conditioner,
    TextConditioner,
    find,
)
from ldm_jax.config.data import Data, DreamBooth, EncodedLatents, has_kind
from ldm_jax.config.diffusion_objective import Objective
from ldm_jax.config.drawn_scores import DrawnScores
from ldm_jax.config.first_stage_loss import AutoencoderLoss, check_loss, check_map_loss
from ldm_jax.config.model import Diffusion, Model, check_conditioners, fit_conditioners, fit_unet
from ldm_jax.config.networks import Autoencoder, Classifier, FirstStage, Pixels, UNet
from ldm_jax.config.noise_processes import Discrete
from ldm_jax.config.tasks import ClassMaps
from ldm_jax.config.training import Loop, Mesh, Optim


@settings
class AutoencoderRun:
    """Stage one: an autoencoder trained on images, or on class maps."""

    data: Data
    autoencoder: Autoencoder
    loss: AutoencoderLoss = field(default_factory=AutoencoderLoss)
    train: Literal["all", "decoder"] = "all"
    """`decoder` fine-tunes only the decoder of the model in `train.py --init`. Encoder and
    bottleneck stay frozen, so diffusion models on its latents still work."""
    optim: Optim = field(default_factory=Optim)
    loop: Loop = field(default_factory=Loop)
    mesh: Mesh = field(default_factory=Mesh)
    maps: ClassMaps | None = None
    """Encode class maps of these classes, one channel each, instead of images: the first stage of
    what a transformer over codes is conditioned on. Their loss is binary cross-entropy."""

    def __post_init__(self) -> None:
        _check_one_size(self.data)
        _check_accumulation(self.data, self.optim)
        _check_wishes(self.loop, self.conditioners)
        require(not has_kind(self.data.source, EncodedLatents), "data.source", self.data.source,
                "a source of images in stage one")  # fmt: skip
        channels = 3 if self.maps is None else self.maps.num_classes
        require(self.autoencoder.image_channels == channels, "autoencoder.image_channels",
                self.autoencoder.image_channels,
                f"{channels}, the channels of images, or with `maps` the classes")  # fmt: skip
        if self.maps is not None:
            check_map_loss(self.loss)
        require_divisible("data.image_size", self.data.sides,
                          self.autoencoder.factor, "the autoencoder's factor")  # fmt: skip
        check_loss(self.loss, self.autoencoder, self.data.sides)

    @property
    def conditioners(self) -> tuple[ClassMapConditioner, ...]:
        """What the training examples must have beside images."""
        return () if self.maps is None else (ClassMapConditioner(self.maps, dropout=0.0),)


@settings
class DiffusionRun:
    """Stage two: a diffusion model on the latents of a trained autoencoder, or on pixels."""

    data: Data
    unet: UNet
    conditioners: tuple[Conditioner, ...] = ()
    """What the model is conditioned on: captions, classes; (): unconditional."""
    diffusion: Diffusion = field(default_factory=Diffusion)
    optim: Optim = field(default_factory=Optim)
    loop: Loop = field(default_factory=Loop)
    mesh: Mesh = field(default_factory=Mesh)
    train: tuple[str, ...] = ("all",)
    """What to train, one or more of: `all`; `unet`; `attention`, the U-Net's; `cross_attention`,
    its attention to the context alone; `conditioners`; `text_encoder`; `adapter`; or patterns
    (regular expressions) of whole parameter names, such as unet/mid_block/.*"""
    adapter: Adapter | None = None
    """Train something beside the model that `train.py --init` names, such as a LoRA; `train` is
    then `adapter`, with which the model itself stays as it is."""
    text_encoder_learning_rate: LearningRate | None = None
    """Peak learning rate of the text encoder; None: optim.learning_rate."""
    space: Literal["latents", "pixels"] = "latents"
    """Diffusion in the latents of a trained autoencoder, or directly on pixels."""
    latent_normalization: Literal["scale", "per_channel"] = "scale"
    """How latents are normalised, if the first stage does not set it: by one scale for all
    channels, or by mean and standard deviation of each channel."""
    objective: Objective = field(default_factory=Objective)
    evaluation: DrawnScores | None = None
    """FID or other scores of drawings as training goes on; docs/scores.md."""

    def __post_init__(self) -> None:
        _check_accumulation(self.data, self.optim)
        _check_wishes(self.loop, self.conditioners)
        _check_evaluation(self.evaluation, self.loop)
        _check_trained(self.train)
        if isinstance(self.data.source, DreamBooth) and self.data.source.class_path:
            require_divisible("data.batch_size", self.data.batch_size, 2,
                              "half of a batch being pictures of classes")  # fmt: skip
        require("all" not in self.train or self.adapter is None, "train", self.train,
                "adapter with an adapter, alone or with parts of the model")  # fmt: skip
        require(("adapter" in self.train) == (self.adapter is not None), "adapter", self.adapter,
                "there with train 'adapter', and only then")  # fmt: skip
        if isinstance(self.adapter, TextualInversion):
            require(
                find(self.conditioners, TextConditioner) is not None, "adapter",
                "TextualInversion", "another one for a model without a text encoder",
            )  # fmt: skip
        require(
            self.text_encoder_learning_rate is None
            or find(self.conditioners, TextConditioner) is not None,
            "text_encoder_learning_rate", self.text_encoder_learning_rate,
            "None for a model without a text encoder",
        )  # fmt: skip
        # A first stage of four channels stands in for one that is not known yet.
        channels = self.unet.in_channels or 4
        unet = fit_unet(self.unet, self.conditioners, channels, self.diffusion.learned_variance)
        check_conditioners(unet, self.conditioners)
        if self.space == "pixels":
            require(
                self.latent_normalization == "scale",
                "latent_normalization",
                self.latent_normalization,
                "'scale' for space 'pixels', which has no latents",
            )
            self.model(Pixels())  # raises where they do not fit
        has_map = find(self.conditioners, CaptionMapConditioner) is not None
        require(has_map or not self.objective.map_weight, "objective.map_weight",
                self.objective.map_weight,
                "0 without a CaptionMapConditioner: add --objective.map_weight=0")  # fmt: skip
        _check_objective(self.objective, self.diffusion)

    def model(self, autoencoder: FirstStage) -> Model:
        """The model that this run trains on the latents of `autoencoder`.

        Raises:
            ConfigError: they do not fit each other.
        """
        factor, bins = autoencoder.factor, self.objective.bins
        require(bins is None or factor == 1, "objective.bins", bins,
                "None, since latents are not discrete")  # fmt: skip
        channels = autoencoder.latent_channels
        height, width = (side // factor for side in self.data.sides)
        conditioners = fit_conditioners(self.conditioners, channels, (height, width))
        if self.objective.map_weight:
            drawn = find(conditioners, CaptionMapConditioner).channels
            require(drawn == channels, "caption_map.channels", drawn,
                    f"{channels}, those of the latents, for objective.map_weight")  # fmt: skip
        unet = fit_unet(self.unet, conditioners, channels, self.diffusion.learned_variance)
        return Model(autoencoder, unet, conditioners, self.diffusion, self.data.image_size)


@settings
class ClassifierRun:
    """A classifier trained on the noisy latents of a trained autoencoder.

    `diffusion` must be the process of the models that it is to guide.
    """

    data: Data
    classifier: Classifier
    diffusion: Diffusion = field(default_factory=Diffusion)
    optim: Optim = field(default_factory=Optim)
    loop: Loop = field(default_factory=Loop)
    mesh: Mesh = field(default_factory=Mesh)

    def __post_init__(self) -> None:
        _check_one_size(self.data)
        _check_accumulation(self.data, self.optim)
        _check_wishes(self.loop, ())

    @property
    def conditioners(self) -> tuple[ClassConditioner, ...]:
        """What the training examples must have: a class each."""
        return (ClassConditioner(self.classifier.num_classes, dropout=0.0),)

    def check_first_stage(self, autoencoder: Autoencoder) -> None:
        """Raises ConfigError unless the latents of `autoencoder` fit."""
        channels = autoencoder.latent_channels
        require(self.classifier.in_channels == channels, "classifier.in_channels",
                self.classifier.in_channels, f"{channels}, the first stage's channels")  # fmt: skip
        require_divisible("data.image_size", self.data.sides,
                          autoencoder.factor * self.classifier.encoder.factor,
                          "the first stage's factor times the classifier's")  # fmt: skip


@settings
class CodeTransformerRun:
    """Stage two of VQGAN: a transformer over the codes of a trained autoencoder."""

    data: Data
    transformer: CodeTransformer
    condition: Prefix | None = None
    """What the model is conditioned on: the class, a class map, depth, or coordinates;
    None: unconditional."""
    pkeep: Share = 1.0
    """Share of the codes that the transformer is shown as they are; the others are replaced by
    random ones, and all are predicted. Below 1 it overfits later."""
    sampling: CodeSampling = field(default_factory=CodeSampling)
    """How the samples during training are drawn."""
    optim: Optim = field(default_factory=lambda: Optim(beta2=0.95, weight_decay=0.01))
    loop: Loop = field(default_factory=Loop)
    mesh: Mesh = field(default_factory=Mesh)

    def __post_init__(self) -> None:
        _check_one_size(self.data)
        _check_accumulation(self.data, self.optim)
        _check_wishes(self.loop, self.conditioners)

    @property
    def conditioners(self) -> tuple[Reader, ...]:
        """What the training examples must have."""
        match self.condition:
            case ClassPrefix(num_classes=count):
                return (ClassConditioner(count, dropout=0.0),)
            case ClassMapPrefix(maps=maps):
                return (ClassMapConditioner(maps, dropout=0.0),)
            case DepthPrefix() | CoordinatePrefix():
                return (self.condition,)
        return ()

    def model(
        self, autoencoder: Autoencoder, condition_stage: Autoencoder | None = None
    ) -> CodeModel:
        """The model that this run trains on the codes of `autoencoder`, after those of
        `condition_stage` where the condition is made of codes.

        Raises:
            ConfigError: they do not fit each other.
        """
        return code_model(
            autoencoder, self.transformer, self.condition, self.data.image_size, condition_stage
        )


@settings
class ContrastiveRun:
    """CLIP: an image and a text encoder, trained to tell which captions belong to which images of
    a batch. Every image is compared with all captions, on whichever device they are."""

    data: Data
    clip: CLIP
    tokenizer: Literal["word", "bpe", "clip"] = "word"
    """`word` and `bpe` tokenizers are made from the training captions; `clip` comes with the model
    that a run starts from (`train.py --init`)."""
    loss: Literal["softmax", "sigmoid"] = "softmax"
    """`softmax`: which caption of all, and which image of all, as CLIP; `sigmoid`: each pair by
    itself, as SigLIP, which adds a bias to similarities (clip.logit_bias)."""
    equal_captions: Literal["shared", "apart"] = "shared"
    """What an image is asked for where its caption is there several times: `shared`, any of them;
    `apart`, its own alone, as CLIP was trained on texts that hardly repeat."""
    optim: Optim = field(
        default_factory=lambda: Optim(beta2=0.98, eps=1e-6, weight_decay=0.2, clip_norm=None)
    )
    loop: Loop = field(default_factory=Loop)
    mesh: Mesh = field(default_factory=Mesh)

    def __post_init__(self) -> None:
        _check_one_size(self.data)
        _check_wishes(self.loop, ())
        require(self.optim.accumulation == 1, "optim.accumulation", self.optim.accumulation,
                "1: images are compared with the captions of the whole batch")  # fmt: skip
        require(not has_kind(self.data.source, EncodedLatents | DreamBooth), "data.source",
                self.data.source, "a source of images with captions")  # fmt: skip
        side = self.clip.vision.image_size
        require(self.data.sides == (side, side), "data.image_size", self.data.image_size,
                f"{side}, clip.vision.image_size")  # fmt: skip
        require(self.clip.logit_bias == (self.loss == "sigmoid"), "clip.logit_bias",
                self.clip.logit_bias,
                f"{self.loss == 'sigmoid'} for loss {self.loss!r}")  # fmt: skip
        require(self.tokenizer == "clip" or self.clip.end_token == 0, "clip.end_token",
                self.clip.end_token, f"0, the padding after each caption, for tokenizer "
                f"{self.tokenizer!r}, which puts no end token there")  # fmt: skip

    @property
    def conditioners(self) -> tuple[TextConditioner, ...]:
        """What the training examples must have: a caption each."""
        return (TextConditioner(self.clip.text, self.tokenizer, dropout=0.0),)


Run = AutoencoderRun | DiffusionRun | ClassifierRun | CodeTransformerRun | ContrastiveRun


TRAINED = {
    "all": r".*",
    "unet": r"unet/.*",
    "attention": r"unet/.*/attn[12]/.*",
    "cross_attention": r"unet/.*/attn2/.*",
    "conditioners": r"conditioners/.*",
    "text_encoder": r"conditioners/text_encoder/.*",
    "decoder": r"unet/(up_blocks|conv_norm_out|conv_out)/.*",
    "adapter": r"(.*/)?adapters/(?!.*/(alpha|strength)$)(?!\d+/strength$).*",
}
"""Patterns of parameters of `{"unet", "conditioners"}` by the names that `train` has of them."""


def _check_trained(train: tuple[str, ...]) -> None:
    """Raises ConfigError unless each entry has a name of `TRAINED` or may be a pattern."""
    known = f"one or more of {', '.join(TRAINED)}, or patterns of whole parameter names"
    require(len(train) > 0, "train", train, known)
    for entry in train:
        # No parameter lies at the top, so a pattern without a slash is a misspelled name.
        require(entry in TRAINED or "/" in entry or "*" in entry, "train", entry, known)
        try:
            re.compile(entry)
        except re.error as error:
            raise ConfigError(f"train is {entry!r}, which is no pattern: {error}") from None


def _check_objective(objective: Objective, diffusion: Diffusion) -> None:
    """Raises ConfigError where the objective asks for what the process has not."""
    process = type(diffusion.process).__name__
    for name, values in (("loss", ("hybrid", "vlb")), ("times", ("second_moment",)),
                         ("weighting", ("posterior_mean", "posterior_kl"))):  # fmt: skip
        value = getattr(objective, name)
        require(isinstance(diffusion.process, Discrete) or value not in values,
                f"objective.{name}", value,
                f"none of {values} for process {process}, which has no steps")  # fmt: skip
    if objective.loss != "vlb":
        require(diffusion.learned_variance == (objective.loss == "hybrid"),
                "diffusion.learned_variance", diffusion.learned_variance,
                f"{objective.loss == 'hybrid'} for objective.loss {objective.loss!r}")  # fmt: skip


def _check_accumulation(data: Data, optim: Optim) -> None:
    require_divisible("data.batch_size", data.batch_size, optim.accumulation, "optim.accumulation")


def _check_one_size(data: Data) -> None:
    require(data.buckets is None, "data.source.buckets", data.buckets,
            "None: diffusion models alone are trained on several sizes")  # fmt: skip


def _check_evaluation(evaluation: DrawnScores | None, loop: Loop) -> None:
    if evaluation is not None and evaluation.best_by:
        require(evaluation.every % loop.checkpoint_every == 0, "evaluation.every",
                evaluation.every,
                f"a multiple of loop.checkpoint_every, {loop.checkpoint_every}, where the best "
                "checkpoint is kept by a score")  # fmt: skip


def _check_wishes(loop: Loop, conditioners: tuple[Reader, ...]) -> None:
    """Raises ConfigError where pictures are asked for of what the model is not conditioned on."""
    for name, kind in (("prompts", TextConditioner), ("classes", ClassConditioner)):
        asked = getattr(loop, name)
        require(not asked or find(conditioners, kind) is not None, f"loop.{name}", asked,
                f"empty in a run without a {kind.__name__}")  # fmt: skip
