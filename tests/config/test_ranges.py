"""Every number of every config has a range, and what no run can use is refused by its name."""

import dataclasses
import inspect
import typing
from typing import Annotated

import pytest
import tiny
import tiny_codes

from ldm_jax import config as cfg
from ldm_jax.config.checks import Within, field_hints

INSTANCES = (
    cfg.KL(), cfg.VQ(), cfg.Gumbel(), cfg.FSQ(), cfg.LFQ(), cfg.Classifier(),
    cfg.ClassifierRun(cfg.Data(), cfg.Classifier()), cfg.TextTransformer(), cfg.CLIPText(),
    cfg.BERTText(), cfg.SentenceBERT(), cfg.ClassConditioner(), cfg.TextConditioner(),
    cfg.CaptionMapConditioner(),
    cfg.InpaintingConditioner(), cfg.LowResConditioner(), cfg.ClassMapConditioner(),
    cfg.LayoutConditioner(), cfg.EditConditioner(), cfg.DepthConditioner(),
    cfg.SizeConditioner(), cfg.WorkShare(),
    cfg.NoiseAugmentation(), cfg.Data(),
    cfg.DigitScenes(), cfg.ImageFolder(), cfg.Buckets(), cfg.EncodedLatents(), cfg.Diffusion(),
    tiny.diffusion_run("folder").model(tiny.AUTOENCODER), cfg.Autoencoder(), cfg.Pixels(),
    cfg.UNet(), cfg.ControlBranch(), cfg.Objective(), cfg.Discrete(), cfg.VP(), cfg.SubVP(),
    cfg.VE(), cfg.EDM(), cfg.RectifiedFlow(),
    tiny.autoencoder_run("folder"), tiny.diffusion_run("folder"),
    cfg.Perceptual(), cfg.Adversarial(norm="none"), cfg.AutoencoderLoss(l2_weight=1.0),
    cfg.Optim(), cfg.Mesh(data=1), cfg.Loop(), cfg.Bicubic(), cfg.BSRGAN(),
    cfg.CodeTransformer(), cfg.ClassPrefix(), cfg.CodeSampling(), tiny_codes.config(),
    cfg.ClassMapPrefix(), cfg.DepthPrefix(), cfg.CoordinatePrefix(),
    cfg.CodeTransformerRun(cfg.Data(), cfg.CodeTransformer()),
    cfg.Strokes(), cfg.Boxes(), cfg.Masks(), cfg.LayoutTokens(), cfg.ClassMaps(), cfg.CaptionTags(),
    cfg.DreamBooth(class_path="x"), cfg.FittedPictures(), cfg.Shards(), cfg.WebDataset(),
    cfg.TFDS(), cfg.Mixture(),
    cfg.LoRA(), cfg.LoHa(), cfg.LoKr(), cfg.IA3(), cfg.FullDifference(), cfg.ModuleAdapter(),
    cfg.TextualInversion(), cfg.Hypernetwork(), cfg.ControlNet(), cfg.CLIP(end_token=1),
    cfg.CLIPVision(), cfg.DINOv2(), cfg.DrawnScores(), cfg.FeatureFiles(),
    cfg.ContrastiveRun(
        cfg.Data(image_size=64), cfg.CLIP(vision=cfg.CLIPVision(64, 16)), tokenizer="clip"
    ),
)  # fmt: skip
DRAWING = (
    cfg.Sampling, cfg.PictureInput, cfg.ConditionFiles, cfg.ControlHints, cfg.ModelChoice,
    cfg.Request,
)  # fmt: skip
"""What is drawn; of all but `Sampling` ranges are checked beside relations."""
NEVER = (float("nan"), float("inf"), float("-inf"), 10**12 + 1, 10**400, -(10**12), True, "1")
"""What no number may be, a weight of 10^12 aside."""
MAY_BE = {
    -1: {"Mesh.data", "Mesh.fsdp", "Mesh.tensor", "EDM.p_mean", "Objective.times_mean",
         "AutoencoderLoss.logvar", "ClassMaps.shift", "LoKr.factor"},
    0: {"VQ.beta", "VQ.ema_decay", "Gumbel.kl_weight", "LFQ.beta", "LFQ.entropy_weight",
        "Classifier.dropout", "Diffusion.steps_offset", "TextTransformer.layers",
        "CLIPText.skip_last", "CLIP.end_token",
        "ClassConditioner.dropout", "TextConditioner.dropout", "ClassMapConditioner.dropout",
        "LayoutConditioner.dropout", "EditConditioner.dropout",
        "EditConditioner.dropped_with_caption", "NoiseAugmentation.usual_level", "Data.workers",
        "WorkShare.process_id",
        "ImageFolder.validation_fraction", "UNet.concat_channels", "UNet.dropout",
        "Objective.p2_gamma", "Objective.vlb_weight", "Objective.times_mean",
        "Objective.noise_offset", "Objective.input_perturbation", "Objective.map_weight",
        "Objective.validation_levels", "EDM.p_mean", "Adversarial.start", "Adversarial.r1_gamma",
        "Adversarial.lecam_weight", "Adversarial.lecam_decay", "AutoencoderLoss.l1_weight",
        "AutoencoderLoss.l2_weight", "AutoencoderLoss.kl_weight",
        "AutoencoderLoss.codebook_weight", "AutoencoderLoss.logvar", "Optim.warmup_steps",
        "Optim.beta1", "Optim.beta2", "Optim.weight_decay", "Optim.ema_decay", "Loop.seed",
        "Loop.norm_depth", "Loop.sample_every", "Loop.sample_guidance", "Strokes.weight",
        "Boxes.weight",
        "CodeTransformer.n_unmasked", "CodeTransformer.embedding_dropout",
        "CodeTransformer.residual_dropout", "CodeTransformer.attention_dropout",
        "CodeTransformerRun.pkeep",
        "ControlNet.canny_low",
        "Boxes.margin", "Masks.all_masked", "ClassMaps.ignore", "ClassMaps.shift",
        "CaptionTags.dropout", "CaptionTags.keep_first", "DrawnScores.reference_num",
        "DreamBooth.prior_weight",
        "LoRA.rank_dropout", "ModuleAdapter.dropout", "ModuleAdapter.module_dropout"},
    1e12: {"CodeSampling.temperature", "DreamBooth.prior_weight", "LoRA.alpha",
           "LoHa.alpha", "LoKr.alpha",
           "Autoencoder.latent_scale", "VQ.beta", "Gumbel.temperature", "Gumbel.kl_weight",
           "LFQ.beta", "LFQ.entropy_weight", "LFQ.temperature", "Diffusion.sigma_data",
           "Objective.huber_c", "Objective.min_snr_gamma", "Objective.p2_k",
           "Objective.vlb_weight", "Objective.map_weight", "Perceptual.weight",
           "Adversarial.weight", "Adversarial.factor", "Adversarial.r1_gamma",
           "Adversarial.lecam_weight", "AutoencoderLoss.l1_weight", "AutoencoderLoss.l2_weight",
           "AutoencoderLoss.kl_weight", "AutoencoderLoss.codebook_weight", "Optim.clip_norm",
           "Strokes.weight", "Boxes.weight"},
}  # fmt: skip
"""Values that have a meaning in some fields only."""


def numbers(hint):
    """The kinds of number in an annotation: (int or float, its range or None)."""
    if typing.get_origin(hint) is Annotated:
        kind, *extras = typing.get_args(hint)
        ranges = [extra for extra in extras if isinstance(extra, Within)]
        if kind in (int, float):
            return [(kind, ranges[0] if ranges else None)]
        return numbers(kind)
    if hint in (int, float):
        return [(hint, None)]
    return [found for inner in typing.get_args(hint) for found in numbers(inner)]


def made(instance, **changes):
    """As `dataclasses.replace`, without the tests' check of types, which users do not have."""
    new = object.__new__(type(instance))
    vars(new).update(vars(instance) | changes)
    new.__post_init__()


FIELDS = [
    pytest.param(instance, name, hint, id=f"{type(instance).__name__}.{name}")
    for instance in INSTANCES
    for name, hint in field_hints(type(instance)).items()
    if numbers(hint)
]


def test_all_configs_are_tried():
    public = {kind for _, kind in inspect.getmembers(cfg, inspect.isclass)}
    configs = {kind for kind in public if dataclasses.is_dataclass(kind)} - {
        *DRAWING,
        cfg.ConfigFile,
    }
    assert configs == {type(instance) for instance in INSTANCES}


@pytest.mark.parametrize(("instance", "name", "hint"), FIELDS)
def test_every_number_has_a_range(instance, name, hint):
    where = f"{type(instance).__name__}.{name}"
    assert all(allowed is not None for _, allowed in numbers(hint)), where
    old = getattr(instance, name)

    def refused(value) -> bool:
        new = (value,) * max(len(old), 1) if isinstance(old, tuple) else value
        try:
            made(instance, **{name: new})
        except cfg.ConfigError as error:
            return name in str(error) or f"{error}".startswith("mesh is")
        return False

    weights = {where} & MAY_BE[1e12]
    for value in NEVER:
        assert refused(value) or (weights and value == 10**12 + 1), (where, value)
    float_only = {kind for kind, _ in numbers(hint)} == {float}
    for value, fields in MAY_BE.items():
        value = float(value) if float_only else value
        assert refused(value) == (where not in fields), (where, value)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (
            lambda: cfg.Optim(clip_norm=-1.0),
            "Optim.clip_norm is -1.0; it must be None or a number of",
        ),
        (lambda: cfg.Optim(ema_decay=2.0), "Optim.ema_decay is 2.0; .* of at least 0 and below 1"),
        (
            lambda: made(cfg.Optim(), schedule="cosin"),
            "Optim.schedule is 'cosin'; it must be one of 'cons",
        ),
        (
            lambda: made(cfg.Data(), source=3),
            "Data.source is 3; it must be DigitScenes or ImageFolder",
        ),
        (lambda: made(cfg.Loop(), remat=1), "Loop.remat is 1; it must be True or False"),
        (lambda: cfg.UNet(layers_per_block=3000), "layers_per_block is 3000; .* at most 64"),
        (lambda: cfg.UNet(layers_per_block=64, transformer_layers=64), "1024 blocks of any"),
        (lambda: cfg.Discrete(3 * 10**8), "num_timesteps is 300000000; .* at most 100000"),
    ],
)
def test_what_is_refused_says_what_is_allowed(make, complaint):
    with pytest.raises(cfg.ConfigError, match=complaint):
        make()


@pytest.mark.parametrize("kind", DRAWING)
def test_numbers_of_a_drawing_are_numbers(kind):
    for name, hint in field_hints(kind).items():
        for value in (float("nan"), float("inf"), True, "1") if numbers(hint) else ():
            listed = (value,) if "tuple" in str(hint) else value
            with pytest.raises(cfg.ConfigError, match=name):
                made(kind(), **{name: listed})


def test_every_number_of_a_sampler_has_a_range():
    hints = field_hints(cfg.Sampling)
    free = [name for name, hint in hints.items() if any(r is None for _, r in numbers(hint))]
    # Whose upper end may be infinity: there a process has noise alone.
    assert free == ["guidance_interval"]
    for name in hints.keys() - free:
        for value in (10**12, -(10**12), 1e31) if numbers(hints[name]) else ():
            listed = (value,) if "tuple" in str(hints[name]) else value
            if name not in ("timesteps", "sigmas") or abs(value) > 1e30:
                with pytest.raises(cfg.ConfigError, match=f"^{name} is"):
                    made(cfg.Sampling(), **{name: listed})
