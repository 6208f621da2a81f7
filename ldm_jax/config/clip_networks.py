"""What CLIP, which compares pictures with texts, and DINOv2 are made of."""

from typing import Annotated, Literal

from ldm_jax.config.checks import (
    CountOrNone,
    Entries,
    Side,
    Width,
    Within,
    require,
    require_divisible,
    settings,
)
from ldm_jax.config.conditioning import CLIPText


def _check_patches(kind: str, size: int, patch: int) -> None:
    require_divisible(f"{kind}.image_size", size, patch, "patch_size")


def _check_heads(kind: str, width: int, heads: int) -> None:
    require(width % heads == 0, f"{kind}.num_heads", heads, f"a divisor of width {width}")


@settings
class CLIPVision:
    """CLIP's image encoder, a vision transformer; the defaults are ViT-L/14's."""

    image_size: Side = 224
    """Height and width of its images, in pixels."""
    patch_size: Side = 14
    """Side of the patches that are its tokens."""
    width: Width = 1024
    layers: Annotated[int, Within(1, 256)] = 24
    num_heads: Width = 16
    intermediate: Entries = 4096
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"

    def __post_init__(self) -> None:
        _check_patches("CLIPVision", self.image_size, self.patch_size)
        _check_heads("CLIPVision", self.width, self.num_heads)


@settings
class CLIP:
    """Two encoders, of pictures and of texts, whose embeddings are compared (Radford 2021,
    arXiv:2103.00020); the defaults are ViT-L/14's."""

    text: CLIPText = CLIPText()
    vision: CLIPVision = CLIPVision()
    embedding: Width = 768
    """Width of the embeddings that both encoders' states are projected to."""
    end_token: CountOrNone | None = None
    """A text's embedding is read at the first of these tokens, or where there is none at the last
    token; None: at the token of the largest number, the end token of CLIP's own tokenizer."""
    logit_bias: bool = False
    """Add a learned number to all similarities, as the sigmoid loss needs."""

    def __post_init__(self) -> None:
        require(self.text.skip_last == 0, "CLIP.text.skip_last", self.text.skip_last,
                "0: the embedding is of the last layer")  # fmt: skip
        end = self.end_token
        require(end is None or end < self.text.vocab_size, "CLIP.end_token", end,
                f"below the vocabulary's size {self.text.vocab_size}")  # fmt: skip


@settings
class DINOv2:
    """DINOv2's image encoder (Oquab 2023, arXiv:2304.07193); the defaults are ViT-L/14's."""

    image_size: Side = 518
    """Height and width of the images that its positions are for; they are interpolated for
    others."""
    patch_size: Side = 14
    """Side of the patches that are its tokens."""
    width: Width = 1024
    layers: Annotated[int, Within(1, 256)] = 24
    num_heads: Width = 16
    intermediate: Entries = 4096

    def __post_init__(self) -> None:
        _check_patches("DINOv2", self.image_size, self.patch_size)
        _check_heads("DINOv2", self.width, self.num_heads)
