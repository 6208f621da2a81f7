"""Gradients of a ControlNet in training beside diffusers': the same weights, latents, noise and
hints, the model itself frozen, in float32."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from test_networks import CROSS, OURS, SMALL, nhwc, normal  # noqa: E402
from torch_state import randomize, to_tree  # noqa: E402

from ldm_jax import config as cfg  # noqa: E402
from ldm_jax import latent_diffusion as ldm  # noqa: E402
from ldm_jax.core import tree  # noqa: E402
from ldm_jax.models.build import build_control  # noqa: E402
from ldm_jax.models.conditioners import Condition  # noqa: E402

# Torch warns of its own future.
pytestmark = pytest.mark.filterwarnings("default")
GRADIENTS = 1e-4
"""Relative, of each parameter: sums over places in another order, twice as deep as forwards."""


def test_gradients_of_a_step():
    settings = {name: value for name, value in CROSS.items() if "down" in name or "cross" in name}
    base = diffusers.UNet2DConditionModel(
        in_channels=4, out_channels=4, attention_head_dim=8, **SMALL, **CROSS
    )
    peer = diffusers.ControlNetModel(
        in_channels=4, conditioning_embedding_out_channels=(8, 12, 16), attention_head_dim=8,
        **SMALL, **settings,
    )  # fmt: skip
    randomize(base)
    randomize(peer, seed=1).requires_grad_(True)
    x, context, target = normal(0, 2, 4, 8, 8), normal(1, 2, 5, 24), normal(3, 2, 4, 8, 8)
    hint = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    t = np.array([7, 503])
    arguments = torch.tensor(x), torch.tensor(t), torch.tensor(context)
    seen = torch.tensor(hint.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    down, middle = peer(*arguments, seen, return_dict=False)
    predicted = base(
        *arguments, down_block_additional_residuals=down, mid_block_additional_residual=middle
    ).sample
    torch.nn.functional.mse_loss(predicted, torch.tensor(target)).backward()

    unet = cfg.UNet(in_channels=4, out_channels=4, **OURS)
    branch = cfg.ControlBranch(unet, hint_widths=(8, 12, 16))
    # What makes the condition of text has no part in this.
    config = cfg.Model(
        cfg.Autoencoder(block_out_channels=(32,) * 3, latent_scale=1.0), unet,
        (cfg.TextConditioner(cfg.CLIPText(20, 8, 24, 1, 1, 24), tokenizer="clip"),),
        cfg.Diffusion(), 32,
    )  # fmt: skip
    model = replace(ldm.build(config), conditioners=(), controls=(build_control(branch),))
    params = {"unet": to_tree(base)["params"]}
    own = to_tree(peer.requires_grad_(False))["params"]

    def loss(own):
        whole = {**params, "adapters": {"control": {"0": own}}}
        hinted = model.condition(whole, {}, {"hint": jnp.asarray(hint)})
        condition = Condition(context=jnp.asarray(context)).joined(hinted)
        found = model.network(whole, nhwc(x), jnp.asarray(t), condition)
        return jnp.mean((found - nhwc(target)) ** 2)

    gradients = tree.flatten(jax.jit(jax.grad(loss))(own))
    for parameter in peer.parameters():
        parameter.data = parameter.grad
    expected = tree.flatten(to_tree(peer)["params"])
    assert gradients.keys() == expected.keys()
    largest = max(float(np.linalg.norm(leaf)) for leaf in expected.values())
    for name, leaf in gradients.items():
        apart = np.linalg.norm(leaf - expected[name])
        assert apart <= GRADIENTS * np.linalg.norm(expected[name]) + 1e-7 * largest, name
