"""Pipelines of diffusers, saved by it and read here, compute the same; and the other way round.

float32 against float32 in another order of summation: outputs near 1 differ by a few 1e-6 in each
of some thirty layers, so 1e-4 of the largest value is allowed.
"""

import os
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from tiny_pipelines import KINDS, VOCAB, autoencoder, pipeline, stable, unconditional  # noqa

from ldm_jax import config as cfg  # noqa: E402
from ldm_jax import latent_diffusion as ldm  # noqa: E402
from ldm_jax.convert import imported_model  # noqa: E402
from ldm_jax.convert.imported_model import materialize  # noqa: E402
from ldm_jax.convert.compvis.reader import read_checkpoint  # noqa: E402
from ldm_jax.convert.compvis.writer import write_checkpoint  # noqa: E402
from ldm_jax.convert.diffusers.pipeline_folders import read_folder, write_folder  # noqa: E402
from ldm_jax.models.build import (  # noqa: E402
    build_autoencoder,
    build_conditioner,
    build_unet,
)
from ldm_jax.models.conditioners import Condition  # noqa: E402

os.environ["HF_HUB_OFFLINE"] = "1"
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
CLOSE = 1e-4


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory):
    """Kind, pipeline, and the folder that diffusers saved it in."""
    folder = tmp_path_factory.mktemp(request.param)
    pipe = pipeline(folder, request.param)
    pipe.save_pretrained(folder / "saved")
    return request.param, pipe, folder / "saved"


def random(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def nhwc(x):
    return jnp.asarray(np.asarray(x).transpose(0, 2, 3, 1))


def close(ours, theirs, allowed=CLOSE):
    theirs = theirs.detach().numpy()
    if theirs.ndim == 4:
        theirs = theirs.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=allowed * np.abs(theirs).max())


def parts_of(pipe):
    first_stage = pipe.vae if hasattr(pipe, "vae") else pipe.vqvae
    encoder = getattr(pipe, "text_encoder", None) or getattr(pipe, "bert", None)
    return pipe.unet, first_stage, encoder


def same_bits(found, expected):
    """Asserts that two models have the same settings and parameters."""
    assert found.config == expected.config
    tiny.same_bits(found.components(), expected.components())


@torch.no_grad()
def same_outputs(imported, pipe):
    """Asserts that every component of both computes the same."""
    network, first_stage, encoder = parts_of(pipe)
    config, params = imported.config, {
        name: {"params": jax.tree.map(jnp.asarray, materialize(part))}
        for name, part in imported.components().items()
    }  # fmt: skip
    ours = build_autoencoder(config.autoencoder)
    image = random(1, 3, 16, 16)
    encoded = ours.apply(params["autoencoder"], nhwc(image), method="encode")
    theirs = first_stage.encode(torch.from_numpy(image))
    if config.autoencoder.codes is None:
        close(encoded.mean, theirs.latent_dist.mean)
        close(encoded.logvar, theirs.latent_dist.logvar)
    else:
        close(encoded.mode, theirs.latents)
    latent = random(1, config.autoencoder.latent_channels, 8, 8)
    decoded = ours.apply(params["autoencoder"], nhwc(latent), method="decode")
    close(decoded, first_stage.decode(torch.from_numpy(latent)).sample)

    condition, context = Condition(), None
    if encoder is not None:
        tokens = np.arange(2 * 77).reshape(2, 77) % VOCAB
        context = encoder(torch.from_numpy(tokens))[0]
        module = build_conditioner(config.conditioners[0]).module
        condition = module.apply(params["text_encoder"], jnp.asarray(tokens, jnp.int32))
        close(condition.context, context)
    x = random(2, config.unet.in_channels + config.unet.concat_channels, 8, 8)
    t = np.array([3, 901], np.int32)
    arguments = [torch.from_numpy(x), torch.from_numpy(t)] + ([] if context is None else [context])
    more = {}
    if config.unet.class_count:
        more = {"class_labels": torch.tensor([20, 99])}
        condition = condition._replace(label=jnp.array([20, 99]))
    theirs = network(*arguments, **more).sample
    x = nhwc(x)
    if config.unet.concat_channels:
        channels = config.unet.in_channels
        x, condition = x[..., :channels], condition._replace(concat=x[..., channels:])
    close(jax.jit(build_unet(config.unet).apply)(params["unet"], x, t, condition), theirs)


def test_read(saved):
    kind, pipe, folder = saved
    imported = read_folder(folder)
    assert imported.config.diffusion.prediction == ("v" if kind in ("sd2", "upscale") else "eps")
    assert imported.config.diffusion.final_alpha_bar == "first"
    assert imported.config.image_size == 16
    same_outputs(imported, pipe)


def test_written_folder(saved, tmp_path):
    """diffusers loads what is written here, tensor for tensor."""
    kind, pipe, folder = saved
    write_folder(read_folder(folder), tmp_path / "ours")
    # The peer does without an estimator of depth only where it is told so.
    absent = {"depth_estimator": None, "feature_extractor": None} if kind == "depth" else {}
    loaded = type(pipe).from_pretrained(tmp_path / "ours", **absent)
    for ours, theirs in zip(parts_of(loaded), parts_of(pipe), strict=True):
        if theirs is None:
            continue
        left, right = ours.state_dict(), theirs.state_dict()
        head = {name for name in right if name.startswith("to_logits")}
        assert left.keys() == right.keys()
        for name in right.keys() - head:
            assert torch.equal(left[name], right[name]), name
    assert loaded.scheduler.config["prediction_type"] == pipe.scheduler.config["prediction_type"]
    same_bits(read_folder(tmp_path / "ours"), read_folder(folder))


@torch.no_grad()
def test_normalised_channels_by_the_convention_of_stable_diffusion(tmp_path):
    """What is written encodes and decodes latents there, times scaling_factor, as here."""
    pipe = stable(tmp_path, "sd1")
    pipe.save_pretrained(tmp_path / "saved")
    imported = read_folder(tmp_path / "saved")
    autoencoder = replace(
        imported.config.autoencoder, latent_scale=0.9, latent_mean=(1.0, 0.0, -3.2, 0.5),
        latent_std=(0.5, 1.0, 0.7, 3.0),
    )  # fmt: skip
    config = replace(imported.config, autoencoder=autoencoder)
    parts = imported.components()
    imported = imported_model.make(config, parts, tokenizer=imported.tokenizer)
    write_folder(imported, tmp_path / "ours")
    vae = type(pipe).from_pretrained(tmp_path / "ours").vae
    model, frozen = ldm.build(config), jax.tree.map(jnp.asarray, materialize(imported.frozen))
    image, noise, latent = random(1, 3, 16, 16), random(1, 4, 8, 8), random(1, 4, 8, 8)
    posterior = vae.encode(torch.from_numpy(image)).latent_dist
    theirs = (posterior.mean + posterior.std * torch.from_numpy(noise)) * vae.config.scaling_factor
    close(model.encode(frozen, nhwc(image), nhwc(noise)), theirs, 1e-5)
    theirs = vae.decode(torch.from_numpy(latent) / vae.config.scaling_factor).sample
    close(model.decode(frozen, nhwc(latent)), theirs, 1e-5)


@pytest.mark.parametrize("form", ["bin", "fp16", "sharded", "sharded bin"])
def test_other_files(tmp_path, form):
    """torch files, variants, and several files with an index."""
    pipe = stable(tmp_path, "sd1")
    pipe.save_pretrained(tmp_path / "usual")
    expected = read_folder(tmp_path / "usual")
    options, variant = {"safe_serialization": "bin" not in form}, None
    if form == "fp16":
        pipe, options, variant = pipe.to(torch.float16), {"variant": "fp16"}, "fp16"
    if "sharded" in form:
        options["max_shard_size"] = "300KB"
    pipe.save_pretrained(tmp_path / "saved", **options)
    if "sharded" in form:
        assert list((tmp_path / "saved/unet").glob("*.index.json"))
    imported = read_folder(tmp_path / "saved", variant=variant)
    if form == "fp16":
        half = materialize(expected.components(), "float16")
        tiny.same_bits(materialize(imported.components(), None), half)
    else:
        same_bits(imported, expected)


def test_old_attention_names(tmp_path):
    """Autoencoders of 2022 call query, key, value and output otherwise; diffusers reads them."""
    theirs = autoencoder()
    theirs.save_pretrained(tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = theirs.state_dict()
    for new, name in old.items():
        state = {k.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): v.contiguous()
                 for k, v in state.items()}  # fmt: skip
    import safetensors.torch

    path = tmp_path / "diffusion_pytorch_model.safetensors"
    safetensors.torch.save_file(state, path, {"format": "pt"})
    imported = read_folder(tmp_path)
    assert isinstance(imported.config, cfg.Autoencoder)
    image = random(1, 3, 16, 16)
    ours = build_autoencoder(imported.config)
    params = {"params": jax.tree.map(jnp.asarray, materialize(imported.frozen["autoencoder"]))}
    encoded = ours.apply(params, nhwc(image), method="encode")
    with torch.no_grad():
        close(encoded.mean, theirs.encode(torch.from_numpy(image)).latent_dist.mean)


@pytest.mark.parametrize("kind", ["sd1", "sd2", "inpaint", "upscale", "edit"])
def test_written_single_file(tmp_path, kind):
    """diffusers loads the single file that is written here."""
    pipe = pipeline(tmp_path, kind)
    pipe.save_pretrained(tmp_path / "saved")
    write_checkpoint(read_folder(tmp_path / "saved"), tmp_path / "model.safetensors")
    again = read_checkpoint(tmp_path / "model.safetensors")
    tiny.same_bits(again.components(), read_folder(tmp_path / "saved").components())
    loaded = type(pipe).from_single_file(
        str(tmp_path / "model.safetensors"), config=str(tmp_path / "saved"), local_files_only=True,
        safety_checker=None, feature_extractor=None,
    )  # fmt: skip
    for ours, theirs in zip(parts_of(loaded), parts_of(pipe), strict=True):
        left, right = ours.state_dict(), theirs.state_dict()
        for name in right:
            assert torch.equal(left[name], right[name]), name


def test_scheduler_file_missing(tmp_path):
    pipe = unconditional("conv")
    pipe.save_pretrained(tmp_path / "saved")
    shutil.rmtree(tmp_path / "saved/scheduler")
    with pytest.raises(ValueError, match="scheduler_config.json: does not exist"):
        read_folder(tmp_path / "saved")
