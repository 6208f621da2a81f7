"""Gradients of a step of fine-tuning beside PEFT's and diffusers', of the same weights and noise.

Ours are those of `denoising_loss` on parameters with an adapter beside them. Both compute in
float32; gradients go through some fifty layers, so they differ by rounding: 1e-4 of the largest.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from tiny_pipelines import pipeline  # noqa: E402

from ldm_jax import config as cfg  # noqa: E402
from ldm_jax import latent_diffusion as ldm  # noqa: E402
from ldm_jax.adapters.adapted import adapt  # noqa: E402
from ldm_jax.convert import load  # noqa: E402
from ldm_jax.convert.imported_model import materialize  # noqa: E402
from ldm_jax.core import tree  # noqa: E402
from ldm_jax.training.diffusion_step import denoising_loss  # noqa: E402
from ldm_jax.training.objective import Objective  # noqa: E402
from ldm_jax.training.trainable import split, with_adapter  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
RANK, ALPHA, ROWS = 2, 3.0, 4
INDEX, T = np.arange(ROWS, dtype=np.uint32), np.array([10, 400, 700, 999])
PRIOR = 0.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peer")
    pipeline(folder, "shallow").save_pretrained(folder / "model")
    return folder


@pytest.mark.parametrize("magnitude", [False, True], ids=["lora", "dora"])
def test_a_step_of_dreambooth_with_prior_preservation(folder, magnitude):
    """A LoRA of U-Net and text encoder; the first and third rows are of the subject."""
    imported = load(folder / "model")
    adapter = cfg.ModuleAdapter(
        cfg.LoRA(RANK, ALPHA), modules=("attention", "text_attention"), magnitude=magnitude
    )
    run = cfg.DiffusionRun(
        tiny.data(folder), imported.config.unet, imported.config.conditioners,
        imported.config.diffusion, train=("adapter",), adapter=adapter,
    )  # fmt: skip
    base = jax.tree.map(jnp.asarray, materialize(imported.params))
    trained, rest = split(with_adapter(base, run, imported.config), run)
    moved = tree.flatten(trained)
    random = np.random.default_rng(0)
    moved = {
        path: np.asarray(array) + 0.05 * random.normal(size=array.shape).astype(np.float32)
        for path, array in moved.items()
    }
    trained = tree.unflatten({path: jnp.asarray(array) for path, array in moved.items()})

    model = adapt(ldm.build(imported.config), adapter)
    latents = random.normal(size=(ROWS, 8, 8, 4)).astype(np.float32)
    tokens = random.integers(0, 52, size=(ROWS, 77)).astype(np.int32)
    importance = np.array([2, 2 * PRIOR, 2, 2 * PRIOR], np.float32)

    def loss(trained):
        losses = denoising_loss(
            model, run, tree.join(trained, rest), jnp.asarray(latents),
            {"caption": jnp.asarray(tokens)}, jnp.asarray(INDEX), jnp.asarray(T, jnp.float32), {},
            train=True,
        )  # fmt: skip
        return jnp.mean(importance * losses)

    value, gradients = jax.jit(jax.value_and_grad(loss))(trained)
    noise, _ = Objective(run, model.process).noise(jnp.asarray(INDEX), (8, 8, 4), train=True)
    expected, theirs = _theirs(folder, moved, magnitude, latents, tokens, np.asarray(noise))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    found = tree.flatten(gradients)
    assert found.keys() == theirs.keys() and any("text_encoder" in path for path in found)
    largest = max(np.abs(array).max() for array in theirs.values())
    for path, array in theirs.items():
        np.testing.assert_allclose(found[path], array, atol=1e-4 * largest, err_msg=path)


def test_a_step_of_textual_inversion(folder):
    """Two vectors of a word in captions, beside which nothing has gradients."""
    imported = load(folder / "model")
    adapter = cfg.TextualInversion(words=("zork",), vectors=2)
    run = cfg.DiffusionRun(
        tiny.data(folder), imported.config.unet, imported.config.conditioners,
        imported.config.diffusion, train=("adapter",), adapter=adapter,
    )  # fmt: skip
    base = jax.tree.map(jnp.asarray, materialize(imported.params))
    trained, rest = split(with_adapter(base, run, imported.config, (3, 4)), run)
    (path,) = tree.flatten(trained)
    assert path == "conditioners/text_encoder/adapters/embeddings/zork"
    vocab = imported.config.conditioners[0].encoder.vocab_size
    random = np.random.default_rng(1)
    latents = random.normal(size=(ROWS, 8, 8, 4)).astype(np.float32)
    tokens = random.integers(0, 52, size=(ROWS, 77)).astype(np.int32)
    tokens[:, 3:5] = vocab, vocab + 1
    model = adapt(ldm.build(imported.config), adapter)

    def loss(trained):
        losses = denoising_loss(
            model, run, tree.join(trained, rest), jnp.asarray(latents),
            {"caption": jnp.asarray(tokens)}, jnp.asarray(INDEX), jnp.asarray(T, jnp.float32), {},
            train=True,
        )  # fmt: skip
        return jnp.mean(losses)

    value, gradients = jax.jit(jax.value_and_grad(loss))(trained)
    noise, _ = Objective(run, model.process).noise(jnp.asarray(INDEX), (8, 8, 4), train=True)

    import diffusers

    peer = diffusers.StableDiffusionPipeline.from_pretrained(folder / "model")
    peer.unet.requires_grad_(False)
    peer.text_encoder.requires_grad_(False)
    table = peer.text_encoder.get_input_embeddings()
    rows = torch.from_numpy(np.array(tree.flatten(trained)[path]))
    longer = torch.nn.Embedding(vocab + 2, rows.shape[1])
    longer.weight.data.copy_(torch.cat([table.weight.data, rows]))
    peer.text_encoder.set_input_embeddings(longer)
    x, eps = (torch.from_numpy(np.array(a).transpose(0, 3, 1, 2).copy()) for a in (latents, noise))
    steps = torch.from_numpy(T)
    scheduler = diffusers.DDPMScheduler.from_config(peer.scheduler.config)
    context = peer.text_encoder(torch.from_numpy(tokens).long())[0]
    output = peer.unet(scheduler.add_noise(x, eps, steps), steps, context).sample
    expected = torch.nn.functional.mse_loss(output, eps)
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    theirs = longer.weight.grad[vocab:].numpy()
    found = tree.flatten(gradients)[path]
    np.testing.assert_allclose(found, theirs, atol=1e-4 * np.abs(theirs).max())


def _theirs(folder, moved, magnitude, latents, tokens, noise):
    """Loss and gradients, by our paths, of diffusers' modules with PEFT's layers."""
    import diffusers

    peer = diffusers.StableDiffusionPipeline.from_pretrained(folder / "model")
    names: dict[str, torch.nn.Parameter] = {}
    for module, root in (
        (peer.unet, "unet/adapters/0/modules"),
        (peer.text_encoder, "conditioners/text_encoder/adapters/0/modules"),
    ):
        ends = ["to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj"]
        module.requires_grad_(False)
        config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=ends, use_dora=magnitude)
        module.add_adapter(config)
        for name, parameter in module.named_parameters():
            if "lora_" not in name:
                continue
            where, kind = name.split(".lora_")
            path = f"{root}/{where.replace('.', '/')}"
            end = {"A": "down", "B": "up", "m": "magnitude"}[kind[0]]
            if not magnitude:
                path += f"/lora/{end}"
            else:
                path += "/dora/magnitude" if end == "magnitude" else f"/dora/change/lora/{end}"
            path = path if path in moved else path.replace("modules/", "modules/text_model/")
            names[path] = parameter
            values = torch.from_numpy(moved[path])
            parameter.data.copy_(values.reshape(parameter.shape))
            parameter.requires_grad_(True)
    assert names.keys() == moved.keys()
    x, eps = (torch.from_numpy(a.transpose(0, 3, 1, 2).copy()) for a in (latents, noise))
    steps = torch.from_numpy(T)
    scheduler = diffusers.DDPMScheduler.from_config(peer.scheduler.config)
    context = peer.text_encoder(torch.from_numpy(tokens).long())[0]
    output = peer.unet(scheduler.add_noise(x, eps, steps), steps, context).sample
    subject, prior = (
        torch.nn.functional.mse_loss(output[part], eps[part]) for part in (slice(0, None, 2),
                                                                           slice(1, None, 2))
    )  # fmt: skip
    loss = subject + PRIOR * prior
    loss.backward()
    return loss.item(), {p: q.grad.numpy().reshape(moved[p].shape) for p, q in names.items()}
