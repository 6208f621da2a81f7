"""What names in files speak of."""

import pytest

from ldm_jax.convert.other_kinds import kinds_of


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (["lora_unet_a.lora_up.weight", "lora_unet_a.alpha"], {"adapter"}),
        (["lora_unet_a.hada_w1_a", "bundle_emb.a.string_to_param.*"], {"adapter"}),
        (["a.weight", "a.on_input", "a.alpha"], set()),
        (["string_to_token", "string_to_param"], {"embedding"}),
        (["emb_params"], {"embedding"}),
        (["emb_params", "other"], set()),
        ([320, 768, "step"], {"hypernetwork"}),
        (["control_model.input_hint_block.0.weight"], {"ControlNet"}),
        (["input_hint_block.0.weight", "lora_controlnet"], set()),
        (["input_hint_block.0.weight", "double_blocks.0.img_mod.lin.weight"], set()),
        (["controlnet_cond_embedding.conv_in.bias", "model_ema.a"], {"ControlNet", "model"}),
        (["first_stage_model.a"], {"model"}),
        ([], set()),
    ],
)
def test_kinds(names, kinds):
    assert kinds_of(names) == kinds
