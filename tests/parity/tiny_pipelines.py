"""Tiny pipelines of diffusers with seeded weights, in all the architectures that are read here."""

import json

import diffusers
import torch
import transformers
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)

WIDTHS = [32, 64]
VOCAB = 60


def seeded(module):
    """Weights in which nothing is zero or one, so that no part can be left out unnoticed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            norm = p.ndim == 1 and "norm" in name and name.endswith("weight")
            scale = 0.1 if p.ndim == 1 else max(p[0].numel(), 1) ** -0.5
            p.copy_(noise * scale + (1.0 if norm else 0.0))
    return module.eval()


def tokenizer(folder):
    """A CLIP tokenizer of single letters."""
    folder.mkdir()
    letters = [chr(ord("a") + i) for i in range(26)]
    words = letters + [f"{letter}</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def unet(kind="sd1", **changes):
    settings = {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": WIDTHS,
        "layers_per_block": 1, "cross_attention_dim": 64, "attention_head_dim": 4,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    }  # fmt: skip
    if kind == "sd2":
        settings |= {"use_linear_projection": True, "attention_head_dim": [1, 2],
                     "upcast_attention": True}  # fmt: skip
    return seeded(diffusers.UNet2DConditionModel(**settings | changes))


def shallow_unet():
    """Of one level, which compiles in half the time, for what is the same in all networks."""
    return unet(
        block_out_channels=WIDTHS[:1], down_block_types=["CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D"],
    )  # fmt: skip


def autoencoder(**changes):
    settings = {
        "block_out_channels": WIDTHS, "layers_per_block": 1, "latent_channels": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
    }  # fmt: skip
    return seeded(diffusers.AutoencoderKL(**settings | changes))


def clip(**changes):
    config = transformers.CLIPTextConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=1, max_position_embeddings=77, **changes,
    )  # fmt: skip
    return seeded(transformers.CLIPTextModel(config))


def scheduler(**changes):
    return diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, **changes,
    )  # fmt: skip


def stable(folder, kind):
    parts = {
        "tokenizer": tokenizer(folder / "tokenizer_source"), "vae": autoencoder(),
        "safety_checker": None, "feature_extractor": None,
    }  # fmt: skip
    match kind:
        case "sd1" | "shallow":
            return diffusers.StableDiffusionPipeline(
                unet=unet() if kind == "sd1" else shallow_unet(), text_encoder=clip(),
                scheduler=scheduler(), **parts,
                requires_safety_checker=False,
            )  # fmt: skip
        case "edit":
            return diffusers.StableDiffusionInstructPix2PixPipeline(
                unet=unet(in_channels=8), text_encoder=clip(), scheduler=scheduler(), **parts,
                requires_safety_checker=False,
            )  # fmt: skip
        case "depth":
            del parts["safety_checker"]
            return diffusers.StableDiffusionDepth2ImgPipeline(
                unet=unet("sd2", in_channels=5), text_encoder=clip(hidden_act="gelu"),
                scheduler=scheduler(), depth_estimator=None, **parts,
            )  # fmt: skip
        case "sd2":
            return diffusers.StableDiffusionPipeline(
                unet=unet("sd2"), text_encoder=clip(hidden_act="gelu"),
                scheduler=scheduler(prediction_type="v_prediction"), **parts,
                requires_safety_checker=False,
            )  # fmt: skip
    return diffusers.StableDiffusionInpaintPipeline(
        unet=unet(in_channels=9), text_encoder=clip(), scheduler=scheduler(), **parts,
        requires_safety_checker=False,
    )  # fmt: skip


def unconditional(change):
    resnet = change == "resnet"
    quantized = seeded(diffusers.VQModel(
        block_out_channels=WIDTHS, layers_per_block=1, latent_channels=3, num_vq_embeddings=40,
        down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"], scaling_factor=1.0,
    ))  # fmt: skip
    network = seeded(diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=WIDTHS,
        layers_per_block=1, attention_head_dim=16, downsample_type=change, upsample_type=change,
        down_block_types=["AttnDownBlock2D", "DownBlock2D"],
        up_block_types=[f"{'ResnetUpsample' if resnet else 'Up'}Block2D", "AttnUpBlock2D"],
        resnet_time_scale_shift="scale_shift" if resnet else "default",
        attn_norm_num_groups=32 if resnet else None,
    ))  # fmt: skip
    return diffusers.LDMPipeline(vqvae=quantized, unet=network, scheduler=scheduler())


def bert_pipeline(folder):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    source = folder / "bert_tokenizer"
    source.mkdir()
    (source / "vocab.txt").write_text("\n".join(words))
    encoder = LDMBertModel(LDMBertConfig(
        vocab_size=VOCAB, encoder_layers=2, encoder_ffn_dim=256, encoder_attention_heads=2,
        head_dim=64, d_model=64,
    ))  # fmt: skip
    return diffusers.LDMTextToImagePipeline(
        vqvae=autoencoder(),
        bert=seeded(encoder),
        unet=unet(),
        scheduler=scheduler(),
        tokenizer=transformers.BertTokenizer.from_pretrained(source),
    )


def upscaler(folder):
    """Of Stable Diffusion's x4 form: noise levels, both attentions of a level to the text."""
    return diffusers.StableDiffusionUpscalePipeline(
        unet=unet(
            "sd2", in_channels=7, num_class_embeds=1000, only_cross_attention=[True, False],
            down_block_types=["CrossAttnDownBlock2D"] * 2,
            up_block_types=["CrossAttnUpBlock2D"] * 2,
        ),
        tokenizer=tokenizer(folder / "tokenizer_source"), vae=autoencoder(scaling_factor=0.08333),
        text_encoder=clip(hidden_act="gelu"),
        low_res_scheduler=diffusers.DDPMScheduler(beta_schedule="scaled_linear"),
        scheduler=scheduler(prediction_type="v_prediction"), max_noise_level=100,
    )  # fmt: skip


def super_resolution():
    network = seeded(diffusers.UNet2DModel(
        sample_size=8, in_channels=6, out_channels=3, block_out_channels=WIDTHS,
        layers_per_block=1, attention_head_dim=16,
        down_block_types=["DownBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "UpBlock2D"],
    ))  # fmt: skip
    quantized = seeded(diffusers.VQModel(
        block_out_channels=WIDTHS, layers_per_block=1, latent_channels=3, num_vq_embeddings=40,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
    ))  # fmt: skip
    return diffusers.LDMSuperResolutionPipeline(
        vqvae=quantized, unet=network, scheduler=scheduler()
    )


KINDS = [
    "sd1", "sd2", "inpaint", "edit", "depth", "conv", "resnet", "bert", "upscale",
    "super resolution",
]  # fmt: skip


def pipeline(folder, kind):
    match kind:
        case "upscale":
            return upscaler(folder)
        case "super resolution":
            return super_resolution()
        case "conv" | "resnet":
            return unconditional(kind)
        case "bert":
            return bert_pipeline(folder)
    return stable(folder, kind)
