"""A diffusers folder of Stable Diffusion 1.5's size with random weights, for benchmarks.

    python -m benchmarks.random_stable_diffusion FOLDER

4.3 GB in float32. The tokenizer knows single bytes alone. Needs the extra `parity`.
"""

import json
import sys
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers


def write(folder: Path) -> None:
    """Writes the whole pipeline with diffusers' own code."""
    torch.manual_seed(0)
    text = transformers.CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
        num_attention_heads=12, max_position_embeddings=77, hidden_act="quick_gelu",
        bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
    )  # fmt: skip
    levels = 4
    pipeline = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
        ),
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=tokenizer(),
        unet=diffusers.UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8
        ),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
            clip_sample=False, set_alpha_to_one=False,
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)


def tokenizer() -> transformers.CLIPTokenizer:
    """CLIP's tokenizer with letters and no merges, but its special tokens in their places."""
    letters = [chr(c) for c in range(33, 127)]
    vocabulary = {token: i for i, token in enumerate([*letters, *(f"{c}</w>" for c in letters)])}
    filler = {f"<{i}>": i for i in range(len(vocabulary), 49406)}
    vocabulary |= filler | {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary))
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n")
        return transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
