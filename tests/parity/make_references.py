"""Writes references.npz: what diffusers and transformers compute with the weights of `weights`.

    python tests/parity/make_references.py

Needs PyTorch and diffusers (the extra `parity`); the tests that read the file need neither.
"""

import diffusers
import numpy as np
import torch
import transformers
import weights


def fill(module: torch.nn.Module, prefix: str = "") -> torch.nn.Module:
    """The module with the weights of its names after `prefix`, for inference."""
    state = {
        name: torch.from_numpy(weights.weight(prefix + name, tuple(value.shape)))
        for name, value in module.state_dict().items()
        if value.is_floating_point()
    }
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected and all("position_ids" in name for name in missing)
    return module.eval()


def unet(linear: bool) -> np.ndarray:
    module = diffusers.UNet2DConditionModel(
        sample_size=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), use_linear_projection=linear,
        **weights.UNET,
    )  # fmt: skip
    x = torch.from_numpy(weights.normal("x", (2, 4, 8, 8)))
    context = torch.from_numpy(weights.normal("context", (2, 5, 24)))
    out = fill(module)(x, torch.tensor([3, 901]), encoder_hidden_states=context).sample
    return out.permute(0, 2, 3, 1).numpy()


def autoencoder() -> tuple[np.ndarray, np.ndarray]:
    levels = len(weights.AUTOENCODER["block_out_channels"])
    module = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, latent_channels=4, **weights.AUTOENCODER,
    )  # fmt: skip
    fill(module)
    x = torch.from_numpy(weights.normal("image", (2, 3, 16, 16)))
    posterior = module.encode(x).latent_dist
    z = torch.from_numpy(weights.normal("z", (2, 4, 8, 8)))
    moments = torch.cat([posterior.mean, posterior.logvar], dim=1)
    return moments.permute(0, 2, 3, 1).numpy(), module.decode(z).sample.permute(0, 2, 3, 1).numpy()


def clip() -> np.ndarray:
    # Configured tokens would only matter for the pooled output, which is not compared.
    config = transformers.CLIPTextConfig(
        **weights.CLIP, hidden_act="quick_gelu", bos_token_id=0, eos_token_id=1, pad_token_id=1
    )
    # The published files have the prefix, the module of transformers 5 no longer has it.
    module = fill(transformers.CLIPTextModel(config), "text_model.")
    return module(torch.arange(24).reshape(2, 12) % 50).last_hidden_state.numpy()


def ddim(spacing: str, prediction: str) -> np.ndarray:
    scheduler = diffusers.DDIMScheduler(
        **weights.SCHEDULE, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, timestep_spacing=spacing, prediction_type=prediction,
        steps_offset=int(spacing == "leading"),
    )  # fmt: skip
    scheduler.set_timesteps(weights.STEPS)
    x = torch.from_numpy(weights.normal("start", (2, 4, 4, 3))).double()
    for t in scheduler.timesteps.tolist():
        output = torch.from_numpy(weights.predicted_noise(x.numpy(), t))
        x = scheduler.step(output, t, x).prev_sample
    return x.numpy()


@torch.inference_mode()
def main() -> None:
    """Computes and writes everything."""
    moments, decoded = autoencoder()
    found = {
        "unet": unet(linear=False), "unet_linear": unet(linear=True), "moments": moments,
        "decoded": decoded, "clip": clip(),
    }  # fmt: skip
    # Not "linspace": diffusers steps from there to timesteps that are not in its list.
    for spacing in ("leading", "trailing"):
        for prediction in ("epsilon", "v_prediction", "sample"):
            found[f"ddim/{spacing}/{prediction}"] = ddim(spacing, prediction)
    np.savez_compressed(weights.REFERENCES, **found)
    print({name: (value.shape, float(np.std(value))) for name, value in found.items()})


if __name__ == "__main__":
    main()
