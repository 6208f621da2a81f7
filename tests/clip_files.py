"""Tokenizer files as CLIP's and BERT's folders have them, with tiny vocabularies."""

import json
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = ("r e", "re d</w>", "t h", "th re", "thre e</w>", "c a", "ca t</w>", "Ã ©</w>")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "cat", "##s", "##e", "cafe", ",")


def byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte in CLIP's and GPT-2's vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def write_clip(folder: Path, pad: str = END) -> Path:
    """`vocab.json`, `merges.txt` and the two settings of a diffusers `tokenizer/` folder.

    `pad` is the end token in SD 1 and "!" in SD 2. All bytes are known, and a few words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    letters = list(byte_letters().values())
    tokens = letters + [f"{letter}</w>" for letter in letters]
    tokens += [m.replace(" ", "") for m in MERGES] + [START, END]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n")

    def special(content: str) -> dict:
        flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        return {"content": content, **flags}

    (folder / "special_tokens_map.json").write_text(
        json.dumps(
            {"bos_token": special(START), "eos_token": special(END), "unk_token": special(END)}
            | {"pad_token": pad}
        )
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "add_prefix_space": False, "do_lower_case": True, "errors": "replace",
                "model_max_length": 77, "name_or_path": "openai/clip-vit-large-patch14",
                "pad_token": pad, "tokenizer_class": "CLIPTokenizer",
                "bos_token": {"__type": "AddedToken", **special(START)},
                "eos_token": {"__type": "AddedToken", **special(END)},
                "unk_token": {"__type": "AddedToken", **special(END)},
            }
        )
    )  # fmt: skip
    return folder


def write_bert(folder: Path) -> Path:
    """`vocab.txt`, as bert-base-uncased has it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return folder
