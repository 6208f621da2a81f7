"""Every file of configs/ describes a model that can be built, and a run that trains."""

import typing
from dataclasses import replace
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_codes

from benchmarks.pods import abstract_frozen
from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.config.published import FIRST_STAGES
from ldm_jax.config.published_models import MODELS
from ldm_jax.convert import imported_model
from ldm_jax.convert.clip.clip_folders import clip_shapes
from ldm_jax.data.loader import make_loader
from ldm_jax.models.build import build_autoencoder, build_classifier
from ldm_jax.training.autoencoder_stage import autoencoder_stage
from ldm_jax.training.classifier_stage import classifier_stage
from ldm_jax.training.code_stage import code_stage
from ldm_jax.training.contrastive_stage import contrastive_stage
from ldm_jax.training.diffusion_stage import diffusion_stage

FILES = sorted((tiny.ROOT / "configs").glob("*.py"))
PUBLISHED = tiny.ROOT / "configs" / "published_first_stages.py"
TASKS = tiny.ROOT / "configs" / "published_tasks.py"
# Trained in tests/training, for they need a model to begin with.
FINE_TUNING = {path for path in FILES if "init" in cfg.open_config(path).options}
PUBLISHED_CODES = tiny.ROOT / "configs" / "published_code_transformers.py"


def with_options(path):
    """A config once for each value of each of its options; the others are the usual ones."""
    found = [{}]
    for name, option in cfg.open_config(path).options.items():
        values = typing.get_args(option.annotation)
        if typing.get_origin(option.annotation) is Literal:
            found += [{name: value} for value in values if value != option.default]
            if option.default is option.empty:
                found.remove({})
    for name, option in cfg.open_config(path).options.items():
        if option.annotation is cfg.Model:
            found = [options | {name: MODELS["Stable Diffusion 1"]} for options in found]
    named = (
        (options, [value for value in options.values() if isinstance(value, str)])
        for options in found
    )
    return [
        pytest.param(path, options, id="-".join([path.stem, *values])) for options, values in named
    ]


CONFIGS = [each for path in FILES for each in with_options(path)]
NAMED = {PUBLISHED: ("kl-f8", "vq-f8"), TASKS: (), PUBLISHED_CODES: ()}
"""Names of configs with options that are trained; the others are as these, or as one beside."""
SMALL = [
    pytest.param(path, {"name": name} if name else {}, id=path.stem + name)
    for path in FILES if path not in FINE_TUNING for name in NAMED.get(path, ("",))
]  # fmt: skip
LATENTS = {  # stage two → the stage one that its docstring names
    "digit_scenes_super": "digit_scenes_vq_f4",
    "digit_scenes": "digit_scenes_autoencoder",
    "image_folder": "image_folder_autoencoder",
    "stable_diffusion": "stable_diffusion_autoencoder",
}


def first_stage(path, options, run):
    if path == TASKS:
        recipe = cfg.open_config(path).get_config.__globals__["RECIPES"][options["name"]]
        return MODELS[recipe.model].autoencoder
    if path in FINE_TUNING:
        return options["init"].autoencoder
    if getattr(run, "space", None) == "pixels":
        return cfg.Pixels()
    if isinstance(run, cfg.CodeTransformerRun):
        digits = path.stem.startswith("digit_scenes")
        return cfg.load("digit_scenes_vq_f4").autoencoder if digits else FIRST_STAGES["vq-f16"]
    kind = path.stem.rsplit("_", 1)[0] if path.stem.startswith("digit") else path.stem
    names = [name for start, name in LATENTS.items() if kind.startswith(start)]
    return cfg.load(names[0]).autoencoder


@pytest.mark.parametrize(("path", "options"), CONFIGS)
def test_the_model_is_built_at_its_size(path, options):
    run = cfg.load(path, **options)
    side = run.data.image_size
    if isinstance(run, cfg.AutoencoderRun):
        autoencoder, latent = build_autoencoder(run.autoencoder), side // run.autoencoder.factor
        channels = run.autoencoder.image_channels
        image = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
        params = jax.eval_shape(autoencoder.init, jax.random.key(0), image)
        out, passed = jax.eval_shape(autoencoder.apply, params, image)
        assert out.shape == image.shape
        assert passed.latents.shape == (1, latent, latent, run.autoencoder.latent_channels)
        return
    if isinstance(run, cfg.ContrastiveRun):
        shapes = clip_shapes(run.clip)
        assert shapes["text_projection"]["kernel"].shape[1] == run.clip.embedding
        return
    autoencoder = first_stage(path, options, run)
    if path == TASKS and options["name"] != "bsr_sr":
        # Their networks are built to count parameters: tests/convert/test_published_models.py.
        assert run.model(autoencoder).side_multiple
        return
    if isinstance(run, cfg.CodeTransformerRun):
        size = run.transformer.vocab_size or autoencoder.codes
        autoencoder = replace(autoencoder, bottleneck=replace(autoencoder.bottleneck, size=size))
        channels = cfg.stage_channels(run.condition)
        stage = channels and replace(autoencoder, image_channels=channels)
        config = run.model(autoencoder, stage).transformer
        shapes = imported_model.code_transformer_shapes(config)
        assert shapes["head"]["kernel"].shape == (config.width, size)
        assert len(shapes["blocks"]) == config.layers
        return
    if isinstance(run, cfg.ClassifierRun):
        run.check_first_stage(autoencoder)
        side = side // autoencoder.factor
        x = jax.ShapeDtypeStruct((2, side, side, autoencoder.latent_channels), jnp.float32)
        classifier, t = build_classifier(run.classifier), jax.ShapeDtypeStruct((2,), jnp.float32)
        params = jax.eval_shape(classifier.init, jax.random.key(0), x, t)
        assert jax.eval_shape(classifier.apply, params, x, t).shape == (2, 10)
        return
    model = ldm.build(run.model(autoencoder), run.loop.dtype, run.loop.remat)
    shape = model.latent_shape
    params = jax.eval_shape(lambda: ldm.init_params(model, 0))

    def network(params, frozen):
        index = jnp.zeros(2, jnp.uint32)
        inputs = model.with_noise(ldm.zero_inputs(model.config, 2), 0, "test", index, shape)
        condition = model.condition(params, frozen, inputs)
        return model.network(params, jnp.zeros((2, *shape)), jnp.zeros(2, jnp.int32), condition)

    # Only some conditioners encode pictures.
    frozen = abstract_frozen(model) if model.config.sees_pictures else {}
    out = jax.eval_shape(network, params, frozen)
    channels = (1 + run.diffusion.learned_variance) * shape[-1]
    assert out.shape == (2, *shape[:2], channels)


def shrunk(run, pictures, annotations):
    """The same run with few channels and layers, on small pictures of a folder."""
    source = cfg.ImageFolder(path=str(pictures), validation_fraction=0.2)
    data = replace(run.data, source=source, image_size=16, batch_size=16, workers=0)
    if isinstance(run, cfg.AutoencoderRun):
        if run.maps is not None:
            data = tiny.annotated(data, annotations)
        bottleneck, loss = run.autoencoder.bottleneck, replace(run.loss, perceptual=None)
        if isinstance(bottleneck, cfg.VQ):
            bottleneck = replace(bottleneck, size=16)
        autoencoder = replace(
            run.autoencoder, latent_channels=4, block_out_channels=(8,), norm_num_groups=4,
            layers_per_block=1, attention=(), bottleneck=bottleneck,
        )  # fmt: skip
        if loss.adversarial is not None:
            discriminator = replace(loss.adversarial, start=0, channels=8, layers=1)
            loss = replace(loss, adversarial=discriminator)
        return replace(run, data=data, mesh=cfg.Mesh(), autoencoder=autoencoder, loss=loss)
    run = replace(run, data=data, mesh=cfg.Mesh())
    if isinstance(run, cfg.ContrastiveRun):
        return run
    if isinstance(run, cfg.ClassifierRun):
        classifier = replace(
            run.classifier, in_channels=4, block_out_channels=(8,), attention=(False,),
            num_heads=(2,), norm_num_groups=4,
        )  # fmt: skip
        return replace(run, classifier=classifier)
    classes = sum(folder.is_dir() for folder in pictures.iterdir())
    if isinstance(run, cfg.CodeTransformerRun):
        condition = run.condition
        if isinstance(condition, cfg.ClassPrefix):
            condition = cfg.ClassPrefix(classes)
        elif isinstance(condition, cfg.ClassMapPrefix):
            maps = cfg.ClassMaps(tiny_codes.CLASS_MAPS.image_channels, ignore=None)
            condition, data = cfg.ClassMapPrefix(maps), tiny.annotated(data, annotations)
        elif isinstance(condition, cfg.DepthPrefix):
            data = tiny.annotated(data, annotations)
        return replace(run, data=data, transformer=tiny_codes.TRANSFORMER, condition=condition)
    conditioners = []
    for conditioner in run.conditioners:
        if isinstance(conditioner, cfg.TextConditioner):
            encoder = replace(conditioner.encoder, width=16, layers=1, num_heads=2)
            if isinstance(encoder, cfg.CLIPText):
                encoder = replace(encoder, intermediate=32)
            conditioner = replace(conditioner, encoder=encoder)
        elif isinstance(conditioner, cfg.CaptionMapConditioner):
            conditioner = tiny.CAPTION_MAP
        elif isinstance(conditioner, cfg.ClassConditioner):
            conditioner = replace(conditioner, num_classes=classes)
        elif isinstance(conditioner, cfg.ClassMapConditioner | cfg.LayoutConditioner):
            data = tiny.annotated(data, annotations)
            conditioner = replace(conditioner, class_names=())
        conditioners.append(conditioner)
    unet = replace(
        run.unet, block_out_channels=(8,), attention=(True,), num_heads=(2,), layers_per_block=1,
        norm_num_groups=4,
    )  # fmt: skip
    return replace(run, data=data, conditioners=tuple(conditioners), unet=unet)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "options"), SMALL)
def test_a_small_one_trains_a_step(
    path, options, pictures, annotations, trained_autoencoder, tmp_path
):
    run = shrunk(cfg.load(path, **options), pictures, annotations)
    if isinstance(run, cfg.AutoencoderRun):
        stage = autoencoder_stage(run, tmp_path)
    elif isinstance(run, cfg.CodeTransformerRun):
        first, of_maps, of_depth = tiny_codes.write_first_stages(tmp_path)
        kinds = {cfg.ClassMapPrefix: str(of_maps), cfg.DepthPrefix: str(of_depth)}
        of_conditions = kinds.get(type(run.condition))
        stage = code_stage(run, tmp_path / "run", str(first), of_conditions)
    elif isinstance(run, cfg.ContrastiveRun):
        stage = contrastive_stage(run, tmp_path)
    elif isinstance(run, cfg.ClassifierRun):
        stage = classifier_stage(run, tmp_path, tiny.mesh(), str(trained_autoencoder))
    else:
        latents = run.space == "latents"
        stage = diffusion_stage(
            run, tmp_path, tiny.mesh(), str(trained_autoencoder) if latents else None
        )
    loader = make_loader(stage.train, run.data, seed=0, train=True, inputs=stage.inputs)
    before = tiny.filled(jax.eval_shape(stage.init, stage.initial))
    # Operation by operation, which configs share where programs would be each one's own; only the
    # one on codes shares them with none.
    frozen, batch = jax.tree.map(jnp.asarray, (stage.frozen, next(loader)))
    step = jax.jit(stage.step) if isinstance(run, cfg.CodeTransformerRun) else stage.step
    after, metrics = step(before, frozen, batch)
    assert int(after.step) == 1
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["gradient_norm"] > 0


def test_published_first_stages_have_every_factor():
    factors = {"kl": set(), "vq": set()}
    file = cfg.open_config(PUBLISHED)
    for name in typing.get_args(file.options["name"].annotation):
        factors[name[:2]].add(file.make(name=name).autoencoder.factor)
    assert factors["kl"] == factors["vq"] == {1, 2, 4, 8, 16, 32}
