"""ControlNet beside diffusers', live, with the same random weights."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from test_networks import CROSS, OURS, SMALL, check_structure, nhwc, normal  # noqa: E402
from torch_state import randomize, relative_error, to_tree  # noqa: E402

from ldm_jax import config as cfg  # noqa: E402
from ldm_jax.convert.controlnets.control_files import read_control  # noqa: E402
from ldm_jax.convert.controlnets.control_writer import write_control  # noqa: E402
from ldm_jax.models.build import build_control  # noqa: E402
from ldm_jax.models.conditioners import Condition  # noqa: E402

# Torch warns of its own future.
pytestmark = pytest.mark.filterwarnings("default")
RESIDUALS = 1e-5
"""Of float32; sums in another order make relative errors of some 1e-6."""


@pytest.mark.parametrize("pooled", [False, True])
def test_residuals(pooled):
    settings = {name: value for name, value in CROSS.items() if "down" in name or "cross" in name}
    peer = diffusers.ControlNetModel(
        in_channels=4, conditioning_embedding_out_channels=(8, 12, 16), attention_head_dim=8,
        global_pool_conditions=pooled, **SMALL, **settings,
    )  # fmt: skip
    randomize(peer)
    unet = cfg.UNet(in_channels=4, out_channels=4, **OURS)
    net = build_control(cfg.ControlBranch(unet, hint_widths=(8, 12, 16), global_pool=pooled))
    x, context, hint = normal(0, 2, 4, 8, 8), normal(1, 2, 5, 24), normal(2, 2, 3, 32, 32)
    t = np.array([7, 503])
    with torch.no_grad():
        down, middle = peer(
            torch.tensor(x), torch.tensor(t), torch.tensor(context), torch.tensor(hint),
            return_dict=False,
        )  # fmt: skip
    variables = to_tree(peer)
    inputs = nhwc(x), t, Condition(context=context), nhwc(hint)
    check_structure(net, variables, *inputs)
    found = jax.jit(net.apply)(variables, *inputs)
    for ours, theirs in zip((*found.skips, found.middle), (*down, middle), strict=True):
        assert relative_error(np.asarray(ours), theirs) < RESIDUALS


def _model(unet, factor):
    stage = cfg.Autoencoder(block_out_channels=(32,) * factor.bit_length(), latent_scale=1.0)
    text = cfg.TextConditioner(cfg.CLIPText(20, 8, 24, 1, 1, 24), tokenizer="clip")
    return cfg.Model(stage, unet, (text,), cfg.Diffusion(), 8 * factor)


def test_folders_go_both_ways(tmp_path):
    settings = {name: value for name, value in CROSS.items() if "down" in name or "cross" in name}
    peer = diffusers.ControlNetModel(
        in_channels=4, conditioning_embedding_out_channels=(8, 12, 16), attention_head_dim=8,
        global_pool_conditions=True, **SMALL, **settings,
    )  # fmt: skip
    randomize(peer).save_pretrained(tmp_path / "theirs")
    unet = cfg.UNet(in_channels=4, out_channels=4, **OURS)
    found = read_control(tmp_path / "theirs", _model(unet, 4), {})
    assert found.config == cfg.ControlBranch(unet, hint_widths=(8, 12, 16), global_pool=True)
    write_control(found, tmp_path / "ours", "diffusers")
    again, told = diffusers.ControlNetModel.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(told.values())
    same = {n: v for n, v in peer.config.items() if not n.startswith("_")}
    differing = {n for n, v in same.items() if again.config[n] != v}
    # One number stands for all levels there, a list here.
    assert differing <= {"attention_head_dim", "block_out_channels", "down_block_types",
                         "conditioning_embedding_out_channels", "act_fn"}  # fmt: skip
    for name, tensor in peer.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
