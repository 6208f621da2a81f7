"""What trains and samples here also lowers for TPU and CUDA, and compiles for pods and GPUs."""

import jax
import jax.numpy as jnp
import pytest
import tiny

from ldm_jax import code_model
from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.models.build import build_autoencoder
from ldm_jax.sampling.ancestral import DDIM
from ldm_jax.sampling.guidance import Guidance
from ldm_jax.sampling.levels import levels
from ldm_jax.training.autoencoder_loss import AutoencoderLoss
from ldm_jax.training.autoencoder_stage import fresh_params
from ldm_jax.training.autoencoder_step import create_autoencoder_state, make_autoencoder_step
from ldm_jax.training.code_step import decays, make_code_step
from ldm_jax.training.diffusion_step import make_diffusion_step
from ldm_jax.training.optim import make_optimizer
from ldm_jax.training.state import create_state

PLATFORMS = ("tpu", "cuda")


@pytest.fixture(scope="module")
def demo():
    """The demo's model with the shapes of its parameters and of a batch."""
    run = cfg.load(tiny.ROOT / "configs/digit_scenes_demo.py")
    autoencoder = cfg.load(tiny.ROOT / "configs/digit_scenes_autoencoder.py").autoencoder
    model = ldm.build(run.model(autoencoder), run.loop.dtype, run.loop.remat)
    shape = model.latent_shape
    side, size = run.data.image_size, run.data.batch_size
    variables = jax.eval_shape(
        model.autoencoder.init, jax.random.key(0), jnp.zeros((1, side, side, 3)),
        jnp.zeros((1, *shape)),
    )  # fmt: skip
    frozen = {
        "autoencoder": variables["params"],
        "latent_scale": jax.ShapeDtypeStruct((), jnp.float32),
    }
    batch = {
        "image": jax.ShapeDtypeStruct((size, side, side, 3), jnp.uint8),
        "index": jax.ShapeDtypeStruct((size,), jnp.uint32),
        "inputs": jax.eval_shape(lambda: ldm.zero_inputs(model.config, size)),
    }
    return run, model, shape, frozen, batch


def test_the_demos_training_step_lowers_for_tpu_and_cuda(demo):
    run, model, shape, frozen, batch = demo
    optimizer = make_optimizer(run.optim, run.loop.steps)
    state = jax.eval_shape(
        lambda: create_state(ldm.init_params(model, 0), optimizer, run.optim.ema_decay)
    )
    uncond = {name: value[0] for name, value in ldm.zero_inputs(model.config).items()}
    step = jax.jit(make_diffusion_step(model, optimizer, run, uncond), donate_argnums=0)

    def leaves_only(leaves, frozen, batch):
        # Exported programs know no TrainState.
        new, metrics = step(jax.tree.unflatten(structure, leaves), frozen, batch)
        return jax.tree.leaves(new), metrics

    leaves, structure = jax.tree.flatten(state)
    exported = jax.export.export(jax.jit(leaves_only), platforms=PLATFORMS)(leaves, frozen, batch)
    assert exported.platforms == PLATFORMS
    shapes = [(leaf.shape, leaf.dtype) for leaf in leaves]
    assert [(a.shape, a.dtype) for a in exported.out_avals[: len(leaves)]] == shapes


def test_a_first_stages_training_step_lowers_for_tpu_and_cuda():
    run = cfg.load(tiny.ROOT / "configs/digit_scenes_vq_f4.py")
    autoencoder = build_autoencoder(run.autoencoder)
    losses = AutoencoderLoss(autoencoder, run)
    state = jax.eval_shape(lambda: create_autoencoder_state(run, fresh_params(losses)))
    side, size = run.data.image_size, run.data.batch_size
    batch = {
        "image": jax.ShapeDtypeStruct((size, side, side, 3), jnp.uint8),
        "index": jax.ShapeDtypeStruct((size,), jnp.uint32),
    }
    step = jax.jit(make_autoencoder_step(autoencoder, run))
    leaves, structure = jax.tree.flatten(state)

    def leaves_only(leaves, batch):
        new, metrics = step(jax.tree.unflatten(structure, leaves), {}, batch)
        return jax.tree.leaves(new), metrics

    exported = jax.export.export(jax.jit(leaves_only), platforms=PLATFORMS)(leaves, batch)
    shapes = [(leaf.shape, leaf.dtype) for leaf in leaves]
    assert [(a.shape, a.dtype) for a in exported.out_avals[: len(leaves)]] == shapes


def test_the_demos_sampler_lowers_for_tpu_and_cuda(demo):
    run, model, shape, frozen, batch = demo
    params = jax.eval_shape(lambda: ldm.init_params(model, 0))

    def sample(params, frozen, inputs, index):
        return ldm.generate(
            model, params, frozen, inputs, jax.tree.map(jnp.zeros_like, inputs), solver=DDIM(),
            levels=levels(model.process, 50), seed=0, index=index, guidance=Guidance(scale=3.0),
            shape=shape,
        )  # fmt: skip

    export = jax.export.export(jax.jit(sample), platforms=PLATFORMS)
    exported = export(params, frozen, batch["inputs"], batch["index"])
    assert exported.out_avals[0].shape == batch["image"].shape
    assert exported.out_avals[0].dtype == jnp.uint8


def test_a_transformer_over_codes_trains_and_draws_on_tpu_and_cuda():
    run = cfg.load(tiny.ROOT / "configs/digit_scenes_codes.py")
    model = code_model.build(
        run.model(cfg.load(tiny.ROOT / "configs/digit_scenes_vq_f4.py").autoencoder)
    )
    optimizer = make_optimizer(run.optim, run.loop.steps, decays)
    state = jax.eval_shape(
        lambda: create_state(code_model.init_params(model, 0), optimizer, run.optim.ema_decay)
    )
    rows, grid = 4, model.config.grid
    batch = {
        "encoded": jax.ShapeDtypeStruct((rows, *grid), jnp.int32),
        "index": jax.ShapeDtypeStruct((rows,), jnp.uint32), "inputs": {},
    }  # fmt: skip
    step = jax.jit(make_code_step(model, optimizer, run))
    leaves, structure = jax.tree.flatten(state)

    def leaves_only(leaves, batch):
        new, metrics = step(jax.tree.unflatten(structure, leaves), {}, batch)
        return jax.tree.leaves(new), metrics

    exported = jax.export.export(jax.jit(leaves_only), platforms=PLATFORMS)(leaves, batch)
    shapes = [(leaf.shape, leaf.dtype) for leaf in leaves]
    assert [(a.shape, a.dtype) for a in exported.out_avals[: len(leaves)]] == shapes

    def draw(params, number):
        choice = code_model.choice_of(run.sampling, model.config)
        return model.draw(params, model.prefix({}, {}, rows), 0, number, choice)

    export = jax.export.export(jax.jit(draw), platforms=PLATFORMS)
    exported = export(state.params, batch["index"])
    assert exported.out_avals[0].shape == (rows, *grid)


@pytest.mark.slow
def test_a_small_stable_diffusion_compiles_for_a_pod():
    programs = ("train", "sample", "first")
    process = tiny.start(
        "-m", "benchmarks.pods", "--reduced", "--topology", "v5e:4x4", "--program", *programs,
        "--deterministic", XLA_FLAGS="",
    )  # fmt: skip
    rows = tiny.check(process).splitlines()
    for program in programs:
        (row,) = [row for row in rows if row.startswith(program)]
        chips, images, arguments, _, total, *_ = row.split()[1:]
        assert chips == "v5e:4x4" and int(images) % 16 == 0
        assert 0 < float(arguments) < float(total) < 16, "GB a chip"
    # Gradients are summed over the chips, parameters gathered from where they lie.
    (row,) = [row for row in rows if row.startswith("train")]
    assert "all-reduce" in row or "reduce-scatter" in row
    assert "all-gather" in row


@pytest.mark.slow
def test_a_small_stable_diffusion_trains_on_gpus():
    for package in ("jax_cuda13_plugin", "nvidia.cudnn"):
        pytest.importorskip(package, reason="`make gpus` installs CUDA's compiler and cuDNN")
    # CLIP has 77 tokens, and the run is in bfloat16.
    process = tiny.start(
        "-m", "benchmarks.pods", "--reduced", "--topology", "h100:8", "--program", "train",
        "--deterministic", XLA_FLAGS="",
    )  # fmt: skip
    (row,) = [row for row in tiny.check(process).splitlines() if row.startswith("train")]
    assert "h100:8" in row and "all-gather" in row
