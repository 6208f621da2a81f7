"""Networks and DDIM compute what diffusers and transformers compute with the same weights.

`make_references.py` made the numbers. float32 against float32 in another order of summation:
errors of a few 1e-6 in each of some thirty layers, on outputs near 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import weights

from ldm_jax import config as cfg
from ldm_jax.core import tree
from ldm_jax.diffusion.parameterization import make_denoiser
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.models.build import build_autoencoder, build_conditioner, build_unet
from ldm_jax.models.conditioners import Condition
from ldm_jax.sampling.ancestral import DDIM
from ldm_jax.sampling.levels import levels
from ldm_jax.sampling.scan import sample

CLOSE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(scope="module")
def references():
    with np.load(weights.REFERENCES) as file:
        return dict(file)


def normal(name, shape):
    """A named NCHW array as NHWC."""
    return jnp.asarray(weights.normal(name, shape).transpose(0, 2, 3, 1))


def filled(module, *inputs):
    """Variables of `module` with the peer's weights under the peer's names."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    flat = {path: _parameter(path, leaf.shape) for path, leaf in tree.flatten(shapes).items()}
    return {"params": tree.unflatten(flat)}


def _parameter(path, shape):
    *levels_, last = path.split("/")
    name = ".".join(levels_)
    match last, len(shape):
        case "bias", _:
            return weights.weight(f"{name}.bias", shape)
        case "kernel", 2:
            return weights.weight(f"{name}.weight", shape[::-1]).T
        case "kernel", 4:
            peer = (shape[3], shape[2], *shape[:2])
            return weights.weight(f"{name}.weight", peer).transpose(2, 3, 1, 0)
    return weights.weight(f"{name}.weight", shape)


@pytest.mark.parametrize("linear", [False, True])
def test_unet(references, linear):
    config = cfg.UNet(
        in_channels=4, out_channels=4,
        block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, context_dim=24,
        attention=(True, False), num_heads=(4, 4), use_linear_projection=linear,
    )  # fmt: skip
    context = jnp.asarray(weights.normal("context", (2, 5, 24)))
    inputs = normal("x", (2, 4, 8, 8)), jnp.array([3, 901]), Condition(context=context)
    unet = build_unet(config)
    out = jax.jit(unet.apply)(filled(unet, *inputs), *inputs)
    np.testing.assert_allclose(out, references["unet_linear" if linear else "unet"], **CLOSE)


def test_autoencoder(references):
    autoencoder = build_autoencoder(
        cfg.Autoencoder(block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8)
    )
    image, z = normal("image", (2, 3, 16, 16)), normal("z", (2, 4, 8, 8))
    variables = filled(autoencoder, image, z)

    @jax.jit
    def both(variables):
        posterior = autoencoder.apply(variables, image, method="encode")
        return posterior, autoencoder.apply(variables, z, method="decode")

    posterior, decoded = both(variables)
    moments = jnp.concatenate([posterior.mean, posterior.logvar], axis=-1)
    np.testing.assert_allclose(moments, references["moments"], **CLOSE)
    np.testing.assert_allclose(decoded, references["decoded"], **CLOSE)


def test_clip(references):
    encoder = cfg.CLIPText(
        vocab_size=50, max_length=12, width=32, layers=2, num_heads=4, intermediate=64
    )
    clip = build_conditioner(cfg.TextConditioner(encoder)).module
    tokens = jnp.arange(24, dtype=jnp.int32).reshape(2, 12) % 50
    context = jax.jit(clip.apply)(filled(clip, tokens), tokens).context
    np.testing.assert_allclose(context, references["clip"], **CLOSE)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize(
    ("prediction", "peer"), [("eps", "epsilon"), ("v", "v_prediction"), ("x0", "sample")]
)
def test_ddim(references, spacing, prediction, peer):
    schedule = NoiseSchedule.create("scaled_linear", 1000)

    def network(x, t):
        share = 0.3 + 0.7 * t.astype(jnp.float32) / 1000
        return 0.9 * jnp.tanh(x) * share[:, None, None, None]

    denoise = make_denoiser(network, prediction, schedule)
    x = jnp.asarray(weights.normal("start", (2, 4, 4, 3)))
    found = sample(DDIM(), denoise, x, levels(schedule, weights.STEPS, spacing)).x
    expected = references[f"ddim/{spacing}/{peer}"]
    # The peer computes in float64; twenty steps in float32 add up to some 1e-5.
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)
