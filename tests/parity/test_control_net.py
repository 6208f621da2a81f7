"""ControlNet beside diffusers', live, with the same random weights."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from test_networks import CROSS, OURS, SMALL, check_structure, nhwc, normal  # noqa: E402
from torch_state import randomize, relative_error, to_tree  # noqa: E402

from ldm_jax import config as cfg  # noqa: E402
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
