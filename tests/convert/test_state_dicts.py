"""The rule between names here and in diffusers, on the published architectures in full size."""

import numpy as np
import pytest
from convert_models import golden, numbers

from ldm_jax import config as cfg
from ldm_jax.config.published_models import KL_F8, MODELS, VQ_F4
from ldm_jax.convert import imported_model, state_dicts
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core import tree

SD1, SD2 = MODELS["Stable Diffusion 1"], MODELS["Stable Diffusion 2 (768, v)"]
PUBLISHED = {
    "sd1-unet": imported_model.unet_shapes(SD1.unet),
    "sd2-unet": imported_model.unet_shapes(SD2.unet),
    "faces-unet": imported_model.unet_shapes(MODELS["celeba256, ffhq256 or lsun_beds256"].unet),
    "churches-unet": imported_model.unet_shapes(MODELS["lsun_churches256"].unet),
    "kl-f8": imported_model.autoencoder_shapes(KL_F8),
    "vq-f4": imported_model.autoencoder_shapes(VQ_F4),
    "clip-l": imported_model.conditioner_shapes(SD1.conditioners[0]),
    "open-clip-h": imported_model.conditioner_shapes(SD2.conditioners[0]),
    "bert": imported_model.conditioner_shapes(MODELS["txt2img-1p4B"].conditioners[0]),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_the_peers(name):
    ours = {leaf.name: list(leaf.torch_shape) for leaf in state_dicts.leaves(PUBLISHED[name])}
    assert ours == golden("diffusers_names")[name]


def test_parameter_counts_are_as_published():
    assert tree.count(PUBLISHED["sd1-unet"]) == 859_520_964
    assert tree.count(PUBLISHED["kl-f8"]) == 83_653_863
    assert tree.count(PUBLISHED["clip-l"]) == 123_060_480


CONFIG = cfg.Autoencoder(
    block_out_channels=(32, 32),
    layers_per_block=1,
    bottleneck=cfg.VQ(12, weighting="legacy"),
    attention=(False, True),
)


@pytest.fixture
def params():
    return numbers(CONFIG)["autoencoder"]


@pytest.fixture
def shapes():
    return imported_model.autoencoder_shapes(CONFIG)


def test_there_and_back_is_the_same_bits(params, shapes):
    tensors = state_dicts.to_torch(params)
    assert tensors["encoder.conv_in.weight"].shape == (32, 3, 3, 3)
    back, ignored = state_dicts.from_torch(tensors, shapes, "it")
    for path, leaf in tree.flatten(params).items():
        assert tree.flatten(back)[path].tobytes() == leaf.tobytes()
    assert not ignored


def test_dense_layers_stored_as_convolutions(params, shapes):
    tensors = state_dicts.to_torch(params)
    name = "encoder.mid_block.attentions.0.to_q.weight"
    turned = tensors | {name: tensors[name][:, :, None, None]}
    back, _ = state_dicts.from_torch(turned, shapes, "it")
    np.testing.assert_array_equal(
        tree.flatten(back)["encoder/mid_block/attentions/0/to_q/kernel"], tensors[name].T
    )


def test_what_does_not_fit_is_named(params, shapes):
    tensors = state_dicts.to_torch(params)
    tensors["new.weight"] = tensors.pop("conv_in.weight", tensors["encoder.conv_in.weight"])
    del tensors["encoder.conv_in.bias"]
    tensors["decoder.conv_in.bias"] = np.zeros(5, np.float32)
    tensors["decoder.conv_out.bias"] = np.zeros(3, np.int64)
    with pytest.raises(ConvertError) as error:
        state_dicts.from_torch(tensors, shapes, "the file")
    for part in ("the file", "1 missing: encoder.conv_in.bias", "1 unexpected: 'new.weight'",
                 "'decoder.conv_in.bias' (is [5], wanted [32])",
                 "decoder.conv_out.bias (int64)"):  # fmt: skip
        assert part in str(error.value)


def test_ignored_with_a_reason_and_not_twice(params, shapes):
    tensors = state_dicts.to_torch(params) | {"loss.x": np.zeros(1, np.float32)}
    _, ignored = state_dicts.from_torch(tensors, shapes, "it", ((r"loss\..*", "of training"),))
    assert ignored == {"loss.x": "of training"}
    old = tensors | {"OLD": tensors["encoder.conv_in.bias"]}
    with pytest.raises(ConvertError, match="twice"):
        state_dicts.from_torch(old, shapes, "it",
                         spelled=lambda n: "encoder.conv_in.bias" if n == "OLD" else n)  # fmt: skip
