"""Writes golden/conditional_codes.npz: what the original of VQGAN's second stage computes where the
condition is made of codes.

    python tests/parity/make_conditional_codes.py TAMING_TRANSFORMERS

A checkout of CompVis/taming-transformers (3ba01b2). Needs PyTorch, and none of its other packages;
the test that reads the file needs no original.
"""

import importlib
import json
import sys
import types
from pathlib import Path

import conditional_codes as codes
import numpy as np
import torch


def stub(name: str, **members: object) -> None:
    """A module that is imported and has nothing but `members`."""
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(members)


def instantiate(config: dict) -> object:
    module, _, name = config["target"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**config.get("params", {}))


def prepare(path: str) -> None:
    sys.path.insert(0, path)
    stub("pytorch_lightning", LightningModule=torch.nn.Module)
    stub("main", instantiate_from_config=instantiate)
    stub("transformers", top_k_top_p_filtering=None)


def model_of(name: str) -> torch.nn.Module:
    from taming.models.cond_transformer import Net2NetTransformer

    made = Net2NetTransformer(**codes.settings(name)).eval()
    state = {
        key: tensor if key.endswith("mask") else torch.from_numpy(codes.weight(key, tensor.shape))
        for key, tensor in made.state_dict().items()
    }
    made.load_state_dict(state)
    return made


def condition(name: str, sides: tuple[int, int]) -> torch.Tensor:
    """As the original's data sets make it, NCHW."""
    if name == "faceshq":
        height, width = sides
        values = np.arange(height * width).reshape(height, width, 1) / (height * width)
    elif name == "drin":
        values = codes.depth(sides).astype(np.float64)
        values = (values - values.min()) / max(1e-8, values.max() - values.min())
        values = (2.0 * values - 1.0)[..., None]
    else:
        values = np.eye(codes.CHANNELS[name])[codes.class_map(name, sides)]
    return torch.from_numpy(values).permute(2, 0, 1)[None].float()


def in_windows(model: torch.nn.Module, tokens: torch.Tensor, grid: tuple[int, int]) -> np.ndarray:
    """The likeliest codes of a large picture one by one, as the original's page draws them, for
    windows of 16 codes, here of `side`."""
    side = codes.SIDE // codes.FACTOR
    height, width = grid
    before, found = tokens.reshape(1, *grid), torch.zeros(1, *grid, dtype=torch.long)

    def local(place: int, end: int) -> int:
        if place <= side // 2:
            return place
        return side - (end - place) if end - place < side // 2 else side // 2

    for i in range(height):
        for j in range(width):
            y, x = local(i, height), local(j, width)
            rows, columns = slice(i - y, i - y + side), slice(j - x, j - x + side)
            both = [raster[:, rows, columns].reshape(1, -1) for raster in (before, found)]
            logits, _ = model.transformer(torch.cat(both, 1)[:, :-1])
            logits = logits[:, -(side**2) :].reshape(1, side, side, -1)[:, y, x]
            found[:, i, j] = logits[:, : codes.CODES].argmax(-1)
    return found[0].numpy()


def numbers(name: str) -> dict[str, np.ndarray]:
    model = model_of(name)
    image = torch.from_numpy(codes.picture()).permute(2, 0, 1)[None].float() / 127.5 - 1.0
    given = condition(name, (codes.SIDE, codes.SIDE))
    logits, of_image = model(image, given)
    _, before = model.encode_to_c(given)
    large = tuple(side // codes.FACTOR for side in codes.LARGE)
    _, around = model.encode_to_c(condition(name, codes.LARGE))
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    return {
        "logits": logits[0].numpy(), "image": of_image[0].numpy(),
        "condition": before.reshape(-1).numpy(),
        "large_condition": around.reshape(large).numpy(),
        "large": in_windows(model, around.reshape(1, -1), large),
        "decoded": model.decode_to_img(of_image, (1, 8, 4, 4))[0].permute(1, 2, 0).numpy(),
        "shapes": np.array(json.dumps(shapes)),
    }  # fmt: skip


def coordinates() -> dict[str, np.ndarray]:
    from taming.modules.misc.coord import CoordStage

    found = {}
    for height, width, factor, size in codes.SIZES:
        values = np.arange(height * width).reshape(1, 1, height, width) / (height * width)
        _, _, info = CoordStage(size, factor).encode(torch.from_numpy(values).float())
        found[f"coordinates/{height}x{width}"] = info[2][0, 0].numpy()
    return found


@torch.no_grad()
def main(path: str) -> None:
    prepare(path)
    found = coordinates()
    for name in codes.CHANNELS:
        made = numbers(name)
        print(name, "codes of the condition:", len({*made["condition"].tolist()}), "of the image:",
              len({*made["image"].tolist()}), "drawn:", len({*made["large"].flat}))  # fmt: skip
        found |= {f"{name}/{key}": value for key, value in made.items()}
    np.savez_compressed(codes.GOLDEN, **found)
    print(f"{codes.GOLDEN}: {Path(codes.GOLDEN).stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
