"""The keys of adapter files: which module a tensor belongs to, and what it is of the change."""

import re
from dataclasses import dataclass

_LORA = {
    "down": ("lora_down.weight", "lora.down.weight", "lora_linear_layer.down.weight",
             "lora_A.weight", "lora_A.default.weight"),
    "up": ("lora_up.weight", "lora.up.weight", "lora_linear_layer.up.weight", "lora_B.weight",
           "lora_B.default.weight"),
    "mid": ("lora_mid.weight",),
}  # fmt: skip
_MAGNITUDE = ("lora_magnitude_vector", "lora_magnitude_vector.weight",
              "lora_magnitude_vector.default.weight")  # fmt: skip
SUFFIXES: dict[str, tuple[str, str]] = {
    **{suffix: ("lora", field) for field, all_ in _LORA.items() for suffix in all_},
    **{f"hada_{name}": ("loha", name) for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f"lokr_{name}": ("lokr", name)
       for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
    "weight": ("ia3", "weight"), "on_input": ("ia3", "on_input"),
    "diff": ("full", "diff"), "diff_b": ("bias", "diff"),
    "w_norm": ("norm", "scale"), "b_norm": ("norm", "bias"),
    "alpha": ("", "alpha"), "lora.alpha": ("", "alpha"), "lora_linear_layer.alpha": ("", "alpha"),
    "dora_scale": ("dora", "scale"), **dict.fromkeys(_MAGNITUDE, ("dora", "vector")),
}  # fmt: skip
"""What follows a module's name: (kind, array) of the change."""

_GLORA = "is GLoRA, on whose factors its programs disagree"
_OFT = "is of an orthogonal fine-tuning (OFT, BOFT), which is not read"
_WHOLE = "is a parameter that was trained whole, for which there is no base to add it to"
_UNREAD: dict[str, str] = {
    **dict.fromkeys(("a1.weight", "a2.weight", "b1.weight", "b2.weight", "bm.weight"), _GLORA),
    **dict.fromkeys(("oft_blocks", "oft_diag", "oft_R.weight", "oft_r.weight", "rescale"), _OFT),
    **dict.fromkeys(("q_layer.weight", "p_layer.weight", "lambda_layer", "base_q", "base_p",
                     "base_lambda"), "is T-LoRA, whose rank changes with time, which is not read"),
    **dict.fromkeys(("scalar", "scale"), "multiplies the change in some versions of LyCORIS only"),
    **dict.fromkeys(("lora_A.bias", "lora_B.bias"),
                    "is a bias between the factors, which is not read"),
    **dict.fromkeys(("lora_embedding_A", "lora_embedding_B", "lora_embedding_A.weight",
                     "lora_embedding_B.weight"), "changes an embedding by PEFT, which is not read"),
    "bias": _WHOLE, "base_layer.bias": _WHOLE,
    "ia3_l": "is PEFT's (IA)³, which is not read; LyCORIS' is",
    "ia3_l.weight": "is PEFT's (IA)³, which is not read; LyCORIS' is",
}  # fmt: skip

_XL = "is of SDXL's second text encoder, which the models here do not have"
_OTHERS = "is of another family of models than Stable Diffusion 1 and 2"
_CONTROL = "is of a ControlNet that is stored as an adapter, which is not read"
_TRANSFORMER = r"(double|single|joint|single_transformer)_blocks[._]"
"""What names of the parts of Flux and Stable Diffusion 3 begin with."""
_FOREIGN = (
    (r"(lora_te2_|text_encoder_2\.|lycoris_te2_).*", _XL),
    (r"(lora_te3_|lora_transformer_|transformer\.|lora_prior_|text_encoder_3\.).*", _OTHERS),
    (rf"(lora_unet_|diffusion_model\.|lycoris_|unet\.)?{_TRANSFORMER}.*", _OTHERS),
    (r"lora_controlnet|.*(input_hint_block|zero_conv|controlnet).*|lllite_.*", _CONTROL),
    (r"(unet|text_encoder):\d+:.*", "is numbered, not named (cloneofsimo's first form), which is "
                                    "not read"),
    (r".*\.modules_to_save\..*", _WHOLE),
)  # fmt: skip

_OLD = re.compile(r"(.+?)\.(?:processor\.)?to_(q|k|v|out)_lora\.(down|up)\.weight")
_OLD_ALPHA = re.compile(r"(.+?)\.(?:processor\.)?to_(q|k|v|out)_lora\.alpha")
_EMBEDDING = re.compile(r"bundle_emb\.(.+)\.string_to_param\..+")


@dataclass(frozen=True)
class Part:
    """What a key says of its tensor."""

    module: str
    """As the file spells it."""
    kind: str
    """Of `adapters.kinds.KINDS`; "" for alpha, which several have."""
    field: str


def why_unread(key: str) -> str | None:
    """Why a tensor of this key is not read, as the end of a sentence; None where it may be."""
    for pattern, why in _FOREIGN:
        if re.fullmatch(pattern, key):
            return why
    _, _, why = _parted(key, _UNREAD) or (None, None, None)
    return why


def embedding_of(key: str) -> str | None:
    """The name of the embedding whose tensor has this key; None for what is none."""
    found = _EMBEDDING.fullmatch(key)
    return found[1] if found else None


def part_of(key: str) -> Part | None:
    """What a key says of its tensor; None for a key that no adapter has."""
    for pattern in (_OLD, _OLD_ALPHA):
        if found := pattern.fullmatch(key):
            module, which, *field = found.groups()
            name = _old_name(module, which)
            return Part(name, "lora", field[0]) if field else Part(name, "", "alpha")
    found = _parted(key, SUFFIXES)
    return None if found is None else Part(found[0], *found[2])


def _old_name(module: str, which: str) -> str:
    """The projection that older files of diffusers name after what holds its change."""
    if module.endswith(".self_attn"):  # of CLIP
        return f"{module}.{'out' if which == 'out' else which}_proj"
    return f"{module}.{'to_out.0' if which == 'out' else f'to_{which}'}"


def _parted(key: str, table: dict) -> tuple | None:
    """(module, suffix, what the table has of the suffix) for the longest suffix that is known."""
    words = key.split(".")
    for count in range(min(3, len(words) - 1), 0, -1):
        suffix = ".".join(words[-count:])
        if suffix in table:
            return ".".join(words[:-count]), suffix, table[suffix]
    return None
